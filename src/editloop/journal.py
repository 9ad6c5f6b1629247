"""A JSONL file that grows row by row and survives a kill: a line that was cut short never happened."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from editloop.errors import EditLoopError

__all__ = ["append_rows", "drop_rows", "left_rows", "read_rows"]

_BLOCK = 65536


def append_rows(path: Path, rows: Iterable[Any], *, sync: bool = False) -> None:
    """Add rows, flushed to the operating system before this returns; made if it is not there.

    With `sync` they are on the disk, too. What a kill left of a last line is cut off first, so that no row is
    written behind it.
    """
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        whole = _whole(file)
        if whole != end:
            file.seek(whole)
            if _is_whole(file.read()):
                lines = "\n" + lines
            else:
                file.truncate(whole)
        file.write(lines.encode())
        if sync:
            file.flush()
            os.fsync(file.fileno())


def drop_rows(path: Path, count: int, *, instead: Iterable[Any] = ()) -> None:
    """Take the first so many rows out of a file, for others perhaps; one that holds no more is removed."""
    rest = left_rows(path)
    with path.open("rb") as file, rest.open("wb") as kept:
        for _ in range(count):
            file.readline()
        kept.writelines(json.dumps(row).encode() + b"\n" for row in instead)
        shutil.copyfileobj(file, kept)
        kept.flush()
        os.fsync(kept.fileno())
    if any(read_rows(rest, EditLoopError)):
        rest.replace(path)
    else:
        path.unlink()
        rest.unlink()


def left_rows(path: Path) -> Path:
    """Where the rows that stay are written while others are dropped; a kill may leave it behind."""
    return path.with_name(f"{path.name}.rest")


def read_rows(path: Path, error: type[EditLoopError]) -> Iterator[Any]:
    """The rows of a file; nothing if it is not there.

    Raises:
        EditLoopError: Of the type `error`: a damaged line that was not cut short, or an unreadable file.
    """
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n") and not _is_whole(line):
                    return
                try:
                    row = json.loads(line)
                except ValueError as damage:
                    raise error(
                        f"line {number} of {path} is damaged",
                        seen=line.decode(errors="backslashreplace"),
                        do="restore it from a copy",
                    ) from damage
                yield row
    except OSError as damage:
        raise error(f"{path} cannot be read", seen=str(damage)) from damage


def _is_whole(line: bytes) -> bool:
    """Whether a last line lacks nothing but its end: part of an object is never an object."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _whole(file: Any) -> int:
    """Where the last line that ends in a line break ends."""
    end: int = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(end - _BLOCK, 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + int(found) + 1
        end = start
    return 0
