"""The trainer: `transformers.Trainer` with the paper's losses on context trees in place of its own.

Checkpoints, resume, mixed precision, trackers and distribution are the library's. What is ours: how a
batch becomes trees, the loss, and the validation figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME

from editloop.errors import ConfigError, RunError
from editloop.offline.config import Candidate, FitConfig, Method
from editloop.offline.examples import Example
from editloop.offline.losses import (
    dpo_loss,
    early_ensemble_loss,
    pairwise_regression_loss,
    preference_margin,
    sft_loss,
    weighted_likelihood_loss,
)
from editloop.policy import Policy, TreeBatch, batch_log_probs, processes

__all__ = [
    "EditTrainer",
    "Rows",
    "TrainingBatch",
    "choice_loss",
    "disk_errors",
    "make_batch",
    "method_loss",
    "micro_batch",
    "training_arguments",
]

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingBatch:
    """Packed trees and the roles of their continuations.

    Attributes:
        trees: K continuations.
        chosen: Which continuation is each example's edit [n].
        pair: Which of the n examples are pairs [p].
        rejected: Which continuation is each pair's response [p].
        ref_chosen: log π_ref of the pairs' edits [p].
        ref_rejected: log π_ref of the pairs' responses [p].
        group: Which example each continuation is an alternative of [K]; empty where there is no RL.
        ref: log π_ref of the alternatives [K].
        bound: Their pessimistic cost f̄ [K].
    """

    trees: TreeBatch
    chosen: Tensor
    pair: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    group: Tensor
    ref: Tensor
    bound: Tensor

    def __len__(self) -> int:
        return len(self.chosen)

    def counts(self) -> dict[str, float]:
        """Edits, their tokens, pairs, and contexts with a choice: what the losses are means over."""
        tokens = float(self.trees.lengths[self.chosen.numpy()].sum())
        return {
            "sequence": float(len(self.chosen)),
            "token": tokens,
            "pair": float(len(self.pair)),
            "choice": float((torch.bincount(self.group) > 1).sum()),
        }


COUNTS = ("sequence", "token", "pair", "choice")


def make_batch(
    policy: Policy, examples: Sequence[Example], method: Method, kappa: float | None = None
) -> TrainingBatch:
    """Pack examples for a method.

    `sft` needs no responses, `dpo` nothing before edit and response part; with `kappa`, for RL, the
    alternatives are packed.
    """
    chosen, pair, rejected, reference = [], [], [], []
    group: list[int] = []
    ref: list[float] = []
    bound: list[float] = []
    trees, continuations = [], 0
    for i, example in enumerate(examples):
        if method == "sft":
            example = example.edit_only()
        tree = example.tree
        if kappa is not None:
            assert example.alternatives is not None
            alternatives = example.alternatives
            tree = alternatives.tree
            group += [i] * len(tree.continuations)
            ref += alternatives.reference
            bound += alternatives.bound(kappa)
        trees.append(tree)
        chosen.append(continuations)
        if example.is_pair:
            pair.append(i)
            rejected.append(continuations + 1)
            reference.append(example.reference or (math.nan, math.nan))
        continuations += len(tree.continuations)
    pairs = torch.tensor(reference, dtype=torch.float64).reshape(-1, 2)
    return TrainingBatch(
        policy.pack(trees, from_fork=method == "dpo"),
        chosen=torch.tensor(chosen, dtype=torch.long),
        pair=torch.tensor(pair, dtype=torch.long),
        rejected=torch.tensor(rejected, dtype=torch.long),
        ref_chosen=pairs[:, 0],
        ref_rejected=pairs[:, 1],
        group=torch.tensor(group, dtype=torch.long),
        ref=torch.tensor(ref, dtype=torch.float64),
        bound=torch.tensor(bound, dtype=torch.float64),
    )


def method_loss(
    method: Method,
    candidate: Candidate,
    batch: TrainingBatch,
    log_probs: Tensor,
    config: FitConfig,
    counts: dict[str, float] | None = None,
) -> Tensor:
    """The loss of a method on a batch.

    Args:
        method: Which loss.
        candidate: β, and λ or κ where the method has them.
        batch: n examples with K continuations.
        log_probs: Of the continuations [K].
        config: The SFT loss's reduction.
        counts: Of the whole batch, where this is a part of it; by default this batch's own.
    """
    counts = counts or batch.counts()
    device = log_probs.device
    exact = torch.float64 if device.type in ("cpu", "cuda") else torch.float32  # Apple's GPUs have no other
    sft = log_probs.new_zeros(())
    if method in ("sft", "early"):
        lengths = torch.from_numpy(batch.trees.lengths)[batch.chosen].to(device)
        count = counts[config.sft_reduction]
        sft = sft_loss(
            log_probs[batch.chosen.to(device)], lengths, reduction=config.sft_reduction, count=count
        )
        if method == "sft":
            return sft
    assert candidate.beta is not None
    rl = log_probs.new_zeros(())
    if len(batch.group):
        rl = choice_loss(
            log_probs.to(exact),
            batch.ref.to(device, exact),
            batch.bound.to(device, exact),
            batch.group.to(device),
            candidate,
            counts["choice"],
        )
        if method == "rl":
            return rl.float()
    margin = preference_margin(
        log_probs[batch.chosen[batch.pair].to(device)],
        log_probs[batch.rejected.to(device)],
        batch.ref_chosen.to(device, exact),
        batch.ref_rejected.to(device, exact),
    )
    dpo = dpo_loss(margin.float(), beta=candidate.beta, count=counts["pair"])
    if method == "dpo":
        return dpo
    assert candidate.dpo_weight is not None
    return early_ensemble_loss(
        sft, dpo, rl.float(), dpo_weight=candidate.dpo_weight, rl_weight=candidate.rl_weight or 0.0
    )


def choice_loss(
    log_probs: Tensor,
    ref: Tensor,
    bound: Tensor,
    group: Tensor,
    candidate: Candidate,
    count: float | None = None,
) -> Tensor:
    """The RL loss that the candidate names, on alternatives [K] (see `editloop.offline.losses`)."""
    beta = candidate.rl_beta or candidate.beta
    assert beta is not None
    if candidate.rl_loss == "pairwise":
        return pairwise_regression_loss(log_probs - ref, bound, group, beta=beta, count=count)
    return weighted_likelihood_loss(log_probs, bound, group, beta=beta, count=count)


TORCH_CANNOT_WRITE = ("PytorchStreamWriter", "inline_container", "iostream error")
"""What torch's RuntimeErrors say where a file cannot be written: it depends on how much of it could."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """What the libraries raise where they cannot write, as one line.

    Raises:
        RunError: In place of those.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in TORCH_CANNOT_WRITE):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, RuntimeError):  # torch's own words are of offsets in a file
            reason = "no space left, or no file may be so long"
        raise RunError(
            f"cannot write to the run folder: {reason}",
            seen=str(folder),
            do="free space and run the same command again: it goes on where it stopped",
        ) from error


class Rows(Dataset[T]):
    """Rows as the data loader wants them."""

    def __init__(self, rows: Sequence[T]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> T:
        return self.rows[index]


class _Stream(Sampler[int]):
    """The rows of a whole training: epochs one after the other, each in a new order.

    Steps are cut from the stream as it comes, so that no row is left out where an epoch ends. The stream
    is a function of the seed alone, so that a continued training sees what an uninterrupted one sees,
    however a step is divided.
    """

    def __init__(self, rows: int, length: int, seed: int) -> None:
        self.rows, self.length, self.seed = rows, length, seed

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        for start in range(0, self.length, self.rows):
            order = torch.Generator().manual_seed(1_000_003 * self.seed + start // self.rows)
            yield from torch.randperm(self.rows, generator=order)[: self.length - start].tolist()


class EditTrainer(Trainer):  # type: ignore[misc]
    """Trains a policy on examples by one method's loss.

    Args:
        policy: The policy; its model is trained in place.
        method: The method.
        candidate: The point of the grid.
        config: The fit's configuration.
        arguments: From `training_arguments`.
        train: Examples, with reference log-probabilities where the method needs them.
        validate: Computes the validation figures, with `loss` among them; called at each evaluation.
        callbacks: Further callbacks.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        method: Method,
        candidate: Candidate,
        config: FitConfig,
        arguments: TrainingArguments,
        train: Sequence[Example],
        validate: Callable[[], dict[str, float]],
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.policy, self.method, self.candidate, self.config = policy, method, candidate, config
        self._validate = validate
        self.control: TrainerControl
        super().__init__(
            model=policy.model,
            args=arguments,
            train_dataset=Rows(train),
            eval_dataset=Rows(train[:1]),  # the library wants one; `validate` knows the real one
            data_collator=lambda rows: {"batch": make_batch(policy, rows, method, candidate.kappa)},
            callbacks=[EarlyStoppingCallback(config.patience), *callbacks],
        )
        self.remove_callback(PrinterCallback)  # the callback hears what there is to hear
        # Our losses are already divided by the counts of the whole batch (see _get_num_items_in_batch).
        self.model_accepts_loss_kwargs = True

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> dict[str, float]:
        """Counts of the optimiser step's whole batch: all accumulation steps, all processes.

        They are divided by the number of processes, because the gradients of the processes are
        averaged where the parts of the loss must be added.
        """
        counts = [sample["batch"].counts() for sample in batch_samples]
        totals = [sum(c[key] for c in counts) for key in COUNTS]
        world = self.args.world_size
        if world > 1:
            table = torch.tensor(totals, dtype=torch.float64, device=device)
            totals = (self.accelerator.reduce(table, "sum") / world).tolist()
        return dict(zip(COUNTS, totals, strict=True))

    def _get_train_sampler(self, train_dataset: Dataset[Example] | None = None) -> Sampler[int] | None:
        if self.args.train_sampling_strategy == "sequential":
            return super()._get_train_sampler(train_dataset)  # type: ignore[no-any-return]
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return _Stream(len(self.train_dataset), step * self.args.max_steps, self.args.seed)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with disk_errors(Path(self.args.output_dir)):
            super()._save_checkpoint(model, trial)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: dict[str, float] | None = None,
    ) -> Tensor:
        """The method's loss on one micro-batch."""
        batch: TrainingBatch = inputs["batch"]
        log_probs = batch_log_probs(model, batch.trees)
        return method_loss(self.method, self.candidate, batch, log_probs, self.config, num_items_in_batch)

    def train_from(self, checkpoint: str | None) -> None:
        """Train, or go on from a checkpoint; one that was written after the last step has only to be read.

        The library would make one step more than the training has.
        """
        file = Path(checkpoint, TRAINER_STATE_NAME) if checkpoint else None
        state = TrainerState.load_from_json(str(file)) if file else None
        if checkpoint is None or state is None or not _is_over(state):
            self.train(resume_from_checkpoint=checkpoint)
            return
        self.state = state
        self._load_from_checkpoint(checkpoint)
        if state.best_model_checkpoint is not None:
            self._load_best_model()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the library's estimate knows nothing of trees."""
        return 0

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """The validation figures, logged and told to the callbacks as the library does."""
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in self._validate().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _is_over(state: TrainerState) -> bool:
    """Whether a checkpoint's training had made its last step, or had been stopped early."""
    control = state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
    return state.global_step >= state.max_steps or bool(control.get("should_training_stop"))


def micro_batch(batch: int, examples: Sequence[Example], vocabulary: int, *, most: int | None = None) -> int:
    """The most contexts of a batch that one forward should hold; it divides the batch.

    A forward holds at most `most` contexts; by default about 8,192 tokens, and logits of 2^29 numbers.
    """
    trees = [e.alternatives.tree if e.alternatives else e.tree for e in examples]
    tokens = sum(len(tree.layout) for tree in trees) / len(trees)
    bearable = most or min(8192, 2**29 / vocabulary) / tokens
    return max(size for size in range(1, batch + 1) if batch % size == 0 and (size <= bearable or size == 1))


def training_arguments(
    config: FitConfig, candidate: Candidate, folder: Path, policy: Policy, examples: Sequence[Example]
) -> TrainingArguments:
    """The library's arguments for one training.

    Args:
        config: The fit's configuration.
        candidate: Its learning rate.
        folder: Where checkpoints go.
        policy: The policy to train, for its device, precision and vocabulary.
        examples: The training examples.

    Raises:
        ConfigError: A batch cannot be divided among the processes.
    """
    device = policy.device
    world = processes(device).num_processes
    if config.batch_size % world:
        raise ConfigError(
            f"a batch cannot be divided among {world} processes",
            seen=config.batch_size,
            do="change --batch-size",
        )
    if len(examples) < world:
        raise ConfigError(f"fewer rows than the {world} processes", seen=len(examples), do="use one process")
    batch = min(config.batch_size, len(examples)) // world  # of one process
    vocabulary = int(policy.model.config.get_text_config().vocab_size)
    micro = micro_batch(batch, examples, vocabulary, most=config.micro_batch_size)
    # What sets RL alone apart: a κ, and no other loss beside it.
    alone = candidate.kappa is not None and candidate.rl_weight is None
    epochs = (config.rl_epochs if alone else None) or config.epochs
    steps = max(1, math.ceil(round(len(examples) * epochs, 6) / (batch * world)))
    every = max(1, steps // config.evaluations)
    checkpointing: dict[str, Any] = {}
    if config.gradient_checkpointing:  # naming the flag at all, even as off, is deprecated
        checkpointing = {
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
        }
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
        max_steps=steps,
        learning_rate=candidate.learning_rate,
        warmup_steps=round(steps * config.warmup),
        lr_scheduler_type="linear",
        weight_decay=0.0,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,
        restore_callback_states_from_checkpoint=True,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_drop_last=True,
        dataloader_pin_memory=False,
        seed=config.seed,
        **checkpointing,
        bf16=device.type == "cuda" and policy.model.config.dtype == torch.bfloat16,  # as it was loaded
        use_cpu=device.type == "cpu",
        average_tokens_across_devices=False,
        ddp_find_unused_parameters=False,
    )
    arguments._n_gpu = 1  # several GPUs are for several processes: DataParallel would cut batches apart
    return arguments
