"""Reading an edit log: rows become records, one at a time, and everything that goes wrong is counted.

Every row that can be used is used. Bad rows go to quarantine with line and reason, exact duplicates are
dropped, and more than a given share of bad rows is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from editloop.edits.columns import TARGETS, check_map, first_parts, parse_map
from editloop.edits.duplicates import Duplicates
from editloop.edits.formats import (
    Dialect,
    LogAddress,
    RawRow,
    Source,
    check_readable,
    locate,
    looks_like,
    open_source,
)
from editloop.edits.formats.lines import NOT_UTF8
from editloop.edits.formats.plain import STANDARD_INPUT, Plain, make_plain
from editloop.edits.log import Log, ReadReport, RecordStream, hash_log
from editloop.edits.on_disk import find_suspects
from editloop.edits.quarantine import Quarantine
from editloop.edits.record import Record
from editloop.edits.rows import Empty, RowReader, check_columns
from editloop.errors import ConfigError, LogError, LogFormatError, TooManyBadRows
from editloop.io import guard_outputs

__all__ = ["Progress", "iter_records", "read_log"]

Progress = Callable[[int, int], None]
"""Called with what has been read and the total: bytes of text formats, rows of the others."""


def read_log(
    path: str | Path | LogAddress,
    *,
    map: Mapping[str, str] | str | None = None,
    format: str | None = None,
    quarantine: str | Path | None = None,
    max_bad_share: float = 0.05,
    keep_duplicates: bool = False,
    user: str | Collection[str] | None = None,
    empty: Empty | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    columns: Sequence[str] | str | None = None,
    encoding: str | None = None,
    parallel: Sequence[str | Path] = (),
    options: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Log:
    """Read a whole log into memory. `iter_records` streams it, and describes the arguments and errors."""
    stream = iter_records(
        path,
        map=map,
        format=format,
        quarantine=quarantine,
        max_bad_share=max_bad_share,
        keep_duplicates=keep_duplicates,
        user=user,
        empty=empty,
        delimiter=delimiter,
        quote=quote,
        columns=columns,
        encoding=encoding,
        parallel=parallel,
        options=options,
        progress=progress,
    )
    return Log(tuple(stream), stream.report)


def iter_records(
    path: str | Path | LogAddress,
    *,
    map: Mapping[str, str] | str | None = None,
    format: str | None = None,
    quarantine: str | Path | None = None,
    max_bad_share: float = 0.05,
    keep_duplicates: bool = False,
    user: str | Collection[str] | None = None,
    empty: Empty | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    columns: Sequence[str] | str | None = None,
    encoding: str | None = None,
    parallel: Sequence[str | Path] = (),
    options: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> RecordStream:
    """Stream the records of a log; in one piece because most of it describes the arguments.

    Columns with the names of a record's fields are read as they are; a chat may also be in a column
    `messages` in place of `context`. Other columns are read if `map` names them, and left out otherwise: map
    those to be kept to `metadata.NAME`. A mapped column wins over one with the field's name; a field that is
    mapped to nothing (`status=`) is left out. In CSV, TSV and Parquet, `metadata` and `messages` hold JSON.

    A file may be compressed (gzip, zstd, bzip2, xz) or one JSON array. UTF-16 and UTF-32 are recognised, and
    any other encoding can be named. CSV is split at the delimiter of its header (comma, semicolon, tab, bar)
    and has quotes; TSV is read without quotes, because its texts contain quotes of their own, unless
    `write_log` wrote it.

    CSV and TSV cannot tell an empty edit from no edit. If the row has a status, it decides: an empty cell is
    an empty edit (the user deleted everything) only if the status is `edited`. Otherwise `empty` decides.

    A time that cannot be read is left out, and the row is kept. A chat whose last answer is the response or
    the edit is a bad row, because a policy would learn to copy it.

    Args:
        path: A JSONL, CSV, TSV or Parquet file, a folder that `datasets` saved, `-` for standard input, or
            the address of a database with a table or view `log`: `sqlite:///edits.db?since=2026-01-31`.
        map: From field to column: `{"response": "output.text", "metadata.hter": "hter"}` or the same as
            `"response=output.text,metadata.hter=hter"`. Dots lead into nested objects and, by index or slice,
            into lists: `context=messages.:-1` is all messages but the last. Cells that hold JSON are parsed.
        format: The name of the log's format, where neither its name nor its contents show it.
        quarantine: The file for bad rows. By default they are only counted.
        max_bad_share: The share of bad rows above which the log is refused, after its last row.
        keep_duplicates: Keep exact duplicates (context, response, edit, user); they are counted either way.
        user: The user, or the users, whose rows become records; by default all rows do.
        empty: What an empty edit of CSV or TSV without a status means, `deleted` or `pending`.
        delimiter: The delimiter of CSV and TSV, one character.
        quote: The quote of CSV and TSV, one character, or nothing for none.
        columns: Names for the columns of a CSV or TSV file without a header: a list, or a text with commas.
        encoding: The encoding of a text file that is not in UTF-8 and has no byte-order mark.
        parallel: Two files whose lines are the responses and the edits; the contexts are the lines of `path`.
        options: The options of the format, by name; few formats have any.
        progress: Called with what has been read and the total, every 1,000 rows and at the end.

    Raises:
        ConfigError: An argument cannot be used, or the quarantine is the log.
        LogError: The log is not there or cannot be read; or, after its last row, it has none of `user`.
        LogFormatError: It is not a log of that format, has no rows, or lacks columns. It is raised after the
            last record if edits are empty and neither a status nor `empty` says what that means.
        TooManyBadRows: Too many rows are bad. It is raised after the last record; the quarantine file stays.
    """
    mapped = parse_map(map) if isinstance(map, str) else check_map(map or {})
    if not 0 <= max_bad_share <= 1:
        raise ConfigError("a share lies between 0 and 1", seen=max_bad_share, do="set --max-bad-share")
    if empty is not None and empty not in get_args(Empty):
        raise ConfigError("an empty edit is deleted or pending", seen=empty, do="set --empty")
    names = [name.strip() for name in columns.split(",")] if isinstance(columns, str) else columns
    log = locate(path)
    # A database may grow while it is read: what comes after this moment is left out of the rows and the hash.
    log = log if isinstance(log, Path) else log.now()
    plain = _as_plain(log, format, encoding, parallel, quarantine)
    wanted = {*TARGETS, *first_parts(mapped)}
    dialect = Dialect(delimiter, quote, names)
    source = open_source(log, format, wanted, plain=plain, dialect=dialect, options=options)
    bad = Quarantine(None if quarantine is None else Path(quarantine))
    read_as = (*(plain.steps if plain else ()), source.format.name.upper(), *source.dialect)
    users = None if user is None else {user} if isinstance(user, str) else set(user)
    report = ReadReport(
        log, source.format.name, read_as, users=tuple(sorted(users or ())), reasons=bad.reasons
    )
    is_flat = source.format.is_flat or bool(parallel)  # an empty line of parallel files is an empty cell
    reader = RowReader(report, source.format, mapped, is_flat, empty)
    rows = check_columns(source, mapped, log, lambda: [] if plain is None else looks_like(plain.file()))

    def records() -> Iterator[Record]:
        # This closure also keeps `plain` alive, whose temporary files are deleted when it is collected.
        seen = Duplicates(find_suspects(source, mapped))
        with bad:
            yield from _records(rows, reader, report, bad, source, seen, keep_duplicates, users, progress)
        report.first_bad, report.quarantine, report.problem = bad.first, bad.path, bad.problem
        if isinstance(log, Path):  # at the end, so that the first record does not wait for another reading
            report.sha256 = source.sha256 or hash_log(*(plain.sources if plain is not None else (log,)))
        elif log.has_files:
            report.sha256 = log.sha256()
        if progress is not None:
            progress(source.total, source.total)
        _refuse_if_too_many(report, max_bad_share)
        left = report.bad_rows + report.left_out.total()
        if users is not None and report.rows_read == left + report.other_users:
            raise LogError("the log has no row of this user", seen=report.users, do="check --user and --map")
        if report.empty_edits and empty is None:
            raise LogFormatError(
                f"{report.empty_edits} of {report.rows_read} edits are empty, and the log does not say why",
                do="--empty deleted: the users deleted it all; --empty pending: no edit was seen",
            )

    return RecordStream(report, records())


def _as_plain(
    log: Path | LogAddress,
    format: str | None,
    encoding: str | None,
    parallel: Sequence[str | Path],
    quarantine: str | Path | None,
) -> Plain | None:
    """Check the inputs, and return them as one plain file; None for a folder or a database."""
    if not isinstance(log, Path):
        guard_outputs([log.file], [quarantine])
        return None
    guard_outputs([log, *parallel], [quarantine])
    for each in (log, *parallel):
        if str(each) != STANDARD_INPUT:
            check_readable(Path(each))
    return None if log.is_dir() else make_plain(log, format, encoding, parallel)


def _records(
    rows: Iterator[RawRow],
    reader: RowReader,
    report: ReadReport,
    bad: Quarantine,
    source: Source,
    seen: Duplicates,
    keep_duplicates: bool,
    users: Collection[str] | None,
    progress: Progress | None,
) -> Iterator[Record]:
    """Yield the records of rows; rows that give none are counted in the report and go to quarantine."""
    digest = hashlib.sha256()
    has_files = isinstance(report.path, Path) or report.path.has_files
    for raw in rows:
        report.rows_read += 1
        if progress is not None and report.rows_read % 1000 == 0:
            progress(raw.done, source.total)
        if not has_files:  # a database has no file to hash, or one that other tables change, too
            digest.update(json.dumps(raw.columns, sort_keys=True, default=str).encode())
        if not raw.is_draft:
            report.left_out[raw.reason] += 1
            bad.write(raw.line, raw.reason, raw.text)
            continue
        record, reason = reader.read(raw)
        if users is not None and record is not None and record.user not in users:
            report.other_users += 1
            continue
        novelty = seen.see(record, raw.line - 1) if record is not None else "new"
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
    if not has_files:
        report.sha256 = digest.hexdigest()


def _refuse_if_too_many(report: ReadReport, max_bad_share: float) -> None:
    judged = report.rows_read - report.left_out.total()
    if report.bad_rows <= max_bad_share * judged:
        return
    where = f"see {report.quarantine}" if report.quarantine else "name a --quarantine file to see them"
    if report.reasons[NOT_UTF8]:
        where += "; name the text's encoding by --encoding, cp1252 for example"
    raise TooManyBadRows(
        f"{report.bad_rows} of {judged} rows are bad, more than {max_bad_share:.0%}; "
        f"the first at {report.first_bad}",
        do=f"{where}; raise --max-bad-share to leave them out",
    )
