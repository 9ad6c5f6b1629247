"""Failures of torch, safetensors and PEFT to write a file, as errors of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from editloop.errors import RunError

__all__ = ["disk_errors"]

TORCH_CANNOT_WRITE = ("PytorchStreamWriter", "inline_container", "iostream error")
"""Words that mark a RuntimeError of torch as a failure to write a file. Which of them torch uses depends on
how much of the file was written."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A context in which a library's failure to write becomes a one-line error.

    Args:
        folder: The folder, for the message.

    Raises:
        RunError: The library could not write.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in TORCH_CANNOT_WRITE):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, RuntimeError):  # torch's message is about offsets within a file
            reason = "no space is left, or the file would be too large"
        raise RunError(
            f"cannot write to the run folder: {reason}",
            seen=str(folder),
            do="free space and run the same command again: it continues where it stopped",
        ) from error
