"""Arrow tables as rows and records, for the formats that are read and written by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from editloop.edits.formats.base import RawRow
from editloop.edits.formats.flat import OWN_COLUMNS, flat_row
from editloop.edits.formats.lines import NOT_UTF8
from editloop.edits.record import Record
from editloop.errors import LogError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["READ_ROWS", "record_batches", "rows_of", "schema"]

READ_ROWS = 256
"""The number of rows that are read at a time."""

WRITTEN_ROWS = 1000
"""The number of rows that are written at a time."""

OUT_OF_RANGE = "a value out of range: a time before the year 1 or after 9999, for example"


def rows_of(
    batches: Iterator[pa.RecordBatch], before: int = 0, more: Mapping[str, Any] | None = None
) -> Iterator[RawRow]:
    """Yield the rows of record batches.

    Args:
        batches: The batches of one file.
        before: The rows of the log's files before this one.
        more: Columns that all rows of the file have, whatever is in it.

    Raises:
        LogError: The file is damaged.
    """
    import pyarrow as pa

    number = before
    try:
        for batch in batches:
            for row, reason, text in _python_rows(batch):
                number += 1
                if more and row is not None:
                    row = {**more, **row}
                yield RawRow(number, number, row, reason, text)
    except (pa.ArrowException, OSError) as error:
        what = str(error).strip().partition("\n")[0]
        raise LogError(
            f"the log is damaged after row {number - before:,}, {what}", do="write it again"
        ) from error


def _python_rows(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any] | None, str, str]]:
    """Yield a batch's rows; for one that Python cannot represent, None, the reason, and the error's text."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        # One bad value fails the whole batch, so the batch is converted row by row to find it.
        if batch.num_rows > 1:
            for i in range(batch.num_rows):
                yield from _python_rows(batch.slice(i, 1))
        else:
            yield None, NOT_UTF8 if isinstance(error, UnicodeDecodeError) else OUT_OF_RANGE, str(error)
    else:
        yield from ((row, "", "") for row in rows)


def record_batches(records: Iterator[Record]) -> Iterator[pa.RecordBatch]:
    """Yield records as record batches of `schema()`."""
    import pyarrow as pa

    types = schema()
    while rows := [flat_row(record) for record in islice(records, WRITTEN_ROWS)]:
        yield pa.RecordBatch.from_pylist(rows, schema=types)


def schema() -> pa.Schema:
    """Return the names and types of the columns that are written."""
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    types = {
        "messages": pa.list_(message),
        "propensity": pa.float64(),
        "logprob": pa.float64(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in OWN_COLUMNS])
