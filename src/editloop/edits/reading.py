"""Reading an edit log: rows to records, one at a time, with everything that went wrong counted.

What can be used is used; bad rows go to quarantine with line and reason, exact duplicates are dropped, and
more than a set share of bad rows is an error. It does not know what the rows are for.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from editloop.edits.database import DatabaseLog, locate
from editloop.edits.duplicates import Duplicates
from editloop.edits.formats import Format, RawRow, Source, open_source
from editloop.edits.quarantine import Quarantine
from editloop.edits.record import Record, explain
from editloop.errors import ConfigError, LogError, LogFormatError, TooManyBadRows

Progress = Callable[[int, int], None]
"""Called now and then with how much is done, and of how much: bytes of text formats, rows of the others."""

HEAD_ROWS, HEAD_BYTES = 1000, 8 * 2**20
"""How far a log is looked into for its columns before the first record is given out."""

_TARGETS = (*Record.model_fields, "messages")
_MISSING = object()


@dataclass
class ReadReport:
    """What reading a log came to; complete once its records were all taken.

    Attributes:
        path: The log.
        format: What it was read as.
        rows_read: Rows that were there: records, bad rows and dropped duplicates.
        bad_rows: Rows that are no records.
        duplicates: Rows with the context, response, edit and user of an earlier one.
        reasons: Bad rows by reason.
        first_bad: Line and reason of the first bad row.
        quarantine: The file with the bad rows, if one was written.
        problem: Why the quarantine file is incomplete, if it is.
        sha256: Hash of the file; of a folder, of its files' names and hashes; of a database, of its rows.
    """

    path: Path | DatabaseLog
    format: Format
    rows_read: int = 0
    bad_rows: int = 0
    duplicates: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first_bad: str | None = None
    quarantine: Path | None = None
    problem: str | None = None
    sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as what `json.dumps` takes."""
        quarantine = None if self.quarantine is None else str(self.quarantine)
        reasons = dict(self.reasons.most_common())
        return {**vars(self), "path": str(self.path), "reasons": reasons, "quarantine": quarantine}


@dataclass(frozen=True)
class Log:
    """A log in memory: its records in file order, and the report of reading them."""

    records: tuple[Record, ...]
    report: ReadReport

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


class RecordStream(Iterator[Record]):
    """The records of a log, once, with the report as it grows; made by `iter_records`."""

    def __init__(self, report: ReadReport, records: Iterator[Record]) -> None:
        self.report = report
        self._records = records

    def __next__(self) -> Record:
        return next(self._records)


def read_log(
    path: str | Path | DatabaseLog,
    *,
    map: Mapping[str, str] | str | None = None,
    format: Format | None = None,
    quarantine: str | Path | None = None,
    max_bad_share: float = 0.05,
    keep_duplicates: bool = False,
    progress: Progress | None = None,
) -> Log:
    """Read a whole log into memory. See `iter_records`, which takes the same and streams."""
    stream = iter_records(
        path,
        map=map,
        format=format,
        quarantine=quarantine,
        max_bad_share=max_bad_share,
        keep_duplicates=keep_duplicates,
        progress=progress,
    )
    return Log(tuple(stream), stream.report)


def iter_records(
    path: str | Path | DatabaseLog,
    *,
    map: Mapping[str, str] | str | None = None,
    format: Format | None = None,
    quarantine: str | Path | None = None,
    max_bad_share: float = 0.05,
    keep_duplicates: bool = False,
    progress: Progress | None = None,
) -> RecordStream:
    """Stream the records of a log.

    Columns that have a record's field names are read as they are; a chat may also stand in a column
    `messages` in place of `context`. Others are read if `map` names them, and left out if not: what is to be
    kept goes to `metadata.NAME`. A mapped column wins over one that has the field's name; a field mapped to
    nothing (`status=`) is left out. In CSV, TSV and Parquet, `metadata` and `messages` hold JSON.

    CSV and TSV cannot tell an empty edit from none. An empty cell is an empty edit (the user deleted it all)
    only where the row's status says `edited`; else no edit was seen and the row is pending.

    Args:
        path: A JSONL, CSV, TSV or Parquet file, a folder that `datasets` saved, or the address of a database
            with a table or view `log`: `sqlite:///edits.db?since=2026-01-31`.
        map: Field to column, `{"response": "output.text", "metadata.hter": "hter"}` or the same as
            `"response=output.text,metadata.hter=hter"`. Dots lead into nested objects and, by index, lists.
        format: The log's format, where neither its name nor its contents tell.
        quarantine: The file for bad rows; none is written without it, but they are counted all the same.
        max_bad_share: The share of bad rows above which the log is refused, at its end.
        keep_duplicates: Keep exact duplicates (context, response, edit, user); they are counted either way.
        progress: Called with what is done and the total, every 1,000 rows and at the end.

    Raises:
        ConfigError: `map`, `max_bad_share` or `quarantine` cannot be used.
        LogError: The log is not there or cannot be read.
        LogFormatError: Not a log of that format, no rows, or columns are missing.
        TooManyBadRows: After the last record; the quarantine file stays.
    """
    columns = parse_map(map) if isinstance(map, str) else _check_map(map or {})
    if not 0 <= max_bad_share <= 1:
        raise ConfigError("a share lies between 0 and 1", seen=max_bad_share, do="set --max-bad-share")
    path = locate(path)
    if isinstance(path, DatabaseLog):
        path = path.now()
    bad = Quarantine(None if quarantine is None else Path(quarantine), path)
    wanted = {*_TARGETS, *columns.values(), *(column.split(".")[0] for column in columns.values())}
    source = open_source(path, format, wanted)
    report = ReadReport(path, source.format, reasons=bad.reasons)
    rows = _checked_columns(source, columns, path)

    def records() -> Iterator[Record]:
        seen, digest = Duplicates(), hashlib.sha256()
        flat = source.format in ("csv", "tsv")
        with bad:
            for raw in rows:
                report.rows_read += 1
                if progress is not None and report.rows_read % 1000 == 0:
                    progress(raw.done, source.total)
                if source.format == "database":
                    digest.update(json.dumps(raw.columns, sort_keys=True, default=str).encode())
                record, reason = _record(raw, columns, flat)
                novelty = seen.see(record) if record is not None else "new"
                if novelty == "conflict":
                    record, reason = None, "id: belongs to an earlier row with other content"
                report.duplicates += novelty == "duplicate"
                if record is None:
                    report.bad_rows += 1
                    row = raw.text if raw.columns is None else json.dumps(raw.columns, default=str)
                    bad.add(raw.line, reason, row)
                elif novelty == "new" or keep_duplicates:
                    yield record
        report.first_bad, report.quarantine, report.problem = bad.first, bad.path, bad.problem
        report.sha256 = digest.hexdigest() if isinstance(path, DatabaseLog) else hash_log(path)
        if progress is not None:
            progress(source.total, source.total)
        _refuse_if_too_many(report, max_bad_share)

    return RecordStream(report, records())


def parse_map(text: str) -> dict[str, str]:
    """Return `"response=output.text,edit=final,status="` as a mapping of field to column, or to nothing.

    Raises:
        ConfigError: Not of that shape, or a field that records do not have.
    """
    columns: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        target, equals, column = (each.strip() for each in part.partition("="))
        if not equals or target in columns:
            raise ConfigError(
                "a map is FIELD=COLUMN,FIELD=COLUMN, each field once", seen=text, do="mend --map"
            )
        columns[target] = column
    return _check_map(columns)


def hash_log(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's file names and hashes in order."""
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        names = "".join(f"{each.relative_to(path).as_posix()}\0{hash_log(each)}\n" for each in files)
        return hashlib.sha256(names.encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LogError(f"the log cannot be read, {error.strerror or error}", seen=str(path)) from error


def _check_map(columns: Mapping[str, str]) -> dict[str, str]:
    for target in columns:
        family, _, name = target.partition(".")
        if target not in _TARGETS and (family != "metadata" or not name or not columns[target]):
            raise ConfigError(
                "records have no such field",
                seen=target,
                do=f"map one of {', '.join(_TARGETS)}, metadata.NAME",
            )
    return dict(columns)


def _checked_columns(
    source: Source, columns: Mapping[str, str], path: Path | DatabaseLog
) -> Iterator[RawRow]:
    """Look into the log's head for the columns that it must have, and return all of its rows."""
    head = []
    for raw in source.rows:
        head.append(raw)
        if len(head) >= HEAD_ROWS or (source.columns is None and raw.done >= HEAD_BYTES):
            break
    if not head:
        raise LogFormatError("the log has no rows", seen=str(path), do="check what wrote it")
    parsed = [raw.columns for raw in head if raw.columns is not None]
    there = source.columns or list(dict.fromkeys(name for row in parsed for name in row))
    if parsed:
        for target, column in columns.items():
            if column and column not in there and all(_look_up(row, column) is _MISSING for row in parsed):
                raise LogFormatError(
                    f"no column for {target} in the log, whose columns are {', '.join(there)}",
                    seen=column,
                    do="mend --map",
                )
        given = {each for each in (*there, *columns) if columns.get(each, each)}
        needed = ("context", "response") if "status" in given else ("context", "response", "edit")
        missing = [each for each in needed if each not in given]
        if "messages" in given and "context" in missing:
            missing.remove("context")
        if missing:
            raise LogFormatError(
                f"the log has no {' and no '.join(missing)} column; its columns are {', '.join(there)}",
                do=f"name them: --map {','.join(f'{each}=COLUMN' for each in missing)}",
            )
    return chain(head, source.rows)


def _record(raw: RawRow, columns: Mapping[str, str], flat: bool) -> tuple[Record | None, str]:
    """Return a row's record, or None and the reason why it is none."""
    if raw.columns is None:
        return None, raw.reason
    try:
        return Record.model_validate(_fields(raw.columns, columns, flat)), ""
    except ValidationError as error:
        return None, explain(error)
    except RecursionError:
        return None, "nested too deeply"


def _fields(row: Mapping[str, Any], columns: Mapping[str, str], flat: bool) -> dict[str, Any]:
    """Return a record's fields: mapped columns, then native ones, with the formats' poverty made good."""
    fields = {name: row[name] for name in _TARGETS if name in row and columns.get(name, name)}
    mapped = {}
    for target, column in columns.items():
        value = _look_up(row, column)
        if target.startswith("metadata."):
            if value is not _MISSING:
                mapped[target.removeprefix("metadata.")] = value
        elif column:
            fields[target] = None if value is _MISSING else value
    if flat:  # an empty cell is None, except for the texts
        fields = {key: value for key, value in fields.items() if value != "" or key in _TEXTS}
        if fields.get("edit") == "" and fields.get("status") != "edited":
            del fields["edit"]
    for name in ("messages", "metadata"):
        if isinstance(fields.get(name), str):
            fields[name] = _from_json(fields[name])
    messages = fields.pop("messages", None)
    if messages is not None and (columns.get("messages") or not columns.get("context")):
        fields["context"] = messages
    if mapped:
        metadata = fields.get("metadata") or {}
        if isinstance(metadata, dict):
            fields["metadata"] = {**metadata, **mapped}
    return fields


_TEXTS = ("context", "response", "edit")


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # and the record says that it is mistyped


def _look_up(row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif (
            isinstance(value, list) and part.lstrip("-").isdecimal() and -len(value) <= int(part) < len(value)
        ):
            value = value[int(part)]
        else:
            return _MISSING
    return value


def _refuse_if_too_many(report: ReadReport, max_bad_share: float) -> None:
    if report.bad_rows <= max_bad_share * report.rows_read:
        return
    where = f"see {report.quarantine}" if report.quarantine else "name a --quarantine file to see them"
    raise TooManyBadRows(
        f"{report.bad_rows} of {report.rows_read} rows are bad, more than {max_bad_share:.0%}; "
        f"the first at {report.first_bad}",
        do=f"{where}; raise --max-bad-share to go on without them",
    )
