"""What the verbs print with: lines, tables, progress and the one-line error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["Shown", "console", "fail", "show_table", "shown", "write_json"]

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
SLOW = 2.0  # seconds without a terminal between two lines of progress


def fail(line: str, status: int = 1) -> NoReturn:
    """Print an error in one line on standard error and end."""
    print(f"editloop: error: {line}", file=sys.stderr)
    raise SystemExit(status)


class Shown:
    """A listener that prints what it hears; in the first process only, where there are several.

    On a terminal progress is a bar; elsewhere it is a line every few seconds.
    """

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.tasks: dict[str, Any] = {}
        self.last = time.monotonic()
        self.first_process = _first_process()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if self.first_process:
            (self.bar.console if self.bar else console).print(line)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Move a task's bar."""
        if not self.first_process:
            return
        if self.bar is not None and console.is_terminal:
            if task not in self.tasks:
                self.tasks[task] = self.bar.add_task(task, total=total, note="")
            self.bar.update(self.tasks[task], completed=done, total=total, note=note)
            if done >= total:
                self.bar.remove_task(self.tasks.pop(task))
        elif time.monotonic() - self.last > SLOW:
            self.last = time.monotonic()
            console.print(f"  {task} {done}/{total} {note}".rstrip())


def _first_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


@contextmanager
def shown() -> Iterator[Shown]:
    """A listener for the time of a verb."""
    listener = Shown()
    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    if not (listener.first_process and console.is_terminal):
        yield listener
        return
    with Progress(*columns, console=console, transient=True) as bar:
        listener.bar = bar
        yield listener


def show_table(rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print rows of cells, the heading first; the first column is text, the others numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, cell in enumerate(rows[0]):
        table.add_column(cell, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table, soft_wrap=False)


def write_json(path: Path, content: Any) -> None:
    """Write what was printed for machines, atomically."""
    from editloop.edits.writing import atomic, json_text

    with atomic(path) as unfinished:
        unfinished.write_text(json_text(content), encoding="utf-8")
