"""The trainer: `transformers.Trainer` with a method's loss on context trees in place of its own.

Checkpoints, resume, mixed precision, trackers and distribution are the library's, by its public interface.
What is ours: how a batch becomes trees, the loss, the order of the rows, and the validation figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Dataset
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
from editloop.offline.config import FitConfig, Trial
from editloop.offline.examples import Completions
from editloop.offline.methods.batch import Batch, Layout, pack_completions
from editloop.policy import ContextTree, Policy, TreeBatch, batch_log_probs, processes

__all__ = [
    "EditTrainer",
    "RowStream",
    "disk_errors",
    "micro_batch",
    "training_arguments",
]

T = TypeVar("T")

TORCH_CANNOT_WRITE = ("PytorchStreamWriter", "inline_container", "iostream error")
"""Words of torch's RuntimeErrors where a file cannot be written: one of them, by how much of it could."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the errors of libraries that cannot write to a folder into one line.

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


class RowStream(Dataset[T]):
    """The rows of a whole training as one data set: epochs one after the other, each in a new order.

    Steps are cut from the stream as it comes, so that no row is left out where an epoch ends. The order is a
    function of the seed alone: a training that is continued sees what an uninterrupted one sees, however a
    step is divided into parts.

    Args:
        rows: Of one epoch.
        length: Of the stream.
        seed: Of the orders; None leaves the rows in theirs.
    """

    def __init__(self, rows: Sequence[T], length: int, seed: int | None) -> None:
        self.rows, self.length = rows, length
        # Rows are asked for from left to right, so the orders of two epochs are enough to keep.
        self._order = lru_cache(2)(lambda epoch: _order(len(rows), seed, epoch))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> T:
        epoch, place = divmod(index, len(self.rows))
        return self.rows[self._order(epoch)[place]]


def _order(rows: int, seed: int | None, epoch: int) -> list[int]:
    if seed is None:
        return list(range(rows))
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    order: list[int] = torch.randperm(rows, generator=generator).tolist()
    return order


class OneDeviceArguments(TrainingArguments):  # type: ignore[misc]
    """The library's arguments for one device a process: its DataParallel would cut batches apart."""

    @property
    def n_gpu(self) -> int:
        """The devices of this process."""
        return min(1, int(super().n_gpu))


class EditTrainer(Trainer):  # type: ignore[misc]
    """Trains a policy on completions by one method's loss.

    Args:
        policy: The policy; its model is trained in place.
        trial: The method and its hyperparameters.
        config: The fit's configuration.
        arguments: From `training_arguments`.
        train: Completions of each row, as of `Method.completions`, with what the method needs.
        validate: Computes the validation figures, with `loss` among them; called at each evaluation.
        callbacks: Further callbacks.
        shuffle: Whether each epoch has an order of its own, by the seed.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        trial: Trial,
        config: FitConfig,
        arguments: TrainingArguments,
        train: Sequence[Completions],
        validate: Callable[[], dict[str, float]],
        callbacks: Sequence[TrainerCallback] = (),
        shuffle: bool = True,
    ) -> None:
        self.policy, self.trial = policy, trial
        self._validate = validate
        self._failure: Exception | None = None  # of a computation, which is not to be taken for a full disk
        self.control: TrainerControl

        def collate(rows: Sequence[Completions]) -> dict[str, Any]:
            trees, layout = pack_completions(policy, rows, from_fork=trial.method.within_context)
            return {"trees": trees, "layout": layout}

        step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        length = step * arguments.world_size * arguments.max_steps
        super().__init__(
            model=policy.model,
            args=arguments,
            train_dataset=RowStream(train, length, arguments.seed if shuffle else None),
            eval_dataset=RowStream(train, 1, None),  # the library wants one; `validate` knows the real one
            data_collator=collate,
            callbacks=[EarlyStoppingCallback(config.patience), *callbacks],
        )
        self.remove_callback(PrinterCallback)  # progress is reported by our own callback
        # Our losses are already divided by the totals of the whole step (see get_batch_samples).
        self.model_accepts_loss_kwargs = True

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], dict[str, float]]:
        """The parts of an optimiser step, and the totals of the step over all parts and processes.

        The totals are divided by the number of processes, because the gradients of the processes are
        averaged where the parts of the loss must be added.
        """
        with self._computing():
            samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [self.trial.method.totals(sample["layout"]) for sample in samples]
        names = list(counts[0]) if counts else []
        totals = [sum(each[name] for each in counts) for name in names]
        world = self.args.world_size
        if world > 1:
            table = torch.tensor(totals, dtype=torch.float64, device=device)
            totals = (self.accelerator.reduce(table, "sum") / world).tolist()
        return samples, dict(zip(names, totals, strict=True))

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        """One forward and backward."""
        with self._computing():
            loss: Tensor = super().training_step(*arguments, **named)
            return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: dict[str, float] | None = None,
    ) -> Tensor:
        """The method's loss on one part of a step."""
        trees: TreeBatch = inputs["trees"]
        layout: Layout = inputs["layout"]
        totals = num_items_in_batch or self.trial.method.totals(layout)
        batch = Batch(layout, batch_log_probs(model, trees), totals)
        return self.trial.method.loss(batch, self.trial.hyperparameters)

    def train_from(self, checkpoint: str | None) -> None:
        """Train, or go on from a checkpoint; one that was written after the last step has only to be read.

        The library would make one step more than the training has.

        Raises:
            RunError: A checkpoint cannot be written.
        """
        file = Path(checkpoint, TRAINER_STATE_NAME) if checkpoint else None
        state = TrainerState.load_from_json(str(file)) if file else None
        if checkpoint is None or state is None or not _is_over(state):
            try:
                with disk_errors(Path(self.args.output_dir)):
                    self.train(resume_from_checkpoint=checkpoint)
            except RunError as error:
                if self._failure is None or error.__cause__ is not self._failure:
                    raise
                raise self._failure from None
            return
        self.state = state
        _load_weights(self.policy, state.best_model_checkpoint or checkpoint)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Remember what goes wrong within it: the rest of a training, which fails too, only writes."""
        try:
            yield
        except Exception as error:
            self._failure = error
            raise

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the library's estimate knows nothing of trees."""
        return 0

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """The validation figures, logged and passed to the callbacks as the library does."""
        with self._computing():
            metrics = {f"{metric_key_prefix}_{key}": value for key, value in self._validate().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _is_over(state: TrainerState) -> bool:
    """Whether a checkpoint's training had made its last step, or had been stopped early."""
    control = state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
    return state.global_step >= state.max_steps or bool(control.get("should_training_stop"))


def _load_weights(policy: Policy, checkpoint: str) -> None:
    """Give a model that is trained the weights of a checkpoint."""
    model: Any = policy.model
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, load_peft_weights(checkpoint, device=str(policy.device)))
    else:
        dtype = next(model.parameters()).dtype
        model.load_state_dict(type(model).from_pretrained(checkpoint, dtype=dtype).state_dict())


def micro_batch(batch: int, trees: Sequence[ContextTree], vocabulary: int, *, most: int | None = None) -> int:
    """The most contexts of a batch that one forward should hold; it divides the batch.

    A forward holds at most `most` contexts; by default about 8,192 tokens, and logits of 2^29 numbers.
    """
    tokens = sum(len(tree.layout) for tree in trees) / len(trees)
    bearable = most or min(8192, 2**29 / vocabulary) / tokens
    return max(size for size in range(1, batch + 1) if batch % size == 0 and (size <= bearable or size == 1))


def training_arguments(
    config: FitConfig,
    folder: Path,
    policy: Policy,
    trees: Sequence[ContextTree],
    *,
    learning_rate: float,
    epochs: float | None = None,
) -> TrainingArguments:
    """The library's arguments for one training.

    Args:
        config: The fit's configuration.
        folder: Where checkpoints go.
        policy: The policy to train, for its device, precision and vocabulary.
        trees: Of the training rows.
        learning_rate: After the warm-up.
        epochs: Passes over the rows; by default those of the configuration.

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
    if len(trees) < world:
        raise ConfigError(f"fewer rows than the {world} processes", seen=len(trees), do="use one process")
    batch = min(config.batch_size, len(trees)) // world  # of one process
    vocabulary = int(policy.model.config.get_text_config().vocab_size)
    micro = micro_batch(batch, trees, vocabulary, most=config.micro_batch_size)
    steps = max(1, math.ceil(round(len(trees) * (epochs or config.epochs), 6) / (batch * world)))
    every = max(1, steps // config.evaluations)
    checkpointing: dict[str, Any] = {}
    if config.gradient_checkpointing:  # naming the flag at all, even as off, is deprecated
        checkpointing = {
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
        }
    return OneDeviceArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
        max_steps=steps,
        learning_rate=learning_rate,
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
        train_sampling_strategy="sequential",  # the stream has its own order
        dataloader_drop_last=True,
        dataloader_pin_memory=False,
        seed=config.seed,
        **checkpointing,
        bf16=device.type == "cuda" and policy.model.config.dtype == torch.bfloat16,  # as it was loaded
        use_cpu=device.type == "cpu",
        average_tokens_across_devices=False,
        ddp_find_unused_parameters=False,
    )
