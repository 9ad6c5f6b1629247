"""A file that is one JSON array, as JSON lines."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from editloop.errors import LogFormatError

__all__ = ["array_elements"]


def array_elements(path: Path, name: str) -> Iterator[bytes]:
    """Yield the elements of a JSON array as lines, as they are: the reader of lines decides which are rows.

    The file is read into memory as a whole. Elements are only measured here, by a decoder that is less strict
    than the reader of lines, and copied as text.

    Args:
        path: The file, in UTF-8.
        name: What it is called in messages.

    Raises:
        LogFormatError: The array is broken, so that the number of its elements is not known.
    """
    # Bytes that are not UTF-8 pass through as surrogates, and make a bad row of their own line only.
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    scan, at = json.JSONDecoder(), _skip_space(text, 0) + 1
    at = _skip_space(text, at)
    while text[at : at + 1] != "]":
        try:
            _, end = scan.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise _broken(text, at, name) from None
        # Between JSON values a line break is a space, and inside a string it would be an error.
        line = text[at:end].replace("\r", " ").replace("\n", " ")
        yield f"{line}\n".encode("utf-8", "surrogateescape")
        at = _skip_space(text, end)
        if text[at : at + 1] == ",":
            at = _skip_space(text, at + 1)
        elif text[at : at + 1] != "]":
            raise _broken(text, at, name)
    # What follows the array is passed on, too: nothing of a log may be lost without being counted.
    yield text[at + 1 :].encode("utf-8", "surrogateescape")


def _broken(text: str, at: int, name: str) -> LogFormatError:
    # For an array that ends too early, the last line that has text.
    line = text.count("\n", 0, min(at, len(text.rstrip()))) + 1
    return LogFormatError(f"the JSON array is broken at line {line}", seen=name, do="check what wrote it")


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
