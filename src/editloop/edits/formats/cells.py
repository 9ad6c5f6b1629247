"""The rows of a delimited file, with as few rows lost to a bad quote as possible."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from editloop.edits.formats.lines import LONGEST_LINE, NOT_UTF8, TOO_LONG, split_lines

__all__ = ["Cells", "read_cells"]


class Cells(NamedTuple):
    """A row of cells.

    Attributes:
        line: The line on which it starts, from 1.
        done: The bytes read up to its end.
        cells: Its cells; none if there is a problem.
        problem: Why it cannot be read, if so.
        text: The last of its lines.
        several: Whether it runs over several lines.
    """

    line: int
    done: int
    cells: list[str]
    problem: str
    text: str
    several: bool


class _Line(NamedTuple):
    text: str
    done: int
    problem: str


def read_cells(path: Path, delimiter: str, quote: str) -> Iterator[Cells]:
    """Yield the rows of a file.

    A quote that is never closed, or is closed by another row's quote, swallows the rows between. So a row
    over several lines that cannot be one (it is no CSV, or has another number of cells than the first row)
    loses its first line alone: reading starts again at the second.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    first = last = _Line("", 0, "")
    taken, problem = (
        0,
        "",
    )  # of the row that is being read: how many lines it has, and what is wrong with them

    def rows(file: IO[bytes]) -> Iterator[list[str]]:
        # Strict: cells that are not quoted as the csv module quotes them are bad rows, not silently repaired.
        if not quote:
            return csv.reader(texts(file), delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(texts(file), delimiter=delimiter, quotechar=quote, strict=True)

    def texts(file: IO[bytes]) -> Iterator[str]:
        # The csv reader takes as many lines as a row needs; this notes which they were.
        nonlocal first, last, taken, problem
        for last in _decoded(file):
            first = last if taken == 0 else first
            taken, problem = taken + 1, problem or last.problem
            yield last.text

    with path.open("rb") as file:
        reader, number, width = rows(file), 1, 0
        while True:
            taken, problem = 0, ""
            try:
                cells, error = next(reader), ""
            except StopIteration:
                return
            except csv.Error as failure:
                cells, error = [], str(failure)
            width = width or len(cells)
            if error or (taken > 1 and len(cells) != width):
                last, taken, problem = first, 1, first.problem
                file.seek(first.done)
                reader = rows(file)  # a new one, as the old reader is in the middle of the row
            problem = problem or error
            if cells or problem:
                yield Cells(number, last.done, cells, problem, last.text, taken > 1)
            number += taken


def _decoded(file: IO[bytes]) -> Iterator[_Line]:
    for line, done, cut in split_lines(file):
        try:
            text, problem = line.decode(), ""
        except UnicodeDecodeError:
            text, problem = line.decode(errors="backslashreplace"), NOT_UTF8
        yield _Line(text, done, TOO_LONG if cut else problem)
