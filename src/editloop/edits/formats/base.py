"""What a format of logs is, and what passes between a format and those who read and write logs.

A format turns a file, a folder or an address into rows of columns, and records into a file. It does not know
what the columns mean: `editloop.edits.reading` makes records from them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from editloop.errors import ConfigError, LogError, LogFormatError

if TYPE_CHECKING:
    import pyarrow as pa

    from editloop.edits.record import Record

__all__ = ["Dialect", "LogAddress", "LogFile", "LogFormat", "RawRow", "Source", "readable"]


class RawRow(NamedTuple):
    """A row as it was read: either its `columns`, or its `text` and the `reason` why it cannot be parsed."""

    line: int
    """The line on which the row starts, from 1; in formats without lines, the number of the row."""
    done: int
    """How much of the source's `total` has been read: bytes in text formats, rows in others."""
    columns: dict[str, Any] | None
    reason: str = ""
    """Why the row cannot be parsed, or what is suspicious about one that can."""
    text: str = ""
    """The beginning of a row that cannot be parsed."""
    is_draft: bool = True
    """False for a row that is nothing wrong but no draft, such as the span of a tool; it has a `reason`."""


class Source(NamedTuple):
    """An opened log.

    Attributes:
        format: Its format.
        columns: The column names, where the format has them.
        total: The size of the log in the unit of `RawRow.done`; 0 where it is not known.
        rows: The rows, which can be taken once.
        dialect: How a delimited log is written, in words for people: `semicolon`, `quoted`, `no header`.
        sha256: What identifies the content, as 64 hexadecimal digits; None for the hash of its files.
        scan: Reads some columns of all rows once more, as Arrow batches in the order of the rows, where the
            format can; `line` of a row is then its number.
    """

    format: LogFormat
    columns: list[str] | None
    total: int
    rows: Iterator[RawRow]
    dialect: tuple[str, ...] = ()
    sha256: str | None = None
    scan: Callable[[Sequence[str]], Iterator[pa.RecordBatch]] | None = None


class Dialect(NamedTuple):
    """How the cells of a delimited log are written. What is None is found from the log.

    Attributes:
        delimiter: One character.
        quote: The character around cells that hold delimiters or line breaks; empty for none.
        columns: The names of the columns of a log without a header.
    """

    delimiter: str | None = None
    quote: str | None = None
    columns: Sequence[str] | None = None

    @property
    def is_given(self) -> bool:
        """Whether any of it was given by the user."""
        return any(each is not None for each in self)

    def check(self) -> None:
        """Refuse a dialect in which cells cannot be separated.

        Raises:
            ConfigError: The delimiter or the quote is not one character, or both are the same.
        """
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in "\r\n"):
            raise ConfigError("a delimiter is one character", seen=self.delimiter, do="set --delimiter")
        if self.quote is not None and (len(self.quote) > 1 or self.quote in ("\r", "\n")):
            raise ConfigError("a quote is one character, or nothing", seen=self.quote, do="set --quote")
        if self.delimiter is not None and self.delimiter == ('"' if self.quote is None else self.quote):
            raise ConfigError("delimiter and quote cannot be the same", seen=self.delimiter)


class LogFile(NamedTuple):
    """A file or folder that a format is to open.

    Attributes:
        path: What is read: the log itself, or a temporary file with its decompressed, decoded text.
        name: What the log is called in messages; its suffix shows the format.
        head: The first 4,096 bytes; nothing for a folder.
        wanted: The columns that are needed, for formats that can read some without the others; None for all.
        dialect: How the cells are written, for delimited formats.
        options: The options of its format, by name.
    """

    path: Path
    name: Path
    head: bytes = b""
    wanted: Collection[str] | None = None
    dialect: Dialect = Dialect()
    options: Mapping[str, str] = MappingProxyType({})


class LogAddress(Protocol):
    """Where a log is that is no single file or folder here, as a format with `schemes` located it."""

    @property
    def until(self) -> float | None:
        """The time before which its rows are, in seconds since 1970; None for no bound."""
        ...

    @property
    def name(self) -> str:
        """The log's name in messages."""
        ...

    @property
    def stem(self) -> str:
        """The name that files made from the log begin with."""
        ...

    @property
    def file(self) -> Path | None:
        """The file that holds the log, if there is one; the command must not write to it."""
        ...

    def now(self) -> LogAddress:
        """Return the log as it is at this moment, so that a second reading finds the same rows."""
        ...

    def salt(self) -> str | None:
        """Return the random value that identifies a server's store; None for any other log."""
        ...

    def policies(self) -> dict[str, tuple[str, str]]:
        """Return the run folder of each policy of a server and its name there, by the name in the log."""
        ...

    @property
    def has_files(self) -> bool:
        """Whether it has files of its own, by which it is recognised; otherwise its rows are hashed."""
        ...

    def sha256(self) -> str:
        """Return the hash of its files, as 64 hexadecimal digits; it is asked for only if there are any."""
        ...

    def open(self, wanted: Collection[str] | None = None) -> Source:
        """Open the log, for these columns if it has some without the others."""
        ...


class LogFormat:
    """One format of logs: how it is recognised, read and written.

    A subclass gives the attributes in which it differs, and overrides the methods for what it can do. An
    object of it is registered in `editloop.edits.formats.FORMATS`.

    Attributes:
        name: The name in `--format`.
        suffixes: The endings of file names, in lower case and with their dots.
        magic: The bytes with which every file of the format begins, if it has such bytes.
        schemes: The schemes of addresses: `sqlite` for `sqlite:///edits.db`.
        is_folder: Whether a log is a folder.
        is_export: Whether it is another tool's meaning of a table's columns. Such a format has to be named.
        takes_folders: Whether a log may also be a folder.
        takes_globs: Whether a log may be named by a pattern that several files have.
        options: What can be said about how a log is read, by name, each with its help.
        is_flat: Whether cells are texts, so that an empty cell can stand for an empty text or for nothing.
        has_dialect: Whether cells are separated by a delimiter.
        takes_arrays: Whether a text file that is one JSON array is of this format; it becomes lines first.
        checks_context: Whether a row is bad if its chat ends with its own answer, because a policy would
            learn to copy it. In a server's store it is not, because people do ask for the same text again.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    magic: bytes = b""
    schemes: tuple[str, ...] = ()
    is_folder: bool = False
    is_export: bool = False
    takes_folders: bool = False
    takes_globs: bool = False
    options: Mapping[str, str] = MappingProxyType({})
    is_flat: bool = False
    has_dialect: bool = False
    takes_arrays: bool = False
    checks_context: bool = True

    def recognises(self, log: LogFile) -> bool:
        """Whether the beginning of a log is in this format; asked only if its name does not show it."""
        return False

    def open(self, log: LogFile) -> Source:
        """Open a log.

        Raises:
            LogError: It cannot be read.
            LogFormatError: It is not of this format.
        """
        raise LogFormatError(f"{self.name} logs cannot be read from a file", seen=str(log.name))

    def locate(self, address: str) -> LogAddress:
        """Return where a log is, from an address that begins with one of `schemes`.

        Raises:
            ConfigError: It is not such an address.
        """
        raise ConfigError(f"{self.name} logs have no addresses", seen=address)

    def write(self, records: Iterator[Record], path: Path) -> None:
        """Write records to a new file, or to an empty folder if `is_folder`."""
        raise LogFormatError(f"a log in the format {self.name} cannot be written", do="write JSONL")


def readable(rows: Iterator[RawRow], path: Path) -> Iterator[RawRow]:
    """Yield rows, and raise an OSError of reading them as a LogError.

    Whoever takes the rows may be writing a file, and would report the OSError as one of writing.

    Args:
        rows: The rows of a log.
        path: What the log is called in messages: `LogFile.name`.
    """
    try:
        yield from rows
    except OSError as error:
        raise LogError(f"the log cannot be read, {error.strerror or error}", seen=str(path)) from error
