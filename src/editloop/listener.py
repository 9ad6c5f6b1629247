"""How a long job tells what it decided and how far it is; the command shows it, a library may not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

__all__ = ["Listener", "Silent", "counter"]


class Listener(Protocol):
    """Hears of decisions and of progress."""

    def say(self, line: str) -> None:
        """A decision or a result, in a line."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of a named task are done; equal at its end."""


class Silent:
    """Hears nothing."""

    def say(self, line: str) -> None:
        """Ignore the line."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Ignore the progress."""


def counter(listener: Listener, task: str, total: int, processes: int = 1) -> Callable[[int], None]:
    """What a loop calls with the number of units done; the units are divided among processes."""
    share = math.ceil(total / processes)
    return lambda done: listener.progress(task, done, share)
