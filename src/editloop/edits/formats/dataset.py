"""The folder of a Hugging Face data set, as `save_to_disk` of the library `datasets` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from editloop.edits.formats.arrow import READ_ROWS, record_batches, rows_of, schema
from editloop.edits.formats.base import LogFile, LogFormat, Source
from editloop.edits.record import Record
from editloop.errors import LogFormatError
from editloop.extras import requires

__all__ = ["DATASET"]


class _Dataset(LogFormat):
    name = "dataset"
    is_folder = True

    def recognises(self, log: LogFile) -> bool:
        return (log.path / "state.json").is_file() or (log.path / "dataset_dict.json").is_file()

    def open(self, log: LogFile) -> Source:
        if (log.path / "dataset_dict.json").is_file():
            names = [each.name for each in sorted(log.path.iterdir()) if each.is_dir()]
            raise LogFormatError("this folder holds several datasets", seen=names, do="name one of them")
        requires("datasets")
        import datasets

        try:
            dataset = datasets.load_from_disk(str(log.path))
        except Exception as error:  # the library may raise anything for a damaged folder
            raise LogFormatError(
                f"this dataset folder cannot be read, {error}", seen=str(log.path)
            ) from error
        names = dataset.column_names
        kept = [name for name in names if log.wanted is None or name in log.wanted]
        batches = dataset.select_columns(kept).with_format("arrow").iter(batch_size=READ_ROWS)
        return Source(self, names, len(dataset), rows_of(batches))

    def write(self, records: Iterator[Record], path: Path) -> None:
        """Write records. All of them are in memory meanwhile, because the library writes a whole table."""
        requires("datasets")
        import datasets
        import pyarrow as pa

        table = pa.Table.from_batches(record_batches(records), schema=schema())
        # The library's progress bars would be printed over those of the command.
        silent = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            datasets.Dataset(table).save_to_disk(str(path))
        finally:
            if not silent:
                datasets.enable_progress_bars()


DATASET = _Dataset()
