"""What a log needs beside its rows, kept on the disk where it would not fit into memory: by DuckDB.

Two questions cannot be answered from one row: whether an earlier row has the same content or id, and to
which part of a split it belongs. Both need a number or two for each row, and sorting or grouping all of them.
DuckDB does that within a limit of memory, and writes the rest to a temporary folder (`TMPDIR`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from editloop.edits.duplicates import Suspects
from editloop.edits.formats import Source
from editloop.errors import LogError, MissingExtraError
from editloop.extras import requires

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LARGE_ROWS", "add_batches", "columns_of", "database", "find_suspects", "is_installed"]

LARGE_ROWS = 1_000_000
"""From so many rows on, hashes of rows are kept on the disk: in memory, a million rows take 32 to 64 MB."""

MEMORY = "512MB"
"""The most memory that DuckDB takes; what is beyond it goes to the temporary folder."""


def find_suspects(source: Source, columns: Mapping[str, str]) -> Suspects | None:
    """Find the rows of a large log that may be duplicates, or have the id of another row.

    Equal records have equal responses, and where contexts are plain texts of one column, equal contexts. So
    rows that differ in the 64-bit hash of these cannot be duplicates. More rows than the duplicates may be
    marked, and never fewer.

    Args:
        source: The opened log.
        columns: The map from fields to columns.

    Returns:
        The rows; None if the log is not large, cannot be scanned, or DuckDB is not installed. Then all rows
        have to be compared with each other.

    Raises:
        LogError: The temporary folder is full, or the log is damaged.
    """
    there = source.columns or []
    response = columns.get("response", "response")
    if source.scan is None or source.total < LARGE_ROWS or response not in there or not is_installed():
        return None
    wanted = [response]
    context = columns.get("context", "context")
    if context in there and not columns.get("messages", "messages" in there):
        wanted.append(context)
    identity = columns.get("id", "id")
    if (
        identity and identity not in there and "id" in columns
    ):  # a path into a column, which is not compared here
        return None
    has_id = identity in there
    batches = _readable(source.scan([*wanted, identity] if has_id else wanted))
    first = next(batches, None)
    if first is None or not all(_has_texts(column.type) for column in first.columns):
        return None  # most of its rows are no records
    batches = _as_texts(chain([first], batches))
    found = Suspects(source.total)
    with database() as connection:
        content = f"hash({', '.join(f't{i}' for i in range(len(wanted)))})"
        own = f"t{len(wanted)}" if has_id else "NULL"
        hashes = f"SELECT {content} AS content, CASE WHEN {own} IS NOT NULL THEN hash({own}) END AS id"
        add_batches(connection, f"CREATE TABLE rows AS {hashes} FROM batches", batches)
        for key in ("content", "id") if has_id else ("content",):
            repeated = f"SELECT {key} FROM rows WHERE {key} IS NOT NULL GROUP BY {key} HAVING count(*) > 1"
            for (numbers,) in columns_of(connection, f"SELECT rowid FROM rows WHERE {key} IN ({repeated})"):
                found.add(numbers)
    return found


def _has_texts(type: pa.DataType) -> bool:
    """Whether the values of a column can be compared as texts."""
    import pyarrow.types as types

    if types.is_dictionary(type):
        return _has_texts(type.value_type)
    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_null)
    return any(is_kind(type) for is_kind in kinds)


def _as_texts(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches with texts in all columns, called t0, t1 ...: files may have them in several types."""
    import pyarrow as pa

    for batch in batches:
        columns = [column.cast(pa.string()) for column in batch.columns]
        yield pa.RecordBatch.from_arrays(columns, names=[f"t{i}" for i in range(len(columns))])


def _readable(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the batches.

    Raises:
        LogError: A file is damaged.
    """
    import pyarrow as pa

    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        what = str(error).strip().partition("\n")[0]
        raise LogError(f"the log is damaged, {what}", do="write it again") from error


def is_installed() -> bool:
    """Whether DuckDB is there."""
    try:
        requires("large", "duckdb")
    except MissingExtraError:
        return False
    return True


@contextmanager
def database() -> Iterator[Any]:
    """A context with a connection to an empty database in a temporary folder, which is removed afterwards.

    Raises:
        LogError: The folder is full, or cannot be written.
    """
    requires("large", "duckdb")
    import duckdb

    with tempfile.TemporaryDirectory(prefix="editloop-", ignore_cleanup_errors=True) as folder:
        settings = {
            "memory_limit": MEMORY,
            "temp_directory": folder,
            **({"threads": threads} if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit() else {}),
            "autoinstall_known_extensions": "false",
        }
        try:
            with duckdb.connect(str(Path(folder) / "rows.duckdb"), config=settings) as connection:
                yield connection
        except (duckdb.IOException, duckdb.OutOfMemoryException, OSError) as error:
            line = str(error).strip().partition("\n")[0]
            raise LogError(
                f"the rows cannot be kept in the temporary folder, {line}",
                seen=tempfile.gettempdir(),
                do="set TMPDIR to a folder with more space",
            ) from error


def add_batches(connection: Any, query: str, batches: Iterator[pa.RecordBatch]) -> None:
    """Run a query on Arrow batches, which it calls `batches`. Their order becomes that of the rows.

    An error of whoever gives the batches is raised as it is.
    """
    import pyarrow as pa

    first = next(batches, None)
    if first is None:
        raise LogError("the log has no rows", do="check what wrote it")

    failures: list[BaseException] = []

    def all_of_them() -> Iterator[pa.RecordBatch]:
        yield first
        try:
            yield from batches
        except BaseException as error:  # an interrupt, too: DuckDB would make it an error of its own
            failures.append(error)
            raise

    reader = pa.RecordBatchReader.from_batches(first.schema, all_of_them())
    connection.register("batches", reader)
    try:
        connection.execute(query)
    except Exception:
        if failures:
            raise failures[0] from None
        raise
    connection.unregister("batches")


def columns_of(connection: Any, query: str) -> Iterator[Sequence[NDArray[Any]]]:
    """Yield the columns of a query's result as arrays, some rows at a time."""
    for batch in connection.sql(query).to_arrow_reader(100_000):
        yield [column.to_numpy(zero_copy_only=False) for column in batch.columns]
