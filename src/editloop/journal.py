"""A JSONL file that grows row by row and survives a kill: a last line that was cut short is ignored.

A row is whole once its line break is in the file. A kill, or a full disk, in the middle of `append_rows`
leaves a last line without one; reading leaves that line out, and the next `append_rows` cuts it off.
"""

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
    """Append rows to a file, which is made if it is not there.

    When this returns, the rows have reached the operating system, or with `sync` the disk. What a kill left
    of a last line is cut off first: a row that was written after it would be part of a damaged line.
    """
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        whole = _end_of_last_line(file)
        if whole != end:
            file.seek(whole)
            if _lacks_only_its_break(file.read()):
                lines = "\n" + lines  # the row is read as one, so it must stay one
            else:
                file.truncate(whole)
        file.write(lines.encode())
        if sync:
            file.flush()
            os.fsync(file.fileno())


def drop_rows(path: Path, count: int, *, instead: Iterable[Any] = ()) -> None:
    """Replace the first `count` rows of a file by others, or remove them; an empty file is removed.

    The rows that stay are written to another file, which takes the place of this one when it is on the disk.
    A kill before that leaves all rows, so whoever handles rows and then drops them must be able to handle a
    row twice.
    """
    rest = left_rows(path)
    with path.open("rb") as file, rest.open("wb") as kept:
        for _ in range(count):
            file.readline()
        kept.writelines(json.dumps(row).encode() + b"\n" for row in instead)
        shutil.copyfileobj(file, kept)
        kept.flush()
        os.fsync(kept.fileno())
    if any(True for _ in read_rows(rest, EditLoopError)):
        rest.replace(path)
    else:
        path.unlink()
        rest.unlink()


def left_rows(path: Path) -> Path:
    """Return the file to which `drop_rows` writes the rows that stay.

    A kill may leave it behind. It is only a copy then, and can be removed.
    """
    return path.with_name(f"{path.name}.rest")


def read_rows(path: Path, error: type[EditLoopError]) -> Iterator[Any]:
    """Yield the rows of a file; none if it is not there.

    Raises:
        EditLoopError: The `error`: a line is damaged and was not cut short, or the file cannot be read.
    """
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n") and not _lacks_only_its_break(line):
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


def _lacks_only_its_break(line: bytes) -> bool:
    """Whether a last line is a whole row without its line break.

    That is certain for an object only, because no part of an object is an object. A `12` may be all that is
    left of `123`.
    """
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _end_of_last_line(file: Any) -> int:
    """Return the position after the last line break; read from the end, as the file may be long."""
    end: int = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(end - _BLOCK, 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + int(found) + 1
        end = start
    return 0
