"""Reading an edit log: rows to records, one at a time, with everything that went wrong counted.

What can be used is used; bad rows go to quarantine with line and reason, exact duplicates are dropped, and
more than a set share of bad rows is an error. It does not know what the rows are for.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from editloop.edits.columns import MISSING, TARGETS, check_map, first_parts, from_json, look_up, parse_map
from editloop.edits.database import DatabaseLog, locate
from editloop.edits.duplicates import Duplicates
from editloop.edits.formats import NOT_UTF8, Dialect, Format, RawRow, Source, check_readable, open_source
from editloop.edits.plain import STANDARD_INPUT, make_plain
from editloop.edits.quarantine import Quarantine
from editloop.edits.record import Record, explain
from editloop.errors import ConfigError, LogError, LogFormatError, TooManyBadRows
from editloop.io import guard_outputs

Empty = Literal["deleted", "pending"]
"""What an empty cell of the edit column says: the user deleted it all, or no edit was seen."""

Progress = Callable[[int, int], None]
"""Called now and then with how much is done, and of how much: bytes of text formats, rows of the others."""

HEAD_ROWS, HEAD_BYTES = 1000, 8 * 2**20
"""How far a log is looked into for its columns before the first record is given out."""

HOLDS_ANSWER = "the context holds the answer (leave it out: --map context=messages.:-1)"


@dataclass
class ReadReport:
    """What reading a log came to; complete once its records were all taken.

    Every row is accounted for: `rows_read == records + bad_rows + dropped_duplicates`.

    Attributes:
        path: The log.
        format: What it was read as.
        read_as: All of what it was read as, in words: `gzip`, `UTF-16`, `CSV`, `semicolon`, `quoted`.
        rows_read: Rows that were there: records, bad rows and dropped duplicates.
        records: Rows that were given out.
        bad_rows: Rows that are no records.
        duplicates: Rows with the context, response, edit and user of an earlier one.
        dropped_duplicates: Those of them that were not given out.
        times_dropped: Records whose time could not be read, and which have none for it.
        empty_edits: Rows of CSV and TSV whose empty edit no status explains; see `empty` of `iter_records`.
        suspicious: Records that may have been misread, by what is suspicious about them.
        first_suspicious: Line and suspicion of the first of them.
        reasons: Bad rows by reason.
        first_bad: Line and reason of the first bad row.
        quarantine: The file with the bad rows, if one was written.
        problem: Why the quarantine file is incomplete, if it is.
        sha256: Hash of the file; of a folder, of its files' names and hashes; of a database, of its rows.
    """

    path: Path | DatabaseLog
    format: Format
    read_as: tuple[str, ...] = ()
    rows_read: int = 0
    records: int = 0
    bad_rows: int = 0
    duplicates: int = 0
    dropped_duplicates: int = 0
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
        """Return the report as what `json.dumps` takes."""
        quarantine = None if self.quarantine is None else str(self.quarantine)
        counts = {"reasons": dict(self.reasons.most_common()), "suspicious": dict(self.suspicious)}
        named = {"path": str(self.path), "read_as": list(self.read_as), "quarantine": quarantine}
        return {**vars(self), **counts, **named}


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
    empty: Empty | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    columns: Sequence[str] | str | None = None,
    encoding: str | None = None,
    parallel: Sequence[str | Path] = (),
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
        empty=empty,
        delimiter=delimiter,
        quote=quote,
        columns=columns,
        encoding=encoding,
        parallel=parallel,
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
    empty: Empty | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    columns: Sequence[str] | str | None = None,
    encoding: str | None = None,
    parallel: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> RecordStream:
    """Stream the records of a log.

    Columns that have a record's field names are read as they are; a chat may also stand in a column
    `messages` in place of `context`. Others are read if `map` names them, and left out if not: what is to be
    kept goes to `metadata.NAME`. A mapped column wins over one that has the field's name; a field mapped to
    nothing (`status=`) is left out. In CSV, TSV and Parquet, `metadata` and `messages` hold JSON.

    A file may be compressed (gzip, zstd, bzip2, xz), in UTF-16 or UTF-32 or another named encoding, or one
    JSON array. CSV is split at the delimiter of its header (comma, semicolon, tab, bar) with quotes; TSV is
    read without quotes, because its texts have their own, unless `write_log` wrote it.

    CSV and TSV cannot tell an empty edit from none. Where the row has a status, that decides: an empty cell
    is an empty edit (the user deleted it all) only under `edited`. Elsewhere `empty` has to say it.

    A time that cannot be read costs the time, not the row. A chat whose last answer is the response or the
    edit is a bad row: a policy would learn to copy it.

    Args:
        path: A JSONL, CSV, TSV or Parquet file, a folder that `datasets` saved, `-` for standard input, or
            the address of a database with a table or view `log`: `sqlite:///edits.db?since=2026-01-31`.
        map: Field to column, `{"response": "output.text", "metadata.hter": "hter"}` or the same as
            `"response=output.text,metadata.hter=hter"`. Dots lead into nested objects and, by index or slice,
            lists: `context=messages.:-1` is all messages but the last. Cells that are JSON are entered, too.
        format: The log's format, where neither its name nor its contents tell.
        quarantine: The file for bad rows; none is written without it, but they are counted all the same.
        max_bad_share: The share of bad rows above which the log is refused, at its end.
        keep_duplicates: Keep exact duplicates (context, response, edit, user); they are counted either way.
        empty: What an empty edit of CSV or TSV without a status says, `deleted` or `pending`.
        delimiter: Of CSV and TSV, one character.
        quote: Of CSV and TSV, one character, or nothing for none.
        columns: Names for the columns of a CSV or TSV file without a header: a list, or a text with commas.
        encoding: Of a text file, where it is not UTF-8 and no byte-order mark tells.
        parallel: Two files whose lines are the responses and the edits to the contexts that are the lines of
            `path`.
        progress: Called with what is done and the total, every 1,000 rows and at the end.

    Raises:
        ConfigError: An argument cannot be used, or the quarantine is the log.
        LogError: The log is not there or cannot be read.
        LogFormatError: Not a log of that format, no rows, or columns are missing; after the last record, if
            edits are empty and `empty` is not given.
        TooManyBadRows: After the last record; the quarantine file stays.
    """
    mapped = parse_map(map) if isinstance(map, str) else check_map(map or {})
    if not 0 <= max_bad_share <= 1:
        raise ConfigError("a share lies between 0 and 1", seen=max_bad_share, do="set --max-bad-share")
    if empty is not None and empty not in get_args(Empty):
        raise ConfigError("an empty edit is deleted or pending", seen=empty, do="set --empty")
    names = [name.strip() for name in columns.split(",")] if isinstance(columns, str) else columns
    path = locate(path)
    plain = None
    if isinstance(path, DatabaseLog):
        path = path.now()
        guard_outputs([path.file], [quarantine])
    else:
        guard_outputs([path, *parallel], [quarantine])
        for each in (path, *parallel):
            if str(each) != STANDARD_INPUT:
                check_readable(Path(each))
        if not path.is_dir():
            plain = make_plain(path, format, encoding, parallel)
    source = open_source(
        path, format, {*TARGETS, *first_parts(mapped)}, plain=plain, dialect=Dialect(delimiter, quote, names)
    )
    bad = Quarantine(None if quarantine is None else Path(quarantine))
    read_as = (*(plain.steps if plain else ()), source.format.upper(), *source.dialect)
    report = ReadReport(path, source.format, read_as, reasons=bad.reasons)
    rows = _checked_columns(source, mapped, path)
    is_flat = source.format in ("csv", "tsv") or bool(parallel)
    reader = _RowReader(report, mapped, is_flat, empty)

    def records() -> Iterator[Record]:
        seen, digest = Duplicates(), hashlib.sha256()
        with bad:
            for raw in rows:
                report.rows_read += 1
                if progress is not None and report.rows_read % 1000 == 0:
                    progress(raw.done, source.total)
                if source.format == "database":
                    digest.update(json.dumps(raw.columns, sort_keys=True, default=str).encode())
                record, reason = reader.read(raw)
                novelty = seen.see(record) if record is not None else "new"
                if novelty == "conflict":
                    record, reason = None, "id: belongs to an earlier row with other content"
                report.duplicates += novelty == "duplicate"
                if record is None:
                    report.bad_rows += 1
                    row = raw.text if raw.columns is None else json.dumps(raw.columns, default=str)
                    bad.add(raw.line, reason, row)
                elif novelty == "new" or keep_duplicates:
                    report.records += 1
                    yield record
                else:
                    report.dropped_duplicates += 1
        report.first_bad, report.quarantine, report.problem = bad.first, bad.path, bad.problem
        if isinstance(path, DatabaseLog):
            report.sha256 = digest.hexdigest()
        else:
            report.sha256 = hash_log(*(plain.sources if plain is not None else (path,)))
        if progress is not None:
            progress(source.total, source.total)
        _refuse_if_too_many(report, max_bad_share)
        if report.empty_edits and empty is None:
            raise LogFormatError(
                f"{report.empty_edits} of {report.rows_read} edits are empty, and the log does not say why",
                do="--empty deleted: the users deleted it all; --empty pending: no edit was seen",
            )

    return RecordStream(report, records())


def hash_log(path: Path, *others: Path) -> str:
    """Return the SHA-256 of a file, of a folder's file names and hashes in order, or of several files'."""
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
            if column and column not in there and all(look_up(row, column) is MISSING for row in parsed):
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


class _RowReader:
    """Makes records of rows, and counts in the report what had to be decided on the way."""

    def __init__(
        self, report: ReadReport, columns: Mapping[str, str], is_flat: bool, empty: Empty | None
    ) -> None:
        self._report, self._columns, self._is_flat, self._empty = report, columns, is_flat, empty
        # A server's contexts are what the policy was asked, and people do ask the same again.
        self._checks_context = report.format != "database"

    def read(self, raw: RawRow) -> tuple[Record | None, str]:
        """Return a row's record, or None and the reason why it is none."""
        if raw.columns is None:
            return None, raw.reason
        try:
            fields = self._fields(raw.columns)
            is_unsaid = self._is_flat and fields.get("edit") == "" and "status" not in fields
            if is_unsaid and self._empty != "deleted":
                del fields["edit"]
            record = self._record(fields)
        except ValidationError as error:
            return None, explain(error)
        except RecursionError:
            return None, "nested too deeply"
        if self._checks_context and _holds_answer(record):
            return None, HOLDS_ANSWER
        self._report.empty_edits += is_unsaid
        if raw.reason:
            self._report.suspicious[raw.reason] += 1
            self._report.first_suspicious = self._report.first_suspicious or f"line {raw.line}: {raw.reason}"
        return record, ""

    def _record(self, fields: dict[str, Any]) -> Record:
        try:
            return Record.model_validate(fields)
        except ValidationError as error:
            if any(each["loc"][:1] != ("time",) for each in error.errors(include_url=False)):
                raise
        record = Record.model_validate(fields | {"time": None})
        self._report.times_dropped += 1
        return record

    def _fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record's fields: mapped columns, then native ones, with the formats' poverty made good."""
        columns = self._columns
        fields = {name: row[name] for name in TARGETS if name in row and columns.get(name, name)}
        mapped = {}
        for target, column in columns.items():
            value = look_up(row, column)
            if target.startswith("metadata."):
                if value is not MISSING:
                    mapped[target.removeprefix("metadata.")] = value
            elif column:
                fields[target] = None if value is MISSING else value
        if self._is_flat:  # an empty cell is None, except for the texts
            fields = {key: value for key, value in fields.items() if value != "" or key in _TEXTS}
            if fields.get("edit") == "" and fields.get("status", "edited") != "edited":
                del fields["edit"]
        for name in ("messages", "metadata"):
            if isinstance(fields.get(name), str):
                fields[name] = from_json(fields[name])
        messages = fields.pop("messages", None)
        if messages is not None and (columns.get("messages") or not columns.get("context")):
            fields["context"] = messages
        if mapped:
            metadata = fields.get("metadata") or {}
            if isinstance(metadata, dict):
                fields["metadata"] = {**metadata, **mapped}
        return fields


_TEXTS = ("context", "response", "edit")


def _holds_answer(record: Record) -> bool:
    """Whether the last answer in a chat is the one that the row is about."""
    if isinstance(record.context, str):
        return False
    said = [message.content.strip() for message in record.context if message.role == "assistant"]
    return bool(said and said[-1]) and said[-1] in (record.response.strip(), (record.edit or "").strip())


def _refuse_if_too_many(report: ReadReport, max_bad_share: float) -> None:
    if report.bad_rows <= max_bad_share * report.rows_read:
        return
    where = f"see {report.quarantine}" if report.quarantine else "name a --quarantine file to see them"
    if report.reasons[NOT_UTF8]:
        where += "; say what the text is in by --encoding, cp1252 say"
    raise TooManyBadRows(
        f"{report.bad_rows} of {report.rows_read} rows are bad, more than {max_bad_share:.0%}; "
        f"the first at {report.first_bad}",
        do=f"{where}; raise --max-bad-share to go on without them",
    )
