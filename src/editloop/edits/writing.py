"""Writing an edit log so that reading it gives equal records, in every format that can be read.

Writing is atomic: the log is there whole, or not at all.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from editloop.edits.database import DatabaseLog
from editloop.edits.formats import OWN_COLUMNS, SUFFIXES, Format
from editloop.edits.reading import RecordStream
from editloop.edits.record import Context, Record
from editloop.errors import LogError, LogFormatError
from editloop.extras import requires
from editloop.io import atomic_file, atomic_folder, guard_outputs

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 1000


def write_log(records: Iterable[Record], path: str | Path, *, format: Format | None = None) -> int:
    """Write a log and return how many records it has.

    JSONL keeps a record as it is. The flat formats have a column `messages` for chats beside `context` for
    text, and `metadata` as JSON; CSV and TSV write None as an empty cell and tell an empty edit from none by
    its status. A dataset folder is built in memory; the other formats stream.

    Args:
        records: Taken once.
        path: A file, replaced if it is there; or a folder, which must not be.
        format: Found from the suffix if not given; a path without one becomes a dataset folder.

    Raises:
        LogFormatError: The suffix is of no known format.
        LogError: The folder is there already, or the log cannot be written.
    """
    path = Path(path)
    found = format or (SUFFIXES.get(path.suffix.lower()) if path.suffix else "dataset")
    if found is None:
        raise LogFormatError(
            "no format has this suffix", seen=path.suffix, do=f"give one of {', '.join(get_args(Format))}"
        )
    if found == "dataset" and path.exists():
        raise LogError(
            "the folder to write is there already", seen=str(path), do="name another, or remove it"
        )
    if found == "database":
        raise LogFormatError("a database is not written to", seen=str(path), do="write a file")
    write = {"jsonl": _jsonl, "csv": _delimited, "tsv": _delimited, "parquet": _parquet, "dataset": _dataset}
    guard_source(records, path)
    counted = _Counted(records)
    whole = atomic_folder if found == "dataset" else atomic_file
    with whole(path, LogError) as unfinished:
        write[found](counted, unfinished, "\t" if found == "tsv" else ",")
    return counted.count


def guard_source(records: Iterable[Record], path: Path) -> None:
    """Refuse to write records over the log that they are still being read from.

    Raises:
        ConfigError: It is the same file.
    """
    if isinstance(records, RecordStream):
        log = records.report.path
        guard_outputs([log.file if isinstance(log, DatabaseLog) else log], [path])


class _Counted(Iterator[Record]):
    def __init__(self, records: Iterable[Record]) -> None:
        self.count = 0
        self._records = iter(records)

    def __next__(self) -> Record:
        record = next(self._records)
        self.count += 1
        return record


def _jsonl(records: Iterator[Record], path: Path, _: str) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            row = {**vars(record), "context": context_json(record.context), "time": _iso(record)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _delimited(records: Iterator[Record], path: Path, delimiter: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        # "\r\n" ends a row as in RFC 4180, which also makes the writer quote either of the two in a cell.
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
        writer.writerow(OWN_COLUMNS)
        for record in records:
            row = _flat(record)
            if row["messages"] is not None:
                row["messages"] = json.dumps(row["messages"], ensure_ascii=False)
            row["time"] = _iso(record)
            writer.writerow(row.values())


def _parquet(records: Iterator[Record], path: Path, _: str) -> None:
    requires("parquet")
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, _schema()) as writer:
        for batch in _batches(records):
            writer.write_batch(batch)


def _dataset(records: Iterator[Record], path: Path, _: str) -> None:
    requires("datasets")
    import datasets
    import pyarrow as pa

    table = pa.Table.from_batches(_batches(records), schema=_schema())
    silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset(table).save_to_disk(str(path))
    finally:
        if not silent:
            datasets.enable_progress_bars()


def _flat(record: Record) -> dict[str, Any]:
    context = context_json(record.context)
    chat = not isinstance(context, str)
    metadata = json.dumps(record.metadata, ensure_ascii=False) if record.metadata else None
    row = {
        **vars(record),
        "context": None if chat else context,
        "messages": context if chat else None,
        "metadata": metadata,
    }
    return {name: row[name] for name in OWN_COLUMNS}


def _batches(records: Iterator[Record]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    schema = _schema()
    while rows := [_flat(record) for record in islice(records, BATCH)]:
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def _schema() -> pa.Schema:
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    types = {
        "messages": pa.list_(message),
        "propensity": pa.float64(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in OWN_COLUMNS])


def context_json(context: Context) -> str | list[dict[str, str]]:
    """Return a context as JSON has it: text, or a list of `{role, content}`."""
    if isinstance(context, str):
        return context
    return [{"role": message.role, "content": message.content} for message in context]


def _iso(record: Record) -> str | None:
    return None if record.time is None else record.time.isoformat()
