"""Rows of the store as the lines of a log, JSONL or CSV, which `editloop.read_log` reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from editloop.edits.formats.flat import OWN_COLUMNS
from editloop.store.log import as_log_row

__all__ = ["EXPORTS", "MEDIA_TYPES", "Export", "as_csv", "as_ndjson"]

Export = Literal["ndjson", "csv"]

Record = Mapping[str, Any]


def as_ndjson(records: Iterable[Record]) -> Iterator[str]:
    """Yield each row as a line of JSON, without the values that are not known."""
    for record in records:
        kept = {name: value for name, value in as_log_row(record).items() if value is not None}
        yield json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(records: Iterable[Record]) -> Iterator[str]:
    """Yield a header and the rows as `write_log` writes them, with chats and metadata as JSON."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\r\n")

    def line(cells: Iterable[Any]) -> str:
        file.seek(0)
        file.truncate()
        writer.writerow(cells)
        return file.getvalue()

    yield line(OWN_COLUMNS)
    for record in records:
        row = as_log_row(record)
        is_text = isinstance(row["context"], str)
        row["messages"] = None if is_text else json.dumps(row["context"], ensure_ascii=False)
        row["context"] = row["context"] if is_text else None
        row["metadata"] = json.dumps(row["metadata"], ensure_ascii=False) if row["metadata"] else None
        yield line(row[name] for name in OWN_COLUMNS)


EXPORTS: Mapping[Export, Callable[[Iterable[Record]], Iterator[str]]] = {"ndjson": as_ndjson, "csv": as_csv}
MEDIA_TYPES: Mapping[Export, str] = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
