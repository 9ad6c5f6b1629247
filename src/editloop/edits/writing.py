"""Writing an edit log so that reading it gives equal records, in every format that can be written.

Writing is atomic: the log is there whole, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from editloop.edits.formats import FORMATS, LogFormat, format_of_suffix
from editloop.edits.log import RecordStream
from editloop.edits.record import Record
from editloop.errors import LogError, LogFormatError
from editloop.io import atomic_file, atomic_folder, guard_outputs

__all__ = ["guard_source", "write_log"]


def write_log(records: Iterable[Record], path: str | Path, *, format: str | None = None) -> int:
    """Write a log and return how many records it has.

    JSONL keeps a record as it is. The flat formats have a column `messages` for chats beside `context` for
    texts, and `metadata` as JSON. CSV and TSV write None as an empty cell; the status tells an empty edit
    from no edit. A dataset folder is built in memory; the other formats stream.

    Args:
        records: They are taken once.
        path: A file, which is replaced if it is there; or a folder, which must not be there.
        format: The name of a format; by default that of the suffix, and `dataset` for a path without one.

    Raises:
        LogFormatError: The suffix is of no known format, or logs of the format cannot be written.
        LogError: The folder is there already, or the log cannot be written.
    """
    path = Path(path)
    found = _format_for(path, format)
    if found.is_folder and path.exists():  # unlike a file, it may hold more than an older log
        raise LogError(
            "the folder to write is there already", seen=str(path), do="name another, or remove it"
        )
    guard_source(records, path)
    counted = _Counted(records)
    atomic = atomic_folder if found.is_folder else atomic_file
    with atomic(path, LogError) as unfinished:
        found.write(counted, unfinished)
    return counted.count


def guard_source(records: Iterable[Record], path: Path) -> None:
    """Refuse to write records over the log that they are still being read from.

    Raises:
        ConfigError: It is the same file.
    """
    if isinstance(records, RecordStream):
        log = records.report.path
        guard_outputs([log if isinstance(log, Path) else log.file], [path])


def _format_for(path: Path, name: str | None) -> LogFormat:
    """Return the format of that name, or the format that the suffix of a path stands for."""
    if name is not None or not path.suffix:
        return FORMATS.get(name or "dataset")
    found = format_of_suffix(path.suffix)
    if found is None:
        raise LogFormatError(
            "no format has this suffix", seen=path.suffix, do=f"give one of {', '.join(FORMATS)}"
        )
    return found


class _Counted(Iterator[Record]):
    """An iterator over records that counts how many were taken; a format's `write` does not return that."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.count = 0
        self._records = iter(records)

    def __next__(self) -> Record:
        record = next(self._records)
        self.count += 1
        return record
