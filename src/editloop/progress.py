"""How a long job tells what it decided and how far it is: to a terminal, another callback, or nobody."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = [
    "ConsoleCallback",
    "EditLoopWarning",
    "ProgressCallback",
    "WarningCallback",
    "counter",
    "plain_console",
    "show_progress",
]

SLOW = 2.0  # seconds without a terminal between two lines of progress


class EditLoopWarning(UserWarning):
    """What is not wrong, but should be looked at: an alarm of a training, a log that is not held out."""


class ProgressCallback(Protocol):
    """Hears of decisions and of progress."""

    def message(self, line: str) -> None:
        """A decision or a result, in a line."""

    def warn(self, line: str) -> None:
        """Something that should be looked at, in a line."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of a named task are done; equal at its end."""


class WarningCallback:
    """What is listened with where nobody else does: warnings are Python's, all else is not heard."""

    def message(self, line: str) -> None:
        """Ignore the line."""

    def warn(self, line: str) -> None:
        """Warn as libraries do."""
        warnings.warn(line, EditLoopWarning, stacklevel=3)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Ignore the progress."""


class ConsoleCallback:
    """A callback that prints what it hears; in the first process only, where there are several.

    On a terminal progress is a bar; elsewhere it is a line every few seconds.

    Args:
        console: Where it prints.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.tasks: dict[str, Any] = {}
        self.last = time.monotonic()
        self.first_process = os.environ.get("RANK", "0") == "0"

    def message(self, line: str) -> None:
        """Print a line above the bars."""
        if self.first_process:
            (self.bar.console if self.bar else self.console).print(line)

    def warn(self, line: str) -> None:
        """Print a line above the bars that says that it is a warning."""
        self.message(f"warning: {line}")

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Move a task's bar."""
        if not self.first_process:
            return
        if self.bar is not None and self.console.is_terminal:
            if task not in self.tasks:
                self.tasks[task] = self.bar.add_task(task, total=total, note="")
            self.bar.update(self.tasks[task], completed=done, total=total, note=note)
            if done >= total:
                self.bar.remove_task(self.tasks.pop(task))
        elif time.monotonic() - self.last > SLOW:
            self.last = time.monotonic()
            self.console.print(f"  {task} {done}/{total} {note}".rstrip())


def plain_console() -> Console:
    """A terminal that shows text as it is given, and does not break its lines."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


@contextmanager
def show_progress(console: Console | None = None) -> Iterator[ConsoleCallback]:
    """Within it, a callback that prints decisions and warnings, and shows progress.

    Args:
        console: Where it prints; by default standard output.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    callback = ConsoleCallback(console or plain_console())
    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    if not (callback.first_process and callback.console.is_terminal):
        yield callback
        return
    with Progress(*columns, console=callback.console, transient=True) as bar:
        callback.bar = bar
        yield callback


def counter(callback: ProgressCallback, task: str, total: int, processes: int = 1) -> Callable[[int], None]:
    """What a loop calls with the number of units done; the units are divided among processes."""
    share = math.ceil(total / processes)
    return lambda done: callback.progress(task, done, share)
