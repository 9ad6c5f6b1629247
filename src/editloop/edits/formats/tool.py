"""What the exports of other tools have in common: rows of drafts, and rows that correct them.

An export may be a file or a folder of files, in JSON lines, JSON, CSV, Parquet or a folder of `datasets`. A
tool's format says which rows are its own, which draft a row is about, and which columns of a record a draft
becomes. What it does not use is counted, with a reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from editloop.edits.columns import from_json
from editloop.edits.formats.base import LogFile, LogFormat, RawRow, Source, readable
from editloop.edits.formats.lines import shortened
from editloop.edits.formats.names import format_of_suffix, looks_like, open_table
from editloop.edits.formats.plain import make_plain
from editloop.errors import LogFormatError

__all__ = ["Correction", "LeftOut", "Row", "ToolFormat", "corrected"]

Row = dict[str, Any]
"""A row of an export, or the columns of a record."""

HEAD_ROWS = 100
"""How many rows are looked at before a file is said to be no export of the tool."""


class LeftOut(NamedTuple):
    """A row that gives no record.

    Attributes:
        reason: Why; the same text for all rows of a kind, because reasons are counted.
        is_bad: Whether something is wrong with it; False for a row that is no draft at all.
    """

    reason: str
    is_bad: bool = True


class Correction(NamedTuple):
    """What somebody made of a draft.

    Attributes:
        text: The text that they left.
        user: Who they are.
        time: When, in any of the forms that a record takes.
    """

    text: str
    user: str | None = None
    time: Any = None


class ToolFormat(LogFormat):
    """The export of another tool.

    Attributes:
        title: What the tool is called in messages.
        pages: The keys under which the answer of the tool's API has its rows.
    """

    takes_arrays = True
    takes_folders = True
    is_export = True
    title: ClassVar[str]
    pages: ClassVar[tuple[str, ...]] = ("data",)

    def is_row(self, row: Row) -> bool:
        """Whether a row is the tool's, of whatever kind."""
        raise NotImplementedError

    def corrects(self, row: Row) -> str | None:
        """Return the id of the draft that a row corrects; None for any other row."""
        return None

    def id_of(self, row: Row) -> str | None:
        """Return the id by which other rows refer to the draft in a row."""
        return None

    def drafts(self, row: Row, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        """Yield the columns of a record for each draft of a row, or why it has none.

        Args:
            row: A row that corrects no other one.
            corrections: The rows that correct it.
        """
        raise NotImplementedError

    def recognises(self, log: LogFile) -> bool:
        """Whether one of the first rows is the tool's."""
        try:
            rows = _rows(self, log)
            return any(self.is_row(raw.columns) for raw in islice(rows, HEAD_ROWS) if raw.columns)
        except LogFormatError:
            return False

    def open(self, log: LogFile) -> Source:
        """Open an export.

        Raises:
            LogFormatError: None of its first rows is the tool's.
        """
        if not self.recognises(log):
            others = [name for name in looks_like(log) if name != self.name]
            looks = f"it looks like {', '.join(others)}: --format {others[0]}" if others else "check the file"
            raise LogFormatError(f"this is no export of {self.title}", seen=str(log.name), do=looks)
        total = 0 if log.path.is_dir() else log.path.stat().st_size
        return Source(self, None, total, readable(self._joined(log), log.name))

    def _joined(self, log: LogFile) -> Iterator[RawRow]:
        """Yield the columns of records. Corrections are read first; they are few, and are kept in memory."""
        corrections: dict[str, list[RawRow]] = {}
        for raw in _rows(self, log):
            if raw.columns is not None and (key := self.corrects(raw.columns)) is not None:
                corrections.setdefault(key, []).append(raw)
        used: set[str] = set()
        for raw in _rows(self, log):
            if raw.columns is None:
                yield raw
                continue
            if self.corrects(raw.columns) is not None:
                continue
            if not self.is_row(raw.columns):
                yield _left_out(raw, LeftOut(f"no row of {self.title}"))
                continue
            key = self.id_of(raw.columns) or ""
            found = corrections.get(key, [])
            if found:
                used.add(key)
            for draft in self.drafts(raw.columns, [each.columns for each in found if each.columns]):
                if isinstance(draft, LeftOut):
                    yield _left_out(raw, draft)
                else:
                    yield raw._replace(columns=draft)
        for key, rows in corrections.items():
            if key not in used:
                orphan = LeftOut("it corrects a draft that is not in the export")
                yield from (_left_out(raw, orphan) for raw in rows)


def corrected(draft: Row, corrections: Iterable[Correction]) -> Row:
    """Return the columns of a draft with what was made of it: the last correction is the edit.

    Earlier ones are its revisions. Without any, no edit was seen.
    """
    by_time = sorted(corrections, key=lambda each: str(each.time or ""))
    if not by_time:
        return {**draft, "edit": None, "status": "pending"}
    last = by_time[-1]
    columns = {**draft, "edit": last.text}
    columns["user"] = draft.get("user") if last.user is None else last.user
    columns["time"] = draft.get("time") if last.time is None else last.time
    if len(by_time) > 1:
        revisions = [each.text for each in by_time[:-1]]
        columns["metadata"] = {**(draft.get("metadata") or {}), "revisions": revisions}
    return columns


def _left_out(raw: RawRow, why: LeftOut) -> RawRow:
    text = shortened(json.dumps(raw.columns, ensure_ascii=False, default=str))
    return raw._replace(columns=None, reason=why.reason, text=text, is_draft=why.is_bad)


def _rows(format: ToolFormat, log: LogFile) -> Iterator[RawRow]:
    """Yield the rows of a file, or of all files of a folder, one after another."""
    plain = log._replace(wanted=None)
    if not log.path.is_dir() or (log.path / "state.json").is_file():
        yield from _unpaged(format, open_table(plain).rows)
        return
    for path in sorted(each for each in log.path.rglob("*") if each.is_file()):
        made = make_plain(path, format.name)
        if format_of_suffix(Path(made.name).suffix) is None:
            continue  # a README, or the tool's pictures
        part = made.file()
        if part.head.strip():
            yield from _unpaged(format, open_table(part).rows)


def _unpaged(format: ToolFormat, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    """Yield the rows of an export, also of those that an API gives by the page."""
    for raw in map(_parsed, rows):
        page = None if raw.columns is None or format.is_row(raw.columns) else _page(format, raw.columns)
        if page is None:
            yield raw
        else:
            yield from (raw._replace(columns=each) for each in page if isinstance(each, dict))


def _page(format: ToolFormat, row: Mapping[str, Any]) -> list[Any] | None:
    return next((row[key] for key in format.pages if isinstance(row.get(key), list)), None)


def _parsed(raw: RawRow) -> RawRow:
    """Return a row whose cells that hold JSON are parsed, as those of CSV and Parquet do."""
    if raw.columns is None or not any(_is_json(value) for value in raw.columns.values()):
        return raw
    cells = {name: from_json(v) if _is_json(v) else v for name, v in raw.columns.items()}
    return raw._replace(columns=cells)


def _is_json(value: object) -> bool:
    return isinstance(value, str) and value[:1] in ("{", "[")
