"""A log in many Parquet files: a folder, a glob, hive partitions; here or, by fsspec, in an object store.

The files are read one after the other, in the order of their names, so that the memory does not grow with
their number. What they all must have is compared before the first row is read, in their footers.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from editloop.edits.formats.arrow import READ_ROWS, rows_of
from editloop.edits.formats.base import LogFile, LogFormat, Source
from editloop.edits.log import hash_log
from editloop.errors import ConfigError, LogError, LogFormatError
from editloop.extras import requires

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PARTITIONED", "PartitionedLog"]

SUFFIXES = (".parquet", ".parq", ".pq")
"""The names of data files in a folder; others there, such as `_SUCCESS`, are left out."""

MAY_BE_MISSING = ("id", "user", "policy", "propensity", "logprob", "time", "metadata")
"""The columns that older files of a log may lack; such rows have none. Without another one, a row would be
read as something that it is not: all edits of the file would count as not seen."""

FOOTERS_AT_ONCE = 16
"""Files of which the footers are read at a time, because those of an object store wait for the network."""

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What Hive writes in a path in place of no value."""

QUICK: dict[str, dict[str, Any]] = {
    scheme: {"config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 1}}}
    for scheme in ("s3", "s3a")
}
"""Options of file systems with which an address that is not there is refused in seconds. By default botocore
waits a minute for each of five attempts."""


class _File(NamedTuple):
    """A Parquet file: its path, how it is opened, its rows, and the columns that its path gives."""

    path: str
    open: Callable[[], Any]
    rows: int
    keys: Mapping[str, str | None]


@dataclass(frozen=True)
class PartitionedLog:
    """Where a log in several Parquet files is.

    Attributes:
        address: A glob, a folder, or an address of fsspec: `s3://bucket/log`, `gs://bucket/log/*.parquet`.
    """

    address: str

    until: float | None = None

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(self.address).name

    @property
    def stem(self) -> str:
        """The name that files made from the log begin with."""
        parts = [part for part in PurePosixPath(self.address).parts if not glob.has_magic(part)]
        return PurePosixPath(parts[-1]).stem if parts else "log"

    @property
    def file(self) -> Path | None:
        """None: there are several files, or they are elsewhere."""
        return None

    def now(self) -> PartitionedLog:
        """Return the log itself: its files are listed when it is opened, and are not written to later."""
        return self

    def salt(self) -> str | None:
        """Return None: it is not a server's store."""
        return None

    def policies(self) -> dict[str, tuple[str, str]]:
        """Return nothing: the files do not know where policies are."""
        return {}

    @property
    def has_files(self) -> bool:
        """True."""
        return True

    def sha256(self) -> str:
        """Return a hash of the files here, or of the names, sizes and versions of those elsewhere."""
        if "://" not in self.address:
            return hash_log(*map(Path, _local_files(self.address)))
        system, paths = _remote_files(self.address)
        known = "".join(f"{path}\0{system.size(path)}\0{system.checksum(path)}\n" for path in paths)
        return hashlib.sha256(known.encode()).hexdigest()

    def open(self, wanted: Collection[str] | None = None) -> Source:
        """Open the log; nothing but the footers is read before the first row is taken.

        Args:
            wanted: The columns that are needed; None for all.

        Raises:
            LogError: No file is there, or one cannot be read.
            LogFormatError: A file is not Parquet, or its columns are not those of the others.
        """
        if "://" not in self.address:
            paths = _local_files(self.address)
            openers = [partial(open, path, "rb") for path in paths]
        else:
            system, paths = _remote_files(self.address)
            openers = [partial(system.open, path, "rb") for path in paths]
        requires("parquet")
        return _source(paths, openers, self.address, wanted)


class _Partitioned(LogFormat):
    name = "parquet-files"
    is_folder = True
    takes_globs = True
    schemes = (
        "s3",
        "s3a",
        "gs",
        "gcs",
        "az",
        "abfs",
        "abfss",
        "adl",
        "hdfs",
        "http",
        "https",
        "hf",
        "memory",
    )

    def recognises(self, log: LogFile) -> bool:
        return any(_data_files(log.path))

    def locate(self, address: str) -> PartitionedLog:
        return PartitionedLog(address)

    def open(self, log: LogFile) -> Source:
        return PartitionedLog(str(log.path)).open(log.wanted)


PARTITIONED = _Partitioned()


def _data_files(folder: Path) -> Iterator[Path]:
    """Yield the data files under a folder; those that begin with a dot or a line are another tool's own."""
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.suffix.lower() in SUFFIXES and not any(part[0] in "._" for part in inside):
            yield path


def _local_files(address: str) -> list[str]:
    """Return the paths of a glob or a folder here, sorted.

    Raises:
        LogError: There is none.
    """
    found = [Path(address)]
    if glob.has_magic(address):  # not by `Path.glob`, which takes no pattern with a root
        found = [Path(each) for each in glob.glob(address, recursive=True)] or found  # noqa: PTH207
    files = {str(file) for path in found for file in (_data_files(path) if path.is_dir() else [path])}
    there = sorted(path for path in files if Path(path).is_file())
    if not there:
        what = "no file has such a name" if glob.has_magic(address) else "the folder has no Parquet file"
        raise LogError(what, seen=address, do="check the path")
    return there


def _remote_files(address: str) -> tuple[Any, list[str]]:
    """Return the file system of an address, and the paths of its data files there, sorted.

    Raises:
        ConfigError: The library that the address needs is not installed.
        LogError: The address cannot be listed, or there is no file.
    """
    requires("large", "fsspec")
    from fsspec.core import url_to_fs

    scheme = address.partition("://")[0]
    try:
        system, root = url_to_fs(address, **QUICK.get(scheme, {}))
        if glob.has_magic(root):
            paths = system.glob(root)
        elif system.isfile(root):
            paths = [root]
        else:
            paths = [path for path in system.find(root) if PurePosixPath(path).suffix.lower() in SUFFIXES]
    except ImportError as error:
        raise ConfigError(
            f"{scheme}:// needs a library that is not installed, {error}", seen=address
        ) from error
    except Exception as error:  # the libraries of the object stores raise exceptions of their own
        raise LogError(f"the log cannot be listed, {_line(error)}", seen=address) from error
    if not paths:
        raise LogError("no Parquet file is there", seen=address, do="check the address")
    return system, sorted(paths)


def _source(
    paths: Sequence[str], openers: Sequence[Callable[[], Any]], address: str, wanted: Collection[str] | None
) -> Source:
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        footers = list(pool.map(_footer, paths, openers))
    keys = [_keys(path) for path in paths]
    needed = {name for schema, _ in footers for name in schema} | {name for each in keys for name in each}
    needed = needed if wanted is None else needed & set(wanted)
    lacking = _check_columns(paths, [schema for schema, _ in footers], keys, needed)
    files = [
        _File(path, opener, rows, own)
        for path, opener, (_, rows), own in zip(paths, openers, footers, keys, strict=True)
    ]
    names = list(dict.fromkeys(name for schema, _ in footers for name in schema))
    names += [name for name in dict.fromkeys(chain.from_iterable(keys)) if name not in names]
    said = (f"{len(files)} files", *(f"no {name} in {count} of them" for name, count in lacking.items()))
    total = sum(each.rows for each in files)
    rows, scan = _rows(files, needed), partial(_batches, files)
    return Source(PARTITIONED, names, total, rows, said, scan=scan)


def _footer(path: str, opener: Callable[[], Any]) -> tuple[dict[str, str], int]:
    """Return the kinds of a file's columns by name, and how many rows it has.

    Raises:
        LogError: It cannot be read.
        LogFormatError: It is not a Parquet file, or is cut.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opener() as file:
            parquet = pq.ParquetFile(file)
            schema = parquet.schema_arrow
            return {each.name: _kind(each.type) for each in schema}, parquet.metadata.num_rows
    except pa.ArrowException as error:
        raise LogFormatError(f"not a whole Parquet file, {_line(error)}", seen=path) from error
    except Exception as error:  # the libraries of the object stores raise exceptions of their own
        raise LogError(f"a file of the log cannot be read, {_line(error)}", seen=path) from error


def _kind(type: pa.DataType) -> str:
    """Return what a column holds, in as few kinds as records tell apart; nothing for one without values."""
    import pyarrow.types as types

    if types.is_dictionary(type):
        return _kind(type.value_type)
    kinds = {
        "": types.is_null,
        "texts": lambda each: (
            types.is_string(each) or types.is_large_string(each) or types.is_string_view(each)
        ),
        "integers": types.is_integer,
        "numbers": types.is_floating,
        "times": types.is_timestamp,
    }
    return next((name for name, is_kind in kinds.items() if is_kind(type)), str(type))


def _check_columns(
    paths: Sequence[str],
    schemas: Sequence[Mapping[str, str]],
    keys: Sequence[Mapping[str, str | None]],
    needed: Collection[str],
) -> dict[str, int]:
    """Return in how many files each column that may be missing is missing.

    Raises:
        LogFormatError: A file lacks another column that some file has, or holds something else in it.
    """
    lacking: dict[str, int] = {}
    for name in sorted(needed):
        first: tuple[str, str] | None = None
        missing = []
        for path, schema, own in zip(paths, schemas, keys, strict=True):
            kind = schema.get(name, "texts" if name in own else None)
            if kind is None:
                missing.append(path)
            elif first is None:
                first = (path, kind) if kind else None
            elif kind not in (first[1], ""):
                raise LogFormatError(
                    f"{path} holds {kind} in the column {name}, and {first[0]} {first[1]}",
                    do="write both alike, or read them apart",
                )
        if missing and name not in MAY_BE_MISSING:
            raise LogFormatError(
                f"{missing[0]} has no column {name}, which other files of the log have",
                do="write it, or read the files apart",
            )
        if missing:
            lacking[name] = len(missing)
    return lacking


def _keys(path: str) -> dict[str, str | None]:
    """Return the columns that a path gives: `user=ann/part-0.parquet` has a user, ann."""
    pairs = [part.partition("=") for part in PurePosixPath(Path(path).as_posix()).parts[:-1] if "=" in part]
    return {name: None if value == NO_VALUE else unquote(value) for name, _, value in pairs}


def _rows(files: Sequence[_File], needed: Collection[str]) -> Iterator[Any]:
    before = 0
    for file in files:
        try:
            yield from rows_of(_read(file, needed), before, file.keys)
        except LogError as error:
            raise LogError(f"{file.path}: {error}") from error
        before += file.rows


def _batches(files: Sequence[_File], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield columns of all files, in the order of the rows; one that a file lacks is null."""
    import pyarrow as pa

    for file in files:
        for batch in _read(file, columns):
            given = [
                batch.column(name)
                if name in batch.schema.names
                else pa.array([file.keys.get(name)] * batch.num_rows, pa.string())
                for name in columns
            ]
            yield pa.RecordBatch.from_arrays(given, names=list(columns))


def _read(file: _File, columns: Collection[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with file.open() as opened:
        parquet = pq.ParquetFile(opened)
        there = [name for name in parquet.schema_arrow.names if name in columns]
        yield from parquet.iter_batches(batch_size=READ_ROWS, columns=there, use_threads=False)


def _line(error: BaseException) -> str:
    """Return the first line of an error of another library."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
