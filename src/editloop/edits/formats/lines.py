"""Text files line by line, for the formats that are text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from editloop.edits.formats.base import LogFile
from editloop.errors import LogFormatError

__all__ = [
    "BOM",
    "LONGEST_LINE",
    "NOT_UTF8",
    "TOO_LONG",
    "TRUNCATED",
    "refuse_archive",
    "shortened",
    "split_lines",
]

LONGEST_LINE = 64 * 2**20
"""The most bytes of a line or a quoted cell. A longer row is bad: one lost quote must not fill the memory."""

BOM = b"\xef\xbb\xbf"
NOT_UTF8 = "not UTF-8 text"
TOO_LONG = f"longer than {LONGEST_LINE // 2**20} MiB"
TRUNCATED = "truncated last line"

ZIP = b"PK\x03\x04"


def split_lines(file: IO[bytes]) -> Iterator[tuple[bytes, int, bool]]:
    """Yield each line without a byte-order mark, the bytes read up to its end, and whether it was cut.

    Unlike iterating over the file, this never holds more than `LONGEST_LINE` bytes: the rest of a longer line
    is skipped.
    """
    done = file.tell()
    while line := file.readline(LONGEST_LINE + 1):
        first, done = done == 0, done + len(line)  # not first if reading began in the middle of the file
        cut = len(line) > LONGEST_LINE
        rest = line
        while cut and not rest.endswith(b"\n") and (rest := file.readline(2**20)):
            done += len(rest)
        yield line.removeprefix(BOM) if first else line, done, cut


def refuse_archive(log: LogFile) -> None:
    """Refuse a zip archive before any line is read; otherwise every line of it would be a bad row.

    Raises:
        LogFormatError: The log is a zip archive.
    """
    if log.head.startswith(ZIP):
        raise LogFormatError("the log is a zip archive", seen=str(log.name), do="unpack it first")


def shortened(line: bytes | str) -> str:
    """Return the beginning of a bad line as text."""
    return line[:4096].decode(errors="backslashreplace") if isinstance(line, bytes) else line[:4096]
