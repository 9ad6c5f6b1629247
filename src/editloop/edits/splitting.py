"""Splitting a log that is larger than memory into files: the parts of `split`, record for record.

The log is read twice. The first time only a key of each record is kept, on the disk (`on_disk.py`), from
whose order the parts follow; the second time the records are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from queue import Full, Queue
from typing import TYPE_CHECKING, Any

from editloop.edits.on_disk import add_batches, columns_of, database, is_installed
from editloop.edits.record import Record
from editloop.edits.split import Split, SplitBy, check_split, key_of, part_sizes, seeded_hash, split
from editloop.edits.writing import write_log

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["split_log"]

IN_MEMORY = 100_000
"""A log of at most so many records is split in memory, in one reading."""

BATCH_ROWS = 1000
"""Records that are passed to a writer at a time."""


def split_log(
    read: Callable[[], Iterable[Record]],
    files: Mapping[str, Path],
    *,
    by: SplitBy = "record",
    validation: float = 0.1,
    test: float = 0.0,
    seed: int = 0,
) -> dict[str, int]:
    """Write the parts of a log, and return how many records each has.

    Without the extra `large`, all records are in memory at once.

    Args:
        read: Returns the records of the log, always the same; it is called at most three times.
        files: The file of each part, by its name: `train`, `validation`, `test`.
        by: As for `split`.
        validation: As for `split`.
        test: As for `split`.
        seed: As for `split`.

    Raises:
        ConfigError: As for `split`.
        LogError: As for `split`, or the log cannot be read, or a part or the temporary folder be written.
    """
    check_split(by, validation, test)
    records = iter(read())
    head = list(islice(records, IN_MEMORY + 1))
    if len(head) <= IN_MEMORY or not is_installed():
        parts = split(chain(head, records), by=by, validation=validation, test=test, seed=seed)
        return {name: write_log(getattr(parts, name), file) for name, file in files.items()}
    del head, records
    with database() as connection:
        _add_keys(connection, read(), by, seed)
        numbers = _parts(connection, by, validation, test)
        with _writers(files) as write:
            for record, number in zip(read(), numbers, strict=True):
                write(Split._fields[number], record)
    return write.counts


def _add_keys(connection: Any, records: Iterable[Record], by: SplitBy, seed: int) -> None:
    """Make the table `keys`: the key of each record, in their order."""
    import pyarrow as pa

    if by != "context":
        kind = pa.string() if by == "time" else pa.binary()

        def key(record: Record) -> str | bytes:
            text = key_of(record, by)
            return text if by == "time" else seeded_hash(text, seed)

        batches = _batches(records, pa.schema([("key", kind)]), lambda record: (key(record),))
        add_batches(connection, "CREATE TABLE keys AS SELECT key FROM batches", batches)
        return
    names = pa.schema([("context", pa.binary()), ("id", pa.string())])
    batches = _batches(records, names, lambda record: (_context_hash(record), record.id))
    add_batches(connection, "CREATE TABLE records AS SELECT context, id FROM batches", batches)
    # The key of a context is the least id among its records, as in memory.
    connection.execute("CREATE TABLE least AS SELECT context, min(id) AS id FROM records GROUP BY context")
    rows = (
        (context, seeded_hash(identity, seed))
        for contexts, ids in columns_of(connection.cursor(), "SELECT context, id FROM least")
        for context, identity in zip(contexts, ids, strict=True)
    )
    hashed = _batches(rows, pa.schema([("context", pa.binary()), ("key", pa.binary())]), lambda row: row)
    add_batches(connection, "CREATE TABLE hashed AS SELECT context, key FROM batches", hashed)
    connection.execute(
        "CREATE TABLE keys AS SELECT key FROM records JOIN hashed USING (context) ORDER BY records.rowid"
    )


def _context_hash(record: Record) -> bytes:
    kind = "text" if isinstance(record.context, str) else "chat"
    return blake2b(f"{kind}\n{record.context!r}".encode(), digest_size=16).digest()


def _batches(
    rows: Iterable[Any], schema: pa.Schema, values: Callable[[Any], tuple[Any, ...]]
) -> Iterator[pa.RecordBatch]:
    """Yield the values of rows as Arrow batches."""
    import pyarrow as pa

    rows = iter(rows)
    while some := [values(row) for row in islice(rows, BATCH_ROWS)]:
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(column, field.type)
                for column, field in zip(zip(*some, strict=True), schema, strict=True)
            ],
            schema=schema,
        )


def _parts(connection: Any, by: SplitBy, validation: float, test: float) -> Iterator[int]:
    """Yield the number of each record's part: 0 for train, 1 for validation, 2 for test."""
    (keys,) = connection.execute("SELECT count(DISTINCT key) FROM keys").fetchone()
    train, held = part_sizes(keys, by, validation, test)
    first = []
    for place in (train, train + held):
        query = f"SELECT DISTINCT key FROM keys ORDER BY key LIMIT 1 OFFSET {place}"
        first.append(connection.execute(query).fetchone())
    # A part begins at its first key; one that would begin after the last has none.
    begins = " + ".join("CAST(key >= ? AS TINYINT)" for key in first if key is not None) or "0"
    query = f"SELECT CAST({begins} AS TINYINT) FROM keys ORDER BY rowid"
    result = connection.execute(query, [key[0] for key in first if key is not None])
    while rows := result.fetchmany(BATCH_ROWS):
        yield from (number for (number,) in rows)


class _Write:
    """Passes records to the writers of their parts, some at a time."""

    def __init__(self, queues: Mapping[str, Queue[Any]], futures: Mapping[str, Future[int]]) -> None:
        self.counts: dict[str, int] = {}
        self._queues, self._futures = queues, futures
        self._waiting: dict[str, list[Record]] = {name: [] for name in queues}

    def __call__(self, part: str, record: Record) -> None:
        self._waiting[part].append(record)
        if len(self._waiting[part]) >= BATCH_ROWS:
            self.put(part, self._waiting[part])
            self._waiting[part] = []

    def put(self, part: str, batch: list[Record] | BaseException | None) -> None:
        """Pass a batch to a writer, None for the end; if the writer has failed, its error is raised."""
        while True:
            try:
                return self._queues[part].put(batch, timeout=0.2)
            except Full:
                if self._futures[part].done():  # it takes no further batch
                    self._futures[part].result()

    def end(self) -> None:
        """Pass on what is left, and wait until the files are there."""
        for part, batch in self._waiting.items():
            self.put(part, batch)
        for future in self._futures.values():
            if future.done():  # only one that has failed; then no other file appears
                future.result()
        for part in self._queues:
            self.put(part, None)
        self.counts = {part: future.result() for part, future in self._futures.items()}


@contextmanager
def _writers(files: Mapping[str, Path]) -> Iterator[_Write]:
    """A context that writes several logs at the same time, each in a thread: formats take an iterator."""

    def taken(queue: Queue[Any]) -> Iterator[Record]:
        while (batch := queue.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield from batch

    queues: dict[str, Queue[Any]] = {name: Queue(4) for name in files}
    with ThreadPoolExecutor(len(files)) as pool:
        futures = {name: pool.submit(write_log, taken(queues[name]), file) for name, file in files.items()}
        write = _Write(queues, futures)
        try:
            yield write
            write.end()
        except BaseException as error:
            for name, future in futures.items():
                while not future.done():  # no part of a file is left, and no thread waits for ever
                    try:
                        queues[name].put(error, timeout=0.2)
                        break
                    except Full:
                        continue
            raise
