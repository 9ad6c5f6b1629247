"""Any text log as a plain UTF-8 file: decompressed, decoded, an array divided, parallel files joined.

Each step writes a temporary file that the next one reads, so that a format knows one kind of file only. The
names of the steps are kept for the line that says what was read.
"""

from __future__ import annotations

import codecs
import json
import lzma
import re
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

from editloop.edits.formats.base import LogFile
from editloop.edits.formats.compression import compression_of
from editloop.edits.formats.json_array import array_elements, documents
from editloop.edits.formats.names import FORMATS, format_of_suffix
from editloop.errors import ConfigError, LogError, LogFormatError

__all__ = ["STANDARD_INPUT", "Plain", "make_plain"]

STANDARD_INPUT = "-"
"""The path that stands for standard input."""

PARALLEL = ("context", "response", "edit")
"""The fields whose values parallel files hold, in the order of the files."""

INDENTED = re.compile(rb'\{[ \t]*\r?\n\s*"')
"""The beginning of a JSON document of several lines; a line of a log is a whole document."""

BLOCK = 2**20
"""Bytes, or characters, that are copied at a time."""

BYTE_ORDER_MARKS = {  # the longer first, because UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class Plain:
    """A log as a plain file.

    Attributes:
        path: The file to read.
        name: The log's name without the suffix of a compression; what is left as its suffix shows the format.
        steps: What was done: `gzip`, `UTF-16`, `JSON array` ...
        sources: The files from which the log's hash is computed: as the user gave them, not as they are read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sources: tuple[Path, ...] = (path,)
        self.name = path.name
        self.steps: list[str] = []
        self._folder: Path | None = None

    def file(self) -> LogFile:
        """Return the file for a format to open."""
        return LogFile(self.path, Path(self.name), _head(self.path))

    def next_file(self) -> Path:
        """Return the path of a temporary file for the next step. It is deleted with this object."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="editloop-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / f"step-{len(self.steps)}"

    def take(self, step: str, blocks: Iterator[bytes]) -> None:
        """Take a step: write its blocks to a file, which becomes `path`.

        Raises:
            LogError: The blocks cannot be read, or the temporary folder is full.
            LogFormatError: The file is damaged, or in another encoding.
        """
        file = self.next_file()
        try:
            with file.open("wb") as out:
                out.writelines(blocks)
        except UnicodeError as error:
            what = f"the log is not in {getattr(error, 'encoding', step)}"
            raise LogFormatError(what, seen=self.name, do="give its --encoding") from error
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            # For damaged data gzip, bz2 and pyarrow raise an OSError without a number; the system's have one.
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
        format: The name of the log's format, if the user gave one. A text that begins with a bracket is a
            JSON array only in a log that may be JSON.
        encoding: The encoding of a text that is not in UTF-8 and has no byte-order mark.
        parallel: Files whose lines are the responses and edits of the contexts in `path`.

    Raises:
        ConfigError: There is no such encoding, or the number of parallel files is wrong.
        LogError: The log cannot be read.
        LogFormatError: It is damaged, or parallel files have different lengths.
    """
    if encoding is not None:
        try:
            "".encode(encoding)  # not codecs.lookup, which also knows codecs that do not encode text
        except LookupError as error:
            raise ConfigError("no such encoding", seen=encoding, do="utf-8, cp1252, utf-16 ...") from error
    plain = Plain(path)
    if parallel:
        if len(parallel) != len(PARALLEL) - 1:
            raise ConfigError(
                "parallel files are three: the contexts, the responses and the edits",
                seen=[str(each) for each in parallel],
            )
        # As TSV, because a first line that begins with a bracket is a text here, not a JSON array.
        parts = [make_plain(Path(each), "tsv", encoding) for each in (path, *parallel)]
        plain.sources = tuple(source for part in parts for source in part.sources)
        plain.steps = list(dict.fromkeys(step for part in parts for step in part.steps))
        plain.take("parallel lines", _joined(parts))
        plain.name += ".jsonl"
        return plain
    if str(path) == STANDARD_INPUT:
        plain.take("standard input", _blocks(sys.stdin.buffer))
        plain.sources = (plain.path,)  # its copy, because standard input cannot be read again
    head = _head(plain.path)
    if (compression := compression_of(head)) is not None:
        with compression.open(plain.path) as file:
            plain.take(compression.name, _blocks(file))
        if plain.name.lower().endswith(compression.suffixes):
            plain.name = plain.name.rpartition(".")[0]
        head = _head(plain.path)
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    found = encoding or marked or _without_mark(head)
    if found is not None and codecs.lookup(found).name != "utf-8":
        plain.take(found, _decoded(plain.path, found))
        head = _head(plain.path)
    if _may_be_array(plain.name, format):
        _divide(plain, head.removeprefix(codecs.BOM_UTF8).lstrip())
    return plain


def _divide(plain: Plain, start: bytes) -> None:
    """Make lines of a JSON array, or of documents of several lines, if that is what a file begins with."""
    is_array = start.startswith(b"[")
    if is_array or INDENTED.match(start):
        step, divide = ("JSON array", array_elements) if is_array else ("JSON documents", documents)
        plain.take(step, divide(plain.path, plain.name))
        plain.name += ".jsonl"


def _may_be_array(name: str, format: str | None) -> bool:
    found = format_of_suffix(Path(name).suffix) if format is None else FORMATS.get(format)
    return found is None or found.takes_arrays


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise LogError(f"the log cannot be read, {error.strerror}", seen=str(path)) from error


def _without_mark(head: bytes) -> str | None:
    """Return the encoding of a wide text without a byte-order mark, or None.

    A log begins with a brace, a bracket or the name of a column. The code of such a character fits one byte,
    so the other bytes are zeros, and their places show the encoding.
    """
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
        # Encodings that name their byte order, such as utf-16-le, leave the byte-order mark in the text.
        mark = "\ufeff"
        while text := file.read(BLOCK):
            yield text.removeprefix(mark).encode("utf-8", "surrogatepass")
            mark = ""


def _joined(parts: Sequence[Plain]) -> Iterator[bytes]:
    """Yield the lines of parallel files as rows of JSON.

    Raises:
        LogFormatError: The files have different numbers of lines, so it is not known which belong together.
    """
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
