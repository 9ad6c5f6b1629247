"""The rows of a log as they stand: JSONL, CSV and TSV, Parquet, Hugging Face dataset folders, databases.

Every format streams `RawRow`s, parsed or with the reason why not. What the columns mean is not known here;
`reading.py` makes records of them.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from editloop.edits.database import DatabaseLog
from editloop.edits.plain import Plain
from editloop.errors import ConfigError, LogError, LogFormatError
from editloop.extras import requires
from editloop.io import UnsafeJSONError, parse_json

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["jsonl", "csv", "tsv", "parquet", "dataset", "database"]

LONGEST_LINE = 64 * 2**20
"""Bytes of a line, or of a quoted cell, beyond which a row is bad: memory must not hang on one lost quote."""

ARROW_BATCH = 256
BOM = b"\xef\xbb\xbf"
NOT_UTF8 = "not UTF-8 text"
TOO_LONG = f"longer than {LONGEST_LINE // 2**20} MiB"
TRUNCATED = "truncated last line"
OUT_OF_RANGE = "a value out of range, a time beyond the years 1 to 9999 say"

SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
}


class RawRow(NamedTuple):
    """A row as read: either `columns`, or the `reason` why it cannot be parsed with its `text`."""

    line: int
    """From 1: the line on which the row starts; in Parquet and dataset folders, the row."""
    done: int
    """Bytes (text) or rows (Parquet, datasets) read so far, of the source's `total`."""
    columns: dict[str, Any] | None
    reason: str = ""
    """Why the row cannot be parsed, or what is suspicious about one that can."""
    text: str = ""


class Source(NamedTuple):
    """An opened log: its format, column names where the format has them, and its rows, read once."""

    format: Format
    columns: list[str] | None
    total: int
    rows: Iterator[RawRow]
    dialect: tuple[str, ...] = ()
    """How a delimited log is written: `semicolon`, `quoted`, `no header`."""


class Dialect(NamedTuple):
    """How the cells of a delimited log stand; None is found from the log.

    Attributes:
        delimiter: One character.
        quote: The character around cells that hold delimiters or line breaks; nothing for none.
        columns: The names of the columns of a log without a header.
    """

    delimiter: str | None = None
    quote: str | None = None
    columns: Sequence[str] | None = None

    def check(self) -> None:
        """Raise ConfigError for what no cell can be told by."""
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in "\r\n"):
            raise ConfigError("a delimiter is one character", seen=self.delimiter, do="set --delimiter")
        if self.quote is not None and (len(self.quote) > 1 or self.quote in ("\r", "\n")):
            raise ConfigError("a quote is one character, or nothing", seen=self.quote, do="set --quote")
        if self.delimiter is not None and self.delimiter == ('"' if self.quote is None else self.quote):
            raise ConfigError("delimiter and quote cannot be the same", seen=self.delimiter)


OWN_COLUMNS = (
    "id",
    "context",
    "messages",
    "response",
    "edit",
    "status",
    "user",
    "policy",
    "propensity",
    "time",
    "metadata",
)
"""The header of the CSV and TSV files that `write_log` makes; those are quoted."""

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


def open_source(
    path: Path | DatabaseLog,
    format: Format | None = None,
    wanted: Collection[str] | None = None,
    *,
    plain: Plain | None = None,
    dialect: Dialect | None = None,
) -> Source:
    """Open a log; its format is found from the name, and from the contents where the name does not tell.

    Args:
        path: A file, the folder of a dataset, or a log in a database.
        format: One of `Format`, where neither name nor contents tell.
        wanted: The columns to read from Parquet and dataset folders; all where it is None.
        plain: The file as its reader takes it, if it is not `path` itself.
        dialect: Of CSV and TSV.

    Raises:
        LogError: No such file, or it cannot be read.
        LogFormatError: Empty, of no known format, or not of the format that its name says.
    """
    if format is not None and format not in get_args(Format):
        raise LogFormatError("unknown format", seen=format, do=f"use one of {', '.join(get_args(Format))}")
    if isinstance(path, DatabaseLog):
        numbered = enumerate(path.rows(), start=1)
        return Source("database", None, 0, (RawRow(number, number, row) for number, row in numbered))
    name = Path(plain.name) if plain is not None else path
    path = plain.path if plain is not None else path
    try:
        if path.is_dir():
            return _dataset(path, wanted)
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise LogError(f"the log cannot be read, {error.strerror}", seen=str(name)) from None
    if not head.removeprefix(BOM).strip():
        raise LogFormatError("the log is empty", seen=str(name), do="check what wrote it")
    dialect = dialect or Dialect()
    found = format or SUFFIXES.get(name.suffix.lower()) or _sniff(name, head, dialect)
    if any(each is not None for each in dialect) and found not in ("csv", "tsv"):
        raise LogFormatError(
            "only CSV and TSV have delimiters, quotes and named columns", seen=found, do="give --format"
        )
    if found == "database":
        raise LogFormatError("a database is named by its address", seen=str(path), do="sqlite:///PATH")
    if found == "dataset":
        raise LogFormatError("a dataset is a folder, this is a file", seen=str(path), do="name its folder")
    if found == "parquet":
        return _parquet(path, wanted)
    _check_text(name, head, found)
    if found == "jsonl":
        return Source(found, None, path.stat().st_size, _readable(_jsonl(path), path))
    return _delimited(path, found, dialect)


def check_readable(path: Path) -> None:
    """Refuse what is no file or folder before it is opened: a pipe would wait for ever.

    Raises:
        LogError: It is not there, or of another kind.
    """
    try:
        if not path.is_dir() and not path.is_file():
            path.stat()
            raise LogError(
                "the log is a pipe or device, and it is read more than once",
                seen=str(path),
                do="write it to a file first, or give - for standard input",
            )
    except FileNotFoundError:
        raise LogError("no such log", seen=str(path), do="check the path") from None
    except OSError as error:
        raise LogError(f"the log cannot be read, {error.strerror}", seen=str(path)) from None


def _readable(rows: Iterator[RawRow], path: Path) -> Iterator[RawRow]:
    """Tell that reading failed as what it is: whoever takes the rows may be writing."""
    try:
        yield from rows
    except OSError as error:
        raise LogError(f"the log cannot be read, {error.strerror or error}", seen=str(path)) from error


def _sniff(path: Path, head: bytes, dialect: Dialect) -> Format:
    if head.startswith(b"PAR1"):
        return "parquet"
    if dialect.delimiter is not None:
        return "tsv" if dialect.delimiter == "\t" else "csv"
    if head.removeprefix(BOM).lstrip()[:1] in (b"{", b"["):
        return "jsonl"
    header = head.splitlines()[0]
    if b"\t" in header:
        return "tsv"
    if any(each.encode() in header for each in DELIMITERS):
        return "csv"
    raise LogFormatError(
        "neither name nor contents tell the log's format",
        seen=str(path),
        do=f"give --format, one of {', '.join(get_args(Format))}",
    )


def _check_text(path: Path, head: bytes, format: Format) -> None:
    """Refuse, before a line is read, what would make every line bad."""
    if head.startswith(b"PK\x03\x04"):
        raise LogFormatError("the log is a zip archive", seen=str(path), do="unpack it first")
    if head.startswith((b"PAR1", b"SQLite format 3")):
        raise LogFormatError(f"the log is not {format.upper()}", seen=str(path), do="give its true --format")


def _lines(file: IO[bytes]) -> Iterator[tuple[bytes, int, bool]]:
    """Yield each line without a byte-order mark, the bytes up to its end, and whether it had to be cut."""
    done = file.tell()
    while line := file.readline(LONGEST_LINE + 1):
        first, done = done == 0, done + len(line)
        cut = len(line) > LONGEST_LINE
        rest = line
        while cut and not rest.endswith(b"\n") and (rest := file.readline(2**20)):
            done += len(rest)
        yield line.removeprefix(BOM) if first else line, done, cut


def _jsonl(path: Path) -> Iterator[RawRow]:
    with path.open("rb") as file:
        for number, (line, done, cut) in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            row, reason = None, ""
            try:
                row = parse_json(line) if not cut else None
            except UnicodeDecodeError:
                reason = NOT_UTF8
            except UnsafeJSONError as error:
                reason = str(error)
            except ValueError:
                reason = "not JSON" if line.endswith(b"\n") else TRUNCATED
            if isinstance(row, dict):
                yield RawRow(number, done, row)
            else:
                reason = TOO_LONG if cut else reason or "not a JSON object"
                yield RawRow(number, done, None, reason, _shown(line))


def _delimited(path: Path, format: Format, given: Dialect) -> Source:
    given.check()
    delimiter, quote = _find_dialect(path, format, given)
    lines = _cells(path, delimiter, quote)
    names = list(given.columns or ())
    first = next(lines, None)
    if first is None:
        raise LogFormatError("the log is empty", seen=str(path), do="check what wrote it")
    if names and first.cells == names:
        raise LogFormatError("the log has a header", seen=first.text, do="leave --columns out")
    if names:
        lines = chain([first], lines)
    else:
        names = first.cells
        if first.problem:
            raise LogFormatError(f"the header is no {format.upper()}: {first.problem}", seen=first.text)
    if len(set(names)) < len(names):
        raise LogFormatError("two columns have the same name", seen=names, do="rename one, or give --columns")
    own = names == list(OWN_COLUMNS)

    def rows() -> Iterator[RawRow]:
        for line, done, cells, problem, text, several in lines:
            if not problem and len(cells) != len(names):
                problem = f"{'fewer' if len(cells) < len(names) else 'more'} cells than the header"
                problem = problem if text.endswith("\n") else TRUNCATED
            if problem:
                yield RawRow(line, done, None, problem, _shown(text))
            else:
                suspicion = ""
                if several and not own:
                    suspicion = SWALLOWED if any(map(swallowed, cells)) else ""
                elif not quote and '""' in text:
                    suspicion = QUOTED if any(map(quoted, cells)) else ""
                yield RawRow(line, done, dict(zip(names, cells, strict=True)), suspicion)

    def swallowed(cell: str) -> bool:
        at = cell.find("\n")
        return at >= 0 and delimiter in cell[at:]

    def quoted(cell: str) -> bool:
        return cell[:1] == cell[-1:] == '"' and '""' in cell[1:-1]

    told = [DELIMITERS.get(delimiter, repr(delimiter)), "quoted" if quote else "not quoted"]
    told += ["no header"] if given.columns else []
    return Source(format, names, path.stat().st_size, _readable(rows(), path), tuple(told))


SWALLOWED = "a cell holds a line break and a delimiter behind it"
"""What a lost quote does to rows, and what a long text does, too: such a row is used, and told."""
QUOTED = "a cell in quotes was read with them (--quote '\"' takes them off)"


def _find_dialect(path: Path, format: Format, given: Dialect) -> tuple[str, str]:
    """The delimiter and the quote of a log, as they were given or as its first line shows them.

    A tab-separated file seldom quotes, and its texts hold quotes of their own, so that only a file with the
    header of `write_log` is read with quotes unless they are asked for.
    """
    with path.open("rb") as file:
        first = file.readline(LONGEST_LINE).removeprefix(BOM).decode("utf-8", "replace")
    delimiter = given.delimiter
    if delimiter is None:
        delimiter = "\t" if format == "tsv" else max(DELIMITERS, key=lambda each: _count(first, each))
    own = first.rstrip("\r\n").split(delimiter) == list(OWN_COLUMNS)
    default = '"' if format == "csv" or own else ""
    return delimiter, default if given.quote is None else given.quote


def _count(line: str, delimiter: str) -> int:
    """How often a delimiter stands in a line outside quotes; 0 for a line that cannot be told."""
    try:
        return len(next(csv.reader([line], delimiter=delimiter), [])) - 1
    except csv.Error:
        return 0


class _Line(NamedTuple):
    text: str
    done: int
    problem: str


class _Cells(NamedTuple):
    line: int
    done: int
    cells: list[str]
    problem: str
    text: str
    """The last line of the row that was read."""
    several: bool
    """Whether the row was over several lines."""


def _cells(path: Path, delimiter: str, quote: str) -> Iterator[_Cells]:
    """Yield the rows. Of a row over several lines that is none only the first line is lost.

    A quote that nothing closes, or another row's quote, swallows rows: those after the first are read again.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    first = last = _Line("", 0, "")
    taken, problem = 0, ""  # of the row that is being read: its lines, and what is wrong with them

    def rows(file: IO[bytes]) -> Iterator[list[str]]:
        # Strict: cells that are not quoted as the csv module quotes them are bad rows, not silently mended.
        if not quote:
            return csv.reader(texts(file), delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(texts(file), delimiter=delimiter, quotechar=quote, strict=True)

    def texts(file: IO[bytes]) -> Iterator[str]:
        nonlocal first, last, taken, problem
        for last in _decoded(file):
            first = last if taken == 0 else first
            taken, problem = taken + 1, problem or last.problem
            yield last.text

    with path.open("rb") as file:
        reader, number, width = rows(file), 1, 0
        while True:
            taken, problem = 0, ""
            try:
                cells, error = next(reader), ""
            except StopIteration:
                return
            except csv.Error as failure:
                cells, error = [], str(failure)
            width = width or len(cells)
            if error or (taken > 1 and len(cells) != width):
                last, taken, problem = first, 1, first.problem
                file.seek(first.done)
                reader = rows(file)
            problem = problem or error
            if cells or problem:
                yield _Cells(number, last.done, cells, problem, last.text, taken > 1)
            number += taken


def _decoded(file: IO[bytes]) -> Iterator[_Line]:
    for line, done, cut in _lines(file):
        try:
            text, problem = line.decode(), ""
        except UnicodeDecodeError:
            text, problem = line.decode(errors="backslashreplace"), NOT_UTF8
        yield _Line(text, done, TOO_LONG if cut else problem)


def _parquet(path: Path, wanted: Collection[str] | None) -> Source:
    requires("parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise LogFormatError(f"no Parquet file, {error}", seen=str(path), do="check its --format") from None
    names = file.schema_arrow.names
    kept = [name for name in names if wanted is None or name in wanted]
    batches = file.iter_batches(batch_size=ARROW_BATCH, columns=kept, use_threads=False)
    return Source("parquet", names, file.metadata.num_rows, _arrow(batches))


def _dataset(path: Path, wanted: Collection[str] | None) -> Source:
    if (path / "dataset_dict.json").is_file():
        names = [each.name for each in sorted(path.iterdir()) if each.is_dir()]
        raise LogFormatError("this folder holds several datasets", seen=names, do="name one of them")
    if not (path / "state.json").is_file():
        raise LogFormatError(
            "this folder is no dataset", seen=str(path), do="give a file, or a folder that save_to_disk wrote"
        )
    requires("datasets")
    import datasets

    try:
        dataset = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever a damaged folder makes the library raise, it is the folder
        raise LogFormatError(f"this dataset folder cannot be read, {error}", seen=str(path)) from error
    names = dataset.column_names
    kept = [name for name in names if wanted is None or name in wanted]
    batches = dataset.select_columns(kept).with_format("arrow").iter(batch_size=ARROW_BATCH)
    return Source("dataset", names, len(dataset), _arrow(batches))


def _arrow(batches: Iterator[pa.RecordBatch]) -> Iterator[RawRow]:
    import pyarrow as pa

    number = 0
    try:
        for batch in batches:
            for row, reason, text in _python_rows(batch):
                number += 1
                yield RawRow(number, number, row, reason, text)
    except (pa.ArrowException, OSError) as error:
        raise LogError(f"the log is damaged after row {number:,}, {error}", do="write it again") from error


def _python_rows(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any] | None, str, str]]:
    """Yield a batch's rows, or the reason why one has no Python value and what the error says."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        if batch.num_rows > 1:
            for i in range(batch.num_rows):
                yield from _python_rows(batch.slice(i, 1))
        else:
            yield None, NOT_UTF8 if isinstance(error, UnicodeDecodeError) else OUT_OF_RANGE, str(error)
    else:
        yield from ((row, "", "") for row in rows)


def _shown(line: bytes | str) -> str:
    """Return the beginning of a line that is bad, as text."""
    return line[:4096].decode(errors="backslashreplace") if isinstance(line, bytes) else line[:4096]
