"""A file that is one JSON array, or that holds JSON documents over several lines, as JSON lines.

It is read in pieces, so the memory that it takes grows with its longest element and not with the file.
Elements are only measured here, by a decoder that is less strict than the reader of lines, and copied as
text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from editloop.edits.formats.lines import LONGEST_LINE
from editloop.errors import LogFormatError

__all__ = ["array_elements", "documents"]

PIECE = 2**20
"""Characters that are read at a time."""

NUMBER, LONGEST_NUMBER = "+-.eE0123456789", 400
"""The characters of numbers, and how many of them are looked at behind a value."""

_DECODER = json.JSONDecoder()


def array_elements(path: Path, name: str) -> Iterator[bytes]:
    """Yield the elements of a JSON array as lines, as they are: the reader of lines decides which are rows.

    Args:
        path: The file, in UTF-8.
        name: What it is called in messages.

    Raises:
        LogFormatError: The array is broken, so that the number of its elements is not known.
    """
    with _open(path) as file:
        window = _Window(file, "the JSON array", name)
        window.skip_space()
        window.at += 1
        while window.skip_space() != "]":
            yield window.value()
            if window.skip_space() == ",":
                window.at += 1
            elif window.skip_space() != "]":
                raise window.broken()
        window.at += 1
        # What follows the array is passed on, too: nothing of a log may be lost without being counted.
        yield window.rest()
        while piece := file.read(PIECE):
            yield _encoded(piece)


def documents(path: Path, name: str) -> Iterator[bytes]:
    """Yield JSON documents that follow one another, each on as many lines as it likes, as lines.

    Raises:
        LogFormatError: One is broken, so that it is not known where the next one begins.
    """
    with _open(path) as file:
        window = _Window(file, "the JSON", name)
        while window.skip_space():
            yield window.value()


def _open(path: Path) -> IO[str]:
    # Bytes that are not UTF-8 pass through as surrogates, and make a bad row of their own line only.
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class _Window:
    """The part of a text that is in memory, and the place `at` which it is being read."""

    def __init__(self, file: IO[str], what: str, name: str) -> None:
        self.at = 0
        self._file, self._what, self._name = file, what, name
        self._text = ""
        self._lines = 0  # before the window

    def skip_space(self) -> str:
        """Go to the next character that is no space, and return it; return nothing at the end."""
        while True:
            while self.at < len(self._text) and self._text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self._text) or not self._read():
                return self._text[self.at : self.at + 1]

    def value(self) -> bytes:
        """Return the JSON value that begins here, as one line, and go to its end.

        Raises:
            LogFormatError: There is none, or it is longer than a line may be.
        """
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self.at)
            except (ValueError, RecursionError):
                # Whether a value is broken or only goes on is known when all of it has been read.
                if not self._read():
                    raise self.broken() from None
            else:
                # A number at the end of the window may go on, and `1.` is 1 until its next digit is there.
                if self._text[end : end + LONGEST_NUMBER].strip(NUMBER) or not self._read():
                    break
        # Between JSON values a line break is a space, and inside a string it would be an error.
        line = self._text[self.at : end].replace("\r", " ").replace("\n", " ")
        self.at = end
        return _encoded(f"{line}\n")

    def rest(self) -> bytes:
        """Return what is left of the window."""
        return _encoded(self._text[self.at :])

    def broken(self) -> LogFormatError:
        """The error for what is at this place; for a text that ends too early, its last line with text."""
        line = self._lines + self._text.count("\n", 0, min(self.at, len(self._text.rstrip()))) + 1
        what = f"{self._what} is broken at line {line}"
        return LogFormatError(what, seen=self._name, do="check what wrote it")

    def _read(self) -> bool:
        """Read on, and forget what is before `at`. The window doubles, so no value is tried often."""
        if len(self._text) - self.at > LONGEST_LINE:
            what = f"{self._what} is broken, or has a value of more than {LONGEST_LINE // 2**20} MiB"
            raise LogFormatError(what, seen=self._name, do="write smaller values")
        more = self._file.read(max(PIECE, len(self._text) - self.at))
        if more:
            self._lines += self._text.count("\n", 0, self.at)
            self._text, self.at = self._text[self.at :] + more, 0
        return bool(more)
