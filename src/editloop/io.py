"""JSON from outside, and outputs that must not replace inputs: what every room does at its edges."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from editloop.errors import ConfigError

__all__ = ["UnsafeJSONError", "guard_outputs", "parse_json", "resolved"]


class UnsafeJSONError(ValueError):
    """JSON that Python takes, and that means two things or nothing; its text is the reason."""


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON document says, if every reader of it would agree.

    Python's own reader keeps the last of two equal keys, takes NaN and Infinity, and makes infinity of 1e400.
    What is written from such a value is no JSON any more, so it is refused where it comes in.

    Args:
        text: A document; bytes are UTF-8.

    Raises:
        UnsafeJSONError: Equal keys in one object, a number that is not finite, or nesting too deep to read.
        ValueError: Not JSON, or not UTF-8.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        return _STRICT.decode(text)
    except RecursionError:
        raise UnsafeJSONError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise UnsafeJSONError("the same key twice in one JSON object")
    return row


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise UnsafeJSONError("a number too large for JSON readers")
    return value


def _whole(text: str) -> int:
    if len(text) > 300:  # others read it as a float, and Python takes 4,300 digits at most
        _finite(text)
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise UnsafeJSONError(f"{name} is no JSON number")


# One decoder for all: making one for each document would take longer than reading a short one.
_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_refuse_constant
)


def guard_outputs(inputs: Iterable[str | Path | None], outputs: Iterable[str | Path | None]) -> None:
    """Refuse to write to a file that is being read, by whatever name.

    Paths are compared resolved, and files by identity, so that a symbolic or hard link to an input counts as
    it. None stands for an input or output that was not given.

    Raises:
        ConfigError: An output is an input, or a path cannot be resolved.
    """
    read = [_Place(each) for each in inputs if each is not None]
    for each in outputs:
        if each is None:
            continue
        place = _Place(each)
        if any(place.is_same(other) for other in read):
            raise ConfigError(
                "the output would replace its own input", seen=str(each), do="name another file, --out say"
            )


def resolved(path: str | Path) -> Path:
    """Return a path without links.

    Raises:
        ConfigError: Its links lead in a circle.
    """
    try:
        found = Path(path).resolve()
        if any(each.is_symlink() for each in (found, *found.parents)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))  # Python 3.13 leaves a circle as it is
    except (OSError, RuntimeError) as error:  # before, it is a RuntimeError
        raise ConfigError("this path cannot be resolved", seen=str(path), do="check its links") from error
    return found


class _Place:
    """A path, and the file that is there, if there is one."""

    def __init__(self, path: str | Path) -> None:
        self.resolved = resolved(path)
        try:
            self.stat = self.resolved.stat() if self.resolved.exists() else None
        except OSError as error:
            raise ConfigError("this path cannot be resolved", seen=str(path), do="check its links") from error

    def is_same(self, other: _Place) -> bool:
        """Whether both are one file."""
        if self.resolved == other.resolved:
            return True
        return self.stat is not None and other.stat is not None and os.path.samestat(self.stat, other.stat)
