"""Compressed files: which compression a file has, and how it is opened."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from editloop.extras import requires

__all__ = ["COMPRESSIONS", "Compression", "compression_of"]


class Compression(NamedTuple):
    """A kind of compression.

    Attributes:
        name: Its name for people.
        magic: The bytes with which such a file begins, whatever its name is.
        suffixes: The endings that are removed from a name before it shows the format.
        open: Opens a file to read its decompressed bytes.
    """

    name: str
    magic: bytes
    suffixes: tuple[str, ...]
    open: Callable[[Path], Any]


def _gzip(path: Path) -> Any:
    return gzip.open(path)


def _zstd(path: Path) -> Any:
    requires("parquet")
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")


def _bzip2(path: Path) -> Any:
    return bz2.open(path)


def _xz(path: Path) -> Any:
    return lzma.open(path)


COMPRESSIONS = (
    Compression("gzip", b"\x1f\x8b", (".gz",), _gzip),
    Compression("zstd", b"\x28\xb5\x2f\xfd", (".zst", ".zstd"), _zstd),
    Compression("bzip2", b"BZh", (".bz2",), _bzip2),
    Compression("xz", b"\xfd7zXZ", (".xz",), _xz),
)


def compression_of(head: bytes) -> Compression | None:
    """Return the compression of a file that begins with these bytes, or None."""
    return next((each for each in COMPRESSIONS if head.startswith(each.magic)), None)
