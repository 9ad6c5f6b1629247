"""The trainer: `transformers.Trainer` with the paper's losses on context trees in place of its own.

Checkpoints, resume, mixed precision, trackers and distribution are the library's. What is ours: how a
batch becomes trees, the loss, and the validation figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
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

from editloop.offline.config import Candidate, FitConfig, Method
from editloop.offline.examples import Example
from editloop.offline.losses import dpo_loss, early_ensemble_loss, preference_margin, sft_loss
from editloop.policy import Policy, TreeBatch, batch_log_probs, processes

__all__ = ["EditTrainer", "TrainingBatch", "make_batch", "method_loss", "micro_batch", "training_arguments"]


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
    """

    trees: TreeBatch
    chosen: Tensor
    pair: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor

    def __len__(self) -> int:
        return len(self.chosen)

    def counts(self) -> dict[str, float]:
        """Edits, their tokens, and pairs: what the losses are means over."""
        tokens = float(self.trees.lengths[self.chosen.numpy()].sum())
        return {"sequence": float(len(self.chosen)), "token": tokens, "pair": float(len(self.pair))}


def make_batch(policy: Policy, examples: Sequence[Example], method: Method) -> TrainingBatch:
    """Pack examples for a method: `sft` needs no responses, `dpo` nothing before edit and response part."""
    chosen, pair, rejected, reference = [], [], [], []
    trees, continuations = [], 0
    for i, example in enumerate(examples):
        if method == "sft":
            example = example.edit_only()
        trees.append(example.tree)
        chosen.append(continuations)
        if example.is_pair:
            pair.append(i)
            rejected.append(continuations + 1)
            reference.append(example.reference or (math.nan, math.nan))
        continuations += len(example.tree.continuations)
    ref = torch.tensor(reference, dtype=torch.float64).reshape(-1, 2)
    return TrainingBatch(
        policy.pack(trees, from_fork=method == "dpo"),
        chosen=torch.tensor(chosen, dtype=torch.long),
        pair=torch.tensor(pair, dtype=torch.long),
        rejected=torch.tensor(rejected, dtype=torch.long),
        ref_chosen=ref[:, 0],
        ref_rejected=ref[:, 1],
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
        candidate: β and λ.
        batch: n examples with K continuations.
        log_probs: Of the continuations [K].
        config: The SFT loss's reduction.
        counts: Of the whole batch, where this is a part of it; by default this batch's own.
    """
    counts = counts or batch.counts()
    device = log_probs.device
    sft = log_probs.new_zeros(())
    if method != "dpo":
        lengths = torch.from_numpy(batch.trees.lengths)[batch.chosen].to(device)
        count = counts[config.sft_reduction]
        sft = sft_loss(
            log_probs[batch.chosen.to(device)], lengths, reduction=config.sft_reduction, count=count
        )
        if method == "sft":
            return sft
    assert candidate.beta is not None
    margin = preference_margin(
        log_probs[batch.chosen[batch.pair].to(device)],
        log_probs[batch.rejected.to(device)],
        batch.ref_chosen.to(device),
        batch.ref_rejected.to(device),
    )
    dpo = dpo_loss(margin.float(), beta=candidate.beta, count=counts["pair"])
    if method == "dpo":
        return dpo
    assert candidate.dpo_weight is not None
    return early_ensemble_loss(sft, dpo, dpo_weight=candidate.dpo_weight)


class _Rows(Dataset[Example]):
    """Examples as the data loader wants them."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


class _WholeBatches(Sampler[int]):
    """A new order each epoch, cut to whole optimiser steps, the same however a step is divided.

    The order is a function of the seed and the epoch alone, so that a continued training sees the rows
    that an uninterrupted one would have seen.
    """

    def __init__(self, rows: int, step: int, seed: int) -> None:
        self.rows, self.kept, self.seed, self.epoch = rows, rows // step * step, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.kept

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        return iter(torch.randperm(self.rows, generator=order)[: self.kept].tolist())


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
            train_dataset=_Rows(train),
            eval_dataset=_Rows(train[:1]),  # the library wants one; `validate` knows the real one
            data_collator=lambda rows: {"batch": make_batch(policy, rows, method)},
            callbacks=[EarlyStoppingCallback(config.patience), *callbacks],
        )
        self.remove_callback(PrinterCallback)  # the listener hears what there is to hear
        # Our losses are already divided by the counts of the whole batch (see _get_num_items_in_batch).
        self.model_accepts_loss_kwargs = True

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> dict[str, float]:
        """Counts of the optimiser step's whole batch: all accumulation steps, all processes.

        They are divided by the number of processes, because the gradients of the processes are
        averaged where the parts of the loss must be added.
        """
        counts = [sample["batch"].counts() for sample in batch_samples]
        keys = ("sequence", "token", "pair")
        total = torch.tensor(
            [sum(c[key] for c in counts) for key in keys], dtype=torch.float64, device=device
        )
        world = self.args.world_size
        if world > 1:
            total = self.accelerator.reduce(total, "sum") / world
        return dict(zip(keys, total.tolist(), strict=True))

    def _get_train_sampler(self, train_dataset: Dataset[Example] | None = None) -> Sampler[int] | None:
        if self.args.train_sampling_strategy == "sequential":
            return super()._get_train_sampler(train_dataset)  # type: ignore[no-any-return]
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return _WholeBatches(len(self.train_dataset), step, self.args.seed)

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


def micro_batch(batch: int, examples: Sequence[Example], vocabulary: int) -> int:
    """The most contexts of a batch that one forward should hold; it divides the batch.

    A forward holds at most about 8,192 tokens, and logits of 2^29 numbers.
    """
    tokens = sum(len(example.tree.layout) for example in examples) / len(examples)
    bearable = min(8192, 2**29 / vocabulary) / tokens
    return max(size for size in range(1, batch + 1) if batch % size == 0 and (size <= bearable or size == 1))


def training_arguments(
    config: FitConfig, candidate: Candidate, folder: Path, policy: Policy, examples: Sequence[Example]
) -> TrainingArguments:
    """The library's arguments for one training.

    Args:
        config: The fit's configuration.
        candidate: Its learning rate.
        folder: Where checkpoints go.
        policy: The policy to train, for its device and vocabulary.
        examples: The training examples.
    """
    device = policy.device
    world = processes(device).num_processes
    batch = max(1, min(config.batch_size, len(examples)) // world)  # of one process
    vocabulary = int(policy.model.config.get_text_config().vocab_size)
    micro = min(config.micro_batch_size or micro_batch(batch, examples, vocabulary), batch)
    accumulation = max(1, batch // micro)
    steps = max(1, math.ceil(len(examples) // (micro * accumulation * world) * config.epochs))
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
        gradient_accumulation_steps=accumulation,
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
        bf16=device.type == "cuda" and torch.cuda.is_bf16_supported(),
        use_cpu=device.type == "cpu",
        average_tokens_across_devices=False,
        ddp_find_unused_parameters=False,
    )
    arguments._n_gpu = 1  # several GPUs are for several processes: DataParallel would cut batches apart
    return arguments
