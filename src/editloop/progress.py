"""How a long job reports its decisions and its progress: to a terminal, to your callback, or to nobody."""

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
    """Something that is no error but should be looked at, such as an alarm of a training."""


class ProgressCallback(Protocol):
    """Receives messages, warnings and progress. The methods may be called from the thread of the job only."""

    def message(self, line: str) -> None:
        """Receive a decision or a result, as one line of text."""

    def warn(self, line: str) -> None:
        """Receive a warning, as one line of text."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Receive that `done` of `total` units of a named task are done; the two are equal at its end."""


class WarningCallback:
    """The callback that is used where none is given: warnings become Python warnings, the rest is ignored."""

    def message(self, line: str) -> None:
        """Ignore the message."""

    def warn(self, line: str) -> None:
        """Issue an `EditLoopWarning`."""
        warnings.warn(line, EditLoopWarning, stacklevel=3)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Ignore the progress."""


class ConsoleCallback:
    """A callback that prints messages and shows progress, in the first of several processes only.

    On a terminal progress is shown as bars; elsewhere a line is printed every few seconds.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.tasks: dict[str, Any] = {}
        self.last = time.monotonic()
        self.first_process = os.environ.get("RANK", "0") == "0"

    def message(self, line: str) -> None:
        """Print a message above the bars."""
        if self.first_process:
            (self.bar.console if self.bar else self.console).print(line)

    def warn(self, line: str) -> None:
        """Print a warning above the bars."""
        self.message(f"warning: {line}")

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Update the bar of a task."""
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
    """Return a console that prints text unchanged: no markup, no highlighting, no line breaks of its own."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


@contextmanager
def show_progress(console: Console | None = None) -> Iterator[ConsoleCallback]:
    """Return a context manager with a callback that prints messages and shows progress.

    Args:
        console: Where to print; by default standard output.
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
    """Return a function that a loop calls with the number of units done.

    Args:
        callback: Receives the progress.
        task: The name of the task.
        total: Units of all processes together.
        processes: Among how many processes the units are divided.
    """
    share = math.ceil(total / processes)
    return lambda done: callback.progress(task, done, share)
