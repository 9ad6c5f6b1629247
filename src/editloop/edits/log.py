"""A log that was read: its records, and the report on reading them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editloop.edits.formats import LogAddress
from editloop.edits.record import Record
from editloop.errors import LogError

__all__ = ["Log", "ReadReport", "RecordStream", "hash_log"]


@dataclass
class ReadReport:
    """What happened while a log was read. It is complete once all records have been taken.

    Every row is accounted for: `rows_read` is the sum of `records`, `bad_rows`, `dropped_duplicates`,
    `other_users` and `left_out.total()`.

    Attributes:
        path: The log.
        format: The name of the format that it was read as.
        read_as: How it was read, for people: `gzip`, `UTF-16`, `CSV`, `semicolon`, `quoted`.
        rows_read: The rows of the log: records, bad rows, dropped duplicates, rows of other users, and rows
            that are no drafts.
        records: The rows that became records.
        bad_rows: The rows that did not, because something is wrong with them.
        duplicates: The rows with the context, response, edit and user of an earlier one.
        dropped_duplicates: Those duplicates that did not become records.
        other_users: The rows of users who were not asked for, which did not become records.
        left_out: The rows of another tool's export that are no drafts, by what they are. They are in the
            quarantine, too, but not bad.
        users: The users whose rows were asked for; empty for all.
        times_dropped: The records that have no time because it could not be read.
        empty_edits: The rows of CSV and TSV with an empty edit that no status explains (see `empty` of
            `iter_records`).
        suspicious: The records that may have been misread, by what is suspicious about them.
        first_suspicious: The first of them: its line, and what is suspicious about it.
        reasons: The bad rows by reason.
        first_bad: The first bad row: its line and the reason.
        quarantine: The file with the bad rows, if one was written.
        problem: Why the quarantine file is incomplete, if it is.
        sha256: The hash of the file; for a folder, of its files' names and hashes; for a database, of its
            rows.
    """

    path: Path | LogAddress
    format: str
    read_as: tuple[str, ...] = ()
    rows_read: int = 0
    records: int = 0
    bad_rows: int = 0
    duplicates: int = 0
    dropped_duplicates: int = 0
    other_users: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    users: tuple[str, ...] = ()
    times_dropped: int = 0
    empty_edits: int = 0
    suspicious: Counter[str] = field(default_factory=Counter)
    first_suspicious: str | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    first_bad: str | None = None
    quarantine: Path | None = None
    problem: str | None = None
    sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        quarantine = None if self.quarantine is None else str(self.quarantine)
        counts = {"reasons": dict(self.reasons.most_common()), "suspicious": dict(self.suspicious)}
        counts |= {"left_out": dict(self.left_out.most_common())}
        named = {"path": str(self.path), "read_as": list(self.read_as), "quarantine": quarantine}
        named |= {"users": list(self.users)}
        return {**vars(self), **counts, **named}


@dataclass(frozen=True)
class Log:
    """A log in memory: its records in file order, and the report on reading them."""

    records: tuple[Record, ...]
    report: ReadReport

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


class RecordStream(Iterator[Record]):
    """The records of a log, which can be taken once, and the report as it grows. `iter_records` makes it."""

    def __init__(self, report: ReadReport, records: Iterator[Record]) -> None:
        self.report = report
        self._records = records

    def __next__(self) -> Record:
        return next(self._records)


def hash_log(path: Path, *others: Path) -> str:
    """Return the SHA-256 of a log, as 64 hexadecimal digits.

    That of a folder is made from the names and hashes of its files in alphabetical order, and that of several
    files from their hashes in the order given.

    Raises:
        LogError: A file cannot be read.
    """
    if others:
        return hashlib.sha256("".join(hash_log(each) for each in (path, *others)).encode()).hexdigest()
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        names = "".join(f"{each.relative_to(path).as_posix()}\0{hash_log(each)}\n" for each in files)
        return hashlib.sha256(names.encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LogError(f"the log cannot be read, {error.strerror or error}", seen=str(path)) from error
