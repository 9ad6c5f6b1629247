"""The trainer: `transformers.Trainer` with a method's loss on context trees.

Checkpoints, resuming, mixed precision, trackers and distribution are the library's, through its public
interface. Ours are the packing of batches into trees, the loss, the order of the rows, and the validation
figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
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

from editloop.errors import RunError
from editloop.offline.config import FitConfig, Trial
from editloop.offline.disk import disk_errors
from editloop.offline.examples import Completions
from editloop.offline.methods.batch import Batch, Layout, pack_completions
from editloop.policy import Policy, TreeBatch, batch_log_probs, batch_log_squares
from editloop.policy.denormals import denormals_flushed
from editloop.policy.memory import Heap

__all__ = ["EditTrainer", "RowStream"]

T = TypeVar("T")


class RowStream(Dataset[T]):
    """The rows of a whole training as one data set: one epoch after the other, each in its own order.

    Args:
        rows: The rows of an epoch.
        length: Length of the whole stream, in rows.
        seed: Decides the orders; None keeps the rows in the given order.
    """

    # With an ordinary data set, a step does not reach across the end of an epoch: the last step of each epoch
    # would be short or dropped. Here steps are cut from one stream. The row at a place follows from the seed
    # and the place alone, so neither the division of a step into parts nor an interruption changes what the
    # training sees.

    def __init__(self, rows: Sequence[T], length: int, seed: int | None) -> None:
        self.rows, self.length = rows, length
        # Rows are read from left to right, so at most two epochs are in use at a time.
        self._order = lru_cache(2)(lambda epoch: _order(len(rows), seed, epoch))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> T:
        if not 0 <= index < self.length:
            raise IndexError(index)  # ends a loop over the stream, which Python runs by index
        epoch, place = divmod(index, len(self.rows))
        return self.rows[self._order(epoch)[place]]


def _order(rows: int, seed: int | None, epoch: int) -> list[int]:
    """The order of the rows in an epoch, a function of the seed and the epoch alone."""
    if seed is None:
        return list(range(rows))
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    order: list[int] = torch.randperm(rows, generator=generator).tolist()
    return order


class EditTrainer(Trainer):  # type: ignore[misc]
    """Trains a policy on completions with a method's loss.

    Args:
        policy: The policy; its model is trained in place.
        trial: The method and its hyperparameters.
        config: The fit's configuration.
        arguments: From `training_arguments`.
        train: Completions of each row, from `Method.completions`, with whatever the method needs.
        validate: Computes the validation figures, one of which is `loss`; called at each evaluation.
        callbacks: Further callbacks of the library.
        shuffle: Whether each epoch has its own order, which depends on the seed.
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
        self._validate, self._heap = validate, Heap()
        self._failure: Exception | None = None  # the last error of a computation, from `_computing`
        self.control: TrainerControl

        # Trees are packed here and not in advance: how they share rows depends on what else is in the batch.
        def collate(rows: Sequence[Completions]) -> dict[str, Any]:
            trees, layout = pack_completions(policy, rows, from_fork=trial.method.within_context)
            return {"trees": trees, "layout": layout}

        step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        length = step * arguments.world_size * arguments.max_steps
        super().__init__(
            model=policy.model,
            args=arguments,
            train_dataset=RowStream(train, length, arguments.seed if shuffle else None),
            eval_dataset=RowStream(train, 1, None),  # required, but not used: see `evaluate`
            data_collator=collate,
            callbacks=[EarlyStoppingCallback(config.patience), *callbacks],
        )
        self.remove_callback(PrinterCallback)  # progress is reported by our own callback
        # The losses are already divided by the totals of the whole step (`get_batch_samples`). With this
        # flag, the library does not divide them by the number of parts as well.
        self.model_accepts_loss_kwargs = True

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], dict[str, float]]:
        """The parts of an optimiser step, and its totals over all parts and processes.

        The library collects the parts of a step here, before their forwards, and passes the second value on
        to `compute_loss` as `num_items_in_batch`.
        """
        with self._computing():
            samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [self.trial.method.totals(sample["layout"]) for sample in samples]
        names = list(counts[0]) if counts else []
        totals = [sum(each[name] for each in counts) for name in names]
        world = self.args.world_size
        # Each process divides its part of the loss by the total of all. The gradients of the parts would then
        # have to be added, but the library averages them over the processes; dividing the totals by the
        # number of processes makes up for that. Float64 is exact for integers far beyond any batch.
        if world > 1:
            table = torch.tensor(totals, dtype=torch.float64, device=device)
            totals = (self.accelerator.reduce(table, "sum") / world).tolist()
        return samples, dict(zip(names, totals, strict=True))

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        """One forward and backward."""
        with self._computing():
            loss: Tensor = super().training_step(*arguments, **named)
            self._heap.release()
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
        method, linear = self.trial.method, self.policy.linear_head
        if method.log_squares:
            log_probs, log_squares = batch_log_squares(model, trees, linear_head=linear)
            batch = Batch(layout, log_probs, totals, log_squares)
        else:
            batch = Batch(layout, batch_log_probs(model, trees, linear_head=linear), totals)
        return method.loss(batch, self.trial.hyperparameters)

    def train_from(self, checkpoint: str | None, until: int | None = None) -> None:
        """Train from the start, or continue from a checkpoint.

        Args:
            checkpoint: The folder of a complete checkpoint, or None.
            until: A step that is to be reached, where a callback stops the training; None for its end.

        Raises:
            RunError: A checkpoint cannot be written.
        """
        # From a checkpoint of the step that is to be reached, only the best weights have to be loaded.
        # The library would make one step more before it notices that the training is over.
        file = Path(checkpoint, TRAINER_STATE_NAME) if checkpoint else None
        state = TrainerState.load_from_json(str(file)) if file else None
        if checkpoint is None or state is None or not _is_over(state, until):
            try:
                with disk_errors(Path(self.args.output_dir)), denormals_flushed():
                    self.train(resume_from_checkpoint=checkpoint)
            except RunError as error:
                # `disk_errors` takes every OSError for a failure to write. One that a computation raised (a
                # network file system, a custom loss) is raised again as it was.
                if self._failure is None or error.__cause__ is not self._failure:
                    raise
                raise self._failure from None
            return
        self.state = state
        # The state has the path that the best checkpoint had when it was written. The run folder may have
        # been moved since, so only the name counts.
        best = Path(state.best_model_checkpoint or checkpoint).name
        _load_weights(self.policy, str(Path(checkpoint).with_name(best)))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """A context that remembers its error, so that `train_from` can tell it from a failure to write."""
        try:
            yield
        except Exception as error:
            self._failure = error
            raise

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: the operations are not counted, because the library's estimate knows nothing of trees."""
        return 0

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Compute the validation figures, log them and pass them to the callbacks, as the library does."""
        with self._computing():
            metrics = {f"{metric_key_prefix}_{key}": value for key, value in self._validate().items()}
            self._heap.release()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _is_over(state: TrainerState, until: int | None) -> bool:
    """Whether a checkpoint's training had reached its last step or `until`, or had been stopped early."""
    # Early stopping leaves no mark in the state itself but the flag of the control object, which the library
    # saves with the state.
    control = state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
    return state.global_step >= (until or state.max_steps) or bool(control.get("should_training_stop"))


def _load_weights(policy: Policy, checkpoint: str) -> None:
    """Load the weights of a checkpoint into the model."""
    model: Any = policy.model
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, load_peft_weights(checkpoint, device=str(policy.device)))
    else:
        dtype = next(model.parameters()).dtype
        model.load_state_dict(type(model).from_pretrained(checkpoint, dtype=dtype).state_dict())
