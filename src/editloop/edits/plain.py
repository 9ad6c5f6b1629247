"""Any text log as a plain UTF-8 file: decompressed, decoded, an array taken apart, parallel files joined.

Each step writes a temporary file that the next one reads, so that the readers of the formats know one kind of
file only. What was done is told in the field's words, for the line that says what was read.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

from editloop.errors import ConfigError, LogError, LogFormatError
from editloop.extras import requires

__all__ = ["STANDARD_INPUT", "Plain", "make_plain"]

STANDARD_INPUT = "-"

PARALLEL = ("context", "response", "edit")
"""What the lines of parallel files are."""

BLOCK = 2**20


def _open_zstd(path: Path) -> Any:
    requires("parquet")
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")


def _open_xz(path: Path) -> Any:
    return lzma.open(path)


def _open_bz2(path: Path) -> Any:
    return bz2.open(path)


def _open_gzip(path: Path) -> Any:
    return gzip.open(path)


COMPRESSIONS: dict[bytes, tuple[str, Callable[[Path], Any]]] = {
    b"\x1f\x8b": ("gzip", _open_gzip),
    b"\x28\xb5\x2f\xfd": ("zstd", _open_zstd),
    b"BZh": ("bzip2", _open_bz2),
    b"\xfd7zXZ": ("xz", _open_xz),
}
SUFFIXES = (".gz", ".zst", ".zstd", ".bz2", ".xz")

BYTE_ORDER_MARKS = {  # the longer first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class Plain:
    """A log as a plain file.

    Attributes:
        path: What is to be read.
        name: The name without the suffix of a compression; tells the format.
        steps: What was done: `gzip`, `UTF-16`, `JSON array` ...
        sources: The files that the log's hash is of.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sources: tuple[Path, ...] = (path,)
        self.name = path.name
        self.steps: list[str] = []
        self._folder: Path | None = None

    def next_file(self) -> Path:
        """A temporary file to write the next step to; it goes when this object does."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="editloop-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / f"step-{len(self.steps)}"

    def take(self, step: str, blocks: Iterator[bytes]) -> None:
        """Go on with a file of these blocks.

        Raises:
            LogError: They cannot be read, or the temporary folder is full.
        """
        file = self.next_file()
        try:
            with file.open("wb") as out:
                out.writelines(blocks)
        except UnicodeError as error:
            told = f"the log is not in {getattr(error, 'encoding', step)}"
            raise LogFormatError(told, seen=self.name, do="give its --encoding") from error
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise LogError(f"the log cannot be read, {error.strerror}", seen=self.name) from error
            raise LogFormatError(f"the {step} file is damaged, {error}", seen=self.name) from error
        self.path = file
        self.steps.append(step)


def make_plain(
    path: Path,
    format: str | None = None,
    encoding: str | None = None,
    parallel: Sequence[str | Path] = (),
) -> Plain:
    """Prepare a log for its reader.

    Args:
        path: A file, or `-` for standard input.
        format: The log's format, if it was given; an array is one only in a log that may be JSON.
        encoding: Of the text, where it is not UTF-8 and no byte-order mark tells it.
        parallel: Files whose lines are the responses and edits of the contexts in `path`.

    Raises:
        ConfigError: No such encoding.
        LogError: It cannot be read.
        LogFormatError: It is damaged, or parallel files have different lengths.
    """
    if encoding is not None:
        try:
            "".encode(encoding)  # lookup alone finds codecs that are none of text, too
        except LookupError as error:
            raise ConfigError("no such encoding", seen=encoding, do="utf-8, cp1252, utf-16 ...") from error
    plain = Plain(path)
    if parallel:
        if len(parallel) != len(PARALLEL) - 1:
            raise ConfigError(
                "beside the contexts stand two parallel files, the responses and the edits",
                seen=[str(each) for each in parallel],
            )
        # As tables, because a line may begin with a bracket.
        parts = [make_plain(Path(each), "tsv", encoding) for each in (path, *parallel)]
        plain.sources = tuple(source for part in parts for source in part.sources)
        plain.steps = list(dict.fromkeys(step for part in parts for step in part.steps))
        plain.take("parallel lines", _joined(parts))
        plain.name += ".jsonl"
        return plain
    if str(path) == STANDARD_INPUT:
        plain.take("standard input", _blocks(sys.stdin.buffer))
        plain.sources = (plain.path,)
    head = _head(plain.path)
    for magic, (step, opened) in COMPRESSIONS.items():
        if head.startswith(magic):
            with opened(plain.path) as file:
                plain.take(step, _blocks(file))
            if plain.name.lower().endswith(SUFFIXES):
                plain.name = plain.name.rpartition(".")[0]
            head = _head(plain.path)
            break
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    found = encoding or marked or _without_mark(head)
    if found is not None and codecs.lookup(found).name != "utf-8":
        plain.take(found, _decoded(plain.path, found))
        head = _head(plain.path)
    is_table = format not in (None, "jsonl") or plain.name.lower().endswith((".csv", ".tsv", ".tab"))
    if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[") and not is_table:
        plain.take("JSON array", _elements(plain.path, plain.name))
        plain.name += ".jsonl"
    return plain


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise LogError(f"the log cannot be read, {error.strerror}", seen=str(path)) from error


def _without_mark(head: bytes) -> str | None:
    """UTF-16 and UTF-32 of a text that begins with a Latin letter have zeros where UTF-8 has none."""
    zeros = [byte == 0 for byte in head[:8]]
    for name, pattern in (
        ("UTF-32-LE", [False, True, True, True] * 2),
        ("UTF-32-BE", [True, True, True, False] * 2),
        ("UTF-16-LE", [False, True] * 4),
        ("UTF-16-BE", [True, False] * 4),
    ):
        if zeros == pattern:
            return name
    return None


def _blocks(file: Any) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _decoded(path: Path, encoding: str) -> Iterator[bytes]:
    with path.open("r", encoding=encoding, newline="") as file:
        mark = "\ufeff"  # which the decoder leaves where the byte order was named
        while text := file.read(BLOCK):
            yield text.removeprefix(mark).encode("utf-8", "surrogatepass")
            mark = ""


def _elements(path: Path, name: str) -> Iterator[bytes]:
    """The elements of a JSON array, a line each, and as they stand: the reader of lines judges them.

    Raises:
        LogFormatError: The array is broken, so that nobody can tell how many elements it has.
    """
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    scan, at = json.JSONDecoder(), _skip(text, 0) + 1
    at = _skip(text, at)
    while text[at : at + 1] != "]":
        try:
            _, end = scan.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise _broken(text, at, name) from None
        # A line break outside a JSON string is a space, and inside one it cannot stand.
        line = text[at:end].replace("\r", " ").replace("\n", " ")
        yield f"{line}\n".encode("utf-8", "surrogateescape")
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            raise _broken(text, at, name)
    # Lines behind an array are rows of their own, which no one may lose.
    yield text[at + 1 :].encode("utf-8", "surrogateescape")


def _broken(text: str, at: int, name: str) -> LogFormatError:
    line = text.count("\n", 0, min(at, len(text.rstrip()))) + 1
    return LogFormatError(f"the JSON array is broken at line {line}", seen=name, do="check what wrote it")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _joined(parts: Sequence[Plain]) -> Iterator[bytes]:
    """Rows of the lines of parallel files."""
    with ExitStack() as stack:
        files = [stack.enter_context(part.path.open(encoding="utf-8-sig", newline="\n")) for part in parts]
        for number, lines in enumerate(zip_longest(*files), start=1):
            if None in lines:
                ended = [part.name for part, line in zip(parts, lines, strict=True) if line is None]
                raise LogFormatError(
                    f"parallel files have different numbers of lines: before line {number} ends",
                    seen=", ".join(ended),
                )
            row = dict(zip(PARALLEL, (line.rstrip("\r\n") for line in lines), strict=True))
            yield (json.dumps(row) + "\n").encode()
