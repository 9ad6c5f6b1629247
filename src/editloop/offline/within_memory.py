"""Go on with less where memory runs out: smaller micro-batches, then gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState

from editloop.errors import RunError
from editloop.offline.config import FitConfig
from editloop.offline.methods import Method
from editloop.offline.schedule import LARGEST_BATCH
from editloop.policy.memory import is_out_of_memory, release_memory
from editloop.progress import ProgressCallback

__all__ = ["within_memory"]

T = TypeVar("T")


def within_memory(
    train: Callable[[FitConfig], T],
    config: FitConfig,
    method: Method,
    name: str,
    callback: ProgressCallback,
) -> T:
    """Call a training, and again with a configuration that takes less where it ran out of memory.

    Args:
        train: Trains, or goes on from the last checkpoint.
        config: The first configuration to try.
        method: What is trained.
        name: The name of the training in messages.
        callback: Is warned.

    Raises:
        RunError: Nothing is left that would take less memory.
    """
    while True:
        try:
            return train(config)
        except (MemoryError, RuntimeError) as error:
            # The other processes of a distributed run would go on with another division of the step.
            if not is_out_of_memory(error) or PartialState().num_processes > 1:
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        # Outside the handler, where the error no longer holds the frames of the forward and their tensors.
        config = _with_less(config, method, reason)
        release_memory()
        way = (
            "activations are computed twice"
            if config.gradient_checkpointing
            else f"at most {config.micro_batch_size} contexts a forward"
        )
        callback.warn(f"{name}: out of memory; it goes on with less: {way}")


def _with_less(config: FitConfig, method: Method, reason: str) -> FitConfig:
    """The configuration with half the micro-batch, or with gradient checkpointing.

    Raises:
        RunError: It has both already.
    """
    micro = config.micro_batch_size or config.batch_size or LARGEST_BATCH
    if micro > 1 and not method.forward_matters:
        return config.changed({"micro_batch_size": micro // 2})
    if not config.gradient_checkpointing:
        return config.changed({"gradient_checkpointing": True})
    raise RunError(f"out of memory: {reason}", do="lower --max-length, or choose a smaller base")
