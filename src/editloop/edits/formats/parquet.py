"""Parquet files, by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from editloop.edits.formats.arrow import READ_ROWS, record_batches, rows_of, schema
from editloop.edits.formats.base import LogFile, LogFormat, Source
from editloop.edits.record import Record
from editloop.errors import LogFormatError
from editloop.extras import requires

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PARQUET"]


class _Parquet(LogFormat):
    name = "parquet"
    suffixes = (".parquet",)
    magic = b"PAR1"

    def open(self, log: LogFile) -> Source:
        requires("parquet")
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(log.path)
        except (pa.ArrowInvalid, OSError) as error:
            raise LogFormatError(
                f"not a Parquet file, {error}", seen=str(log.name), do="check its --format"
            ) from None
        names = file.schema_arrow.names
        kept = [name for name in names if log.wanted is None or name in log.wanted]
        batches = file.iter_batches(batch_size=READ_ROWS, columns=kept, use_threads=False)
        return Source(self, names, file.metadata.num_rows, rows_of(batches), scan=partial(_scan, log.path))

    def write(self, records: Iterator[Record], path: Path) -> None:
        requires("parquet")
        import pyarrow.parquet as pq

        with pq.ParquetWriter(path, schema()) as writer:
            for batch in record_batches(records):
                writer.write_batch(batch)


def _scan(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=READ_ROWS, columns=list(columns), use_threads=False)


PARQUET = _Parquet()
