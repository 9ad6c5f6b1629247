"""The formats of logs, a module for each: JSONL, CSV and TSV, Parquet, Hugging Face data sets, databases.

A log of many Parquet files, here or in an object store, is one log (`partitioned`).

A format of one's own is an object of a subclass of `LogFormat`. A program registers it with
`FORMATS.register(name, format)`; an installed package names it in the entry point group `editloop.formats`.
Compressed and encoded files, JSON arrays and parallel files become plain text files first (`plain`), so that
a format knows one kind of file only.
"""

from editloop.edits.formats.base import Dialect, LogAddress, LogFile, LogFormat, RawRow, Source, readable
from editloop.edits.formats.names import (
    FORMATS,
    check_readable,
    format_of_suffix,
    locate,
    looks_like,
    open_source,
)

__all__ = [
    "FORMATS",
    "Dialect",
    "LogAddress",
    "LogFile",
    "LogFormat",
    "RawRow",
    "Source",
    "check_readable",
    "format_of_suffix",
    "locate",
    "looks_like",
    "open_source",
    "readable",
]
