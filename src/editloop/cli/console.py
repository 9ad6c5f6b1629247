"""How the verbs print: lines, tables, progress, and errors of one line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

from rich.table import Table

from editloop.progress import ConsoleCallback, plain_console, show_progress

__all__ = ["ConsoleCallback", "called", "console", "fail", "show_table", "shown_progress"]

console = plain_console()


def fail(line: str, status: int = 1) -> NoReturn:
    """Print an error in one line on standard error and end."""
    print(f"editloop: error: {line}", file=sys.stderr)
    raise SystemExit(status)


def called() -> str:
    """Return the command as the user called it, for hints that can be typed as they are.

    It is `editloop` without a path if the shell would find this very command.
    """
    here = Path(sys.argv[0])
    if here.name == "__main__.py":
        return f"{Path(sys.executable).name} -m editloop"
    found = shutil.which(here.name)
    same = here.name == str(here) or (found and here.exists() and Path(found).samefile(here))
    return here.name if same else str(here)


def shown_progress() -> AbstractContextManager[ConsoleCallback]:
    """Return a context manager that gives a callback, which shows the progress of a verb."""
    return show_progress(console)


def show_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells, the headings first; the first column is text, the others are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, cell in enumerate(rows[0]):
        table.add_column(cell, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table, soft_wrap=False)  # long cells are folded to the width of the terminal
