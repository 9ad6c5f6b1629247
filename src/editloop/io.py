"""Files: written whole or not at all, strict JSON, and outputs that must not replace inputs.

Every file and folder that this package keeps is written by `atomic_file` or `atomic_folder`, or, if it grows
row by row, by `editloop.journal`. The exception is the quarantine of a log (`editloop.edits.quarantine`),
which has to be there even if reading the log ends in an error.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from editloop.errors import ConfigError, EditLoopError

__all__ = [
    "UnsafeJSONError",
    "atomic_file",
    "atomic_folder",
    "cache_folder",
    "guard_outputs",
    "json_text",
    "lock_file",
    "parse_json",
    "resolved",
    "write_bytes",
    "write_json",
    "write_text",
]


def lock_file(path: Path) -> int | None:
    """Lock a file, which is made if it is not there, for as long as this process lives.

    The lock is the operating system's, because it ends with the process, whatever ends that. The file stays:
    to remove it would allow two processes to lock two files of one name.

    Returns:
        A descriptor, which gives the lock back when it is closed; None if another process has the lock.

    Raises:
        OSError: The file cannot be made or locked.
    """
    from filelock import lock_descriptor

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if lock_descriptor(descriptor, blocking=False):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


@contextmanager
def atomic_file(
    path: str | os.PathLike[str],
    error: type[EditLoopError] = EditLoopError,
    *,
    failures: tuple[type[Exception], ...] = (),
) -> Iterator[Path]:
    """Give a path to write a file to, which takes the place of `path` once its content is on the disk.

    A reader sees the old file or the whole new one. If the block raises, or the process is killed, what was
    at `path` is still there; a kill leaves `.NAME.PID.unfinished` beside it. The folder itself is not
    synchronised: after a power cut the old file may be there again, but never a part of the new one.

    Args:
        path: The file; its folder is made if it is not there.
        error: The exception that any OSError in the block, such as that of a full disk, is raised as.
        failures: Further exceptions that mean the same: those of a library that writes the file.

    Raises:
        EditLoopError: The `error`, where the file cannot be written.
    """
    target, unfinished = _unfinished(path)
    with _write_errors(target, error, failures):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            # Before the rename, because a file system may write the new name to the disk before the content:
            # a power cut between the two would leave an empty file at `path`.
            _sync(unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_folder(
    path: str | os.PathLike[str],
    error: type[EditLoopError] = EditLoopError,
    *,
    failures: tuple[type[Exception], ...] = (),
) -> Iterator[Path]:
    """Give an empty folder to write to, which takes the place of `path` once its content is on the disk.

    A folder cannot be replaced in one step as a file can, so the old one is moved aside first. A kill between
    the two steps leaves no folder at `path`, and the old one as `.NAME.PID.replaced` beside it; at no time is
    there a part of a folder at `path`. See `atomic_file` for the rest.

    Raises:
        EditLoopError: The `error`, where the folder cannot be written, or `path` is no folder.
    """
    target, unfinished = _unfinished(path)
    with _write_errors(target, error, failures):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # A killed process of the same number may have left one; in a container the numbers soon repeat.
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            yield unfinished
            for each in unfinished.rglob("*"):
                if each.is_file():
                    _sync(each)
            if target.is_symlink() or (target.exists() and not target.is_dir()):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            replaced = unfinished.with_suffix(".replaced")
            if target.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                target.replace(replaced)
            unfinished.replace(target)
            # Only now, because removing takes many steps: a kill must not leave a part of it at `path`.
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def cache_folder() -> Path:
    """The folder of what can be computed or downloaded again.

    It is `EDITLOOP_CACHE`, or `editloop` in the user's cache folder.
    """
    if "EDITLOOP_CACHE" in os.environ:
        return Path(os.environ["EDITLOOP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "editloop"


def write_text(path: str | os.PathLike[str], text: str, error: type[EditLoopError] = EditLoopError) -> None:
    """Write a text file in UTF-8; see `atomic_file`."""
    with atomic_file(path, error) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_bytes(
    path: str | os.PathLike[str], content: bytes, error: type[EditLoopError] = EditLoopError
) -> None:
    """Write a file; see `atomic_file`."""
    with atomic_file(path, error) as unfinished:
        unfinished.write_bytes(content)


def write_json(
    path: str | os.PathLike[str], content: Any, error: type[EditLoopError] = EditLoopError
) -> None:
    """Write a JSON document as `json_text` has it; see `atomic_file`."""
    write_text(path, json_text(content), error)


def _unfinished(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Return the absolute path, and the path to write to first.

    The number of the process keeps those of two processes apart. Threads of one process must not write to the
    same path at the same time. Both paths are in one folder, because a rename is atomic only within a file
    system.
    """
    target = Path(path).absolute()  # so that "." has a name
    return target, target.with_name(f".{target.name}.{os.getpid()}.unfinished")


def _sync(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


@contextmanager
def _write_errors(
    target: Path, error: type[EditLoopError], failures: tuple[type[Exception], ...]
) -> Iterator[None]:
    """Raise the errors of writing as an `error` of one line."""
    expected: tuple[type[Exception], ...] = (OSError, *failures)
    try:
        yield
    except expected as failure:
        reason = failure.strerror if isinstance(failure, OSError) else None
        raise error(
            f"cannot write {target.name}: {reason or failure}",
            seen=str(target.parent),
            do="free space or change --out",
        ) from failure


def json_text(content: Any) -> str:
    """Return an indented JSON document.

    JSON has neither NaN nor infinity, so they become null; objects of other types become their text.
    """
    return (
        json.dumps(_only_finite(content), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    )


def _only_finite(value: Any) -> Any:
    """Return a value with None for each number in it that is not finite."""
    if isinstance(value, dict):
        return {key: _only_finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_only_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class UnsafeJSONError(ValueError):
    """JSON that Python's reader accepts although other readers reject it or read it differently.

    The text of the error is the reason.
    """


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON document that every reader understands in the same way.

    Python's own reader keeps the last of two equal keys, accepts NaN and Infinity, and reads 1e400 as
    infinity. Such values could not be written as JSON again, so they are rejected on the way in.

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
    # Most other readers take every number as a float, which ends at 309 digits; Python's `int` raises an
    # error of its own above 4,300. Below 300 digits neither can happen, and the check is saved.
    if len(text) > 300:
        _finite(text)
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise UnsafeJSONError(f"{name} is no JSON number")


# One decoder for all documents: making one takes longer than reading a short document.
_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_refuse_constant
)


def guard_outputs(inputs: Iterable[str | Path | None], outputs: Iterable[str | Path | None]) -> None:
    """Refuse to write to a file that is being read, whatever name it is given by.

    Symbolic links are followed, and files are compared by their identity, so a symbolic or hard link to an
    input counts as the input. None stands for an input or output that was not given.

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
                "the output would replace its own input",
                seen=str(each),
                do="name another file, for example with --out",
            )


def resolved(path: str | Path) -> Path:
    """Return the absolute path with all symbolic links followed.

    Raises:
        ConfigError: Its links lead in a circle.
    """
    try:
        found = Path(path).resolve()
        if any(each.is_symlink() for each in (found, *found.parents)):
            # Since Python 3.13, `resolve` returns a circle of links as it is.
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except (OSError, RuntimeError) as error:  # up to Python 3.12, a circle of links is a RuntimeError
        raise ConfigError("this path cannot be resolved", seen=str(path), do="check its links") from error
    return found


class _Place:
    """A resolved path, and the identity of the file there, if there is one."""

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
