"""How a long job reports its decisions and its progress: to a terminal, to your callback, or to nobody.

A job knows a `ProgressCallback` only. `show_progress` gives one that prints.
"""

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
    "show_duration",
    "show_progress",
]

LINE_INTERVAL = 30.0
"""Seconds between two lines of progress where there is no terminal."""


class EditLoopWarning(UserWarning):
    """Something that is not an error but should be looked at, such as a training that diverges."""


class ProgressCallback(Protocol):
    """Receives messages, warnings and progress.

    The methods are called from the thread of the job. Jobs that are divided among processes
    (`editloop.parallel`) call them from two threads, also at the same time.
    """

    def message(self, line: str) -> None:
        """Receive a decision or a result, as one line of text."""

    def warn(self, line: str) -> None:
        """Receive a warning, as one line of text."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Receive that `done` of `total` units of a named task are done; the two are equal at its end."""


class WarningCallback:
    """The callback where none is given. Warnings become Python warnings, and the rest is ignored."""

    def message(self, line: str) -> None:
        """Ignore the message."""

    def warn(self, line: str) -> None:
        """Issue an `EditLoopWarning`."""
        warnings.warn(line, EditLoopWarning, stacklevel=3)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Ignore the progress."""


class ConsoleCallback:
    """A callback that prints messages and shows progress.

    On a terminal progress is shown as bars; elsewhere a line is printed every few seconds. Of several
    processes that train together (`torchrun`), only the first one prints.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.tasks: dict[str, Any] = {}
        self.last = time.monotonic()
        self.first_seen: dict[str, tuple[float, int]] = {}  # when, and how much was done then
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
        if self.bar is not None:
            if task not in self.tasks:
                self.tasks[task] = self.bar.add_task(task, total=total, note="")
            self.bar.update(self.tasks[task], completed=done, total=total, note=note)
            if done >= total:
                self.bar.remove_task(self.tasks.pop(task))
            return
        now = time.monotonic()
        since, before = self.first_seen.setdefault(task, (now, done))
        if done >= total:
            del self.first_seen[task]
        if now - self.last > LINE_INTERVAL:
            self.last = now
            left = (total - done) * (now - since) / (done - before) if before < done < total else None
            eta = f", {show_duration(left)} left" if left is not None else ""
            self.console.print(f"  {task} {done}/{total}{eta}" + (f", {note}" if note else ""))


def show_duration(seconds: float) -> str:
    """Seconds in words: `40 s`, `12 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def plain_console() -> Console:
    """Return a console that prints text as it is, without markup, highlighting or added line breaks.

    Users' texts, names and paths are printed with it, and may hold brackets and `:smile:`.
    """
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


@contextmanager
def show_progress(console: Console | None = None) -> Iterator[ConsoleCallback]:
    """Return a context manager that gives a callback, which prints messages and shows progress.

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
    """Return a function that a loop calls with the number of units it has done.

    Args:
        callback: Receives the progress.
        task: The name of the task.
        total: The number of units of all processes together.
        processes: The number of processes among which the units are divided.
    """
    share = math.ceil(total / processes)
    return lambda done: callback.progress(task, done, share)
