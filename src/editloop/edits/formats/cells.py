"""The rows of a delimited file, so that as few rows as possible are lost to a bad quote."""

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
        cells: Its cells; none if it cannot be read.
        problem: Why it cannot be used, or nothing.
        text: The last of its lines.
        several: Whether it has several lines.
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

    A quote that is never closed, or that is closed by the quote of another row, swallows the rows between. So
    if several lines cannot be one row (they are not CSV, or have another number of cells than the first row),
    only the first of them is a bad row, and reading starts again at the second.
    """
    # A limit of the whole process, so it is only ever raised. Python's default, 128 kB, is less than a long
    # text.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    first = last = _Line("", 0, "")  # of the row that is being read,
    taken, problem = 0, ""  # how many lines it has, and what is wrong with them

    def rows(file: IO[bytes]) -> Iterator[list[str]]:
        # Strict, so that a wrong quote gives a bad row. Otherwise the csv module would guess what it means.
        if not quote:
            return csv.reader(texts(file), delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(texts(file), delimiter=delimiter, quotechar=quote, strict=True)

    def texts(file: IO[bytes]) -> Iterator[str]:
        # The csv reader takes as many lines as a row needs, and does not say which; this notes them.
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
                reader = rows(file)  # a new one, because the old one is in the middle of the row
            problem = problem or error
            if cells or problem:  # an empty line has neither
                yield Cells(number, last.done, cells, problem, last.text, taken > 1)
            number += taken


def _decoded(file: IO[bytes]) -> Iterator[_Line]:
    """Yield the lines as text. Also one that is not UTF-8: its quotes decide where the row ends."""
    for line, done, cut in split_lines(file):
        try:
            text, problem = line.decode(), ""
        except UnicodeDecodeError:
            text, problem = line.decode(errors="backslashreplace"), NOT_UTF8
        yield _Line(text, done, TOO_LONG if cut else problem)
