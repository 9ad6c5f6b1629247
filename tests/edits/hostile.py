"""Logs as they are found in the wild, and worse: lines that are not records, and files that are not logs.

Each case says how many rows were put in, to be compared with what reading accounts for. Good rows have a
marker in their response, `good 7`, by which they are found again.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOOD = 12
"""The number of good rows of a log, half of them before what is wrong with it."""


@dataclass(frozen=True)
class Hostile:
    """A log and what was put into it.

    Attributes:
        name: The name of the case.
        file: The file's name; its ending is part of the case.
        data: Its bytes, or a function that makes the file, given its path.
        options: The arguments of `read_log`.
        rows: How many rows were put in; None where the file is refused as a whole.
        good: How many of them are good.
    """

    name: str
    file: str
    data: bytes | Callable[[Path], None]
    options: dict[str, Any] = field(default_factory=dict)
    rows: int | None = None
    good: int = GOOD

    def make(self, folder: Path) -> Path:
        """Write the log into a folder."""
        path = folder / self.file
        if callable(self.data):
            self.data(path)
        else:
            path.write_bytes(self.data)
        return path


def good(i: int) -> dict[str, Any]:
    return {"context": f"context {i}", "response": f"good {i}", "edit": f"edit {i}"}


ROW = {"context": "c", "response": "r", "edit": "e"}
DEEP = "[" * 50_000 + "]" * 50_000

BAD_LINES: dict[str, bytes | str] = {
    "not JSON": "{not json}",
    "JSON with single quotes": "{'context': 'c', 'response': 'r', 'edit': 'e'}",
    "a line that breaks off": '{"context": "c", "response": "r", "ed',
    "a trailing comma": '{"context": "c", "response": "r", "edit": "e",}',
    "two objects": json.dumps(ROW) * 2,
    "an array": "[1, 2, 3]",
    "a number": "42",
    "a text": '"text"',
    "null": "null",
    "equal keys": '{"context": "c", "response": "r", "edit": "e", "edit": "f"}',
    "equal keys inside": '{"context": "c", "response": "r", "edit": "e", "metadata": {"a": 1, "a": 2}}',
    "1e400": '{"context": "c", "response": "r", "edit": "e", "metadata": {"a": 1e400}}',
    "NaN": '{"context": "c", "response": "r", "edit": "e", "propensity": NaN}',
    "Infinity": '{"context": "c", "response": "r", "edit": "e", "metadata": [-Infinity]}',
    "5,000 digits": '{"context": "c", "response": "r", "edit": "e", "metadata": {"a": ' + "9" * 5000 + "}}",
    "deep nesting": '{"context": ' + DEEP + "}",
    "deep metadata": json.dumps(ROW)[:-1] + ', "metadata": {"a": ' + DEEP + "}}",
    "a lone surrogate": '{"context": "c", "response": "r\\ud800", "edit": "e"}',
    "a lone surrogate as a user": '{"context": "c", "response": "r", "edit": "e", "user": "\\udfff"}',
    "no response": '{"context": "c", "edit": "e"}',
    "a number as the response": '{"context": "c", "response": 5, "edit": "e"}',
    "an object as the context": '{"context": {"a": 1}, "response": "r", "edit": "e"}',
    "a list as the edit": '{"context": "c", "response": "r", "edit": ["e"]}',
    "a blank response": '{"context": "c", "response": " \\t", "edit": "e"}',
    "a status that contradicts": '{"context": "c", "response": "r", "edit": "e", "status": "pending"}',
    "a status that nobody knows": '{"context": "c", "response": "r", "edit": "e", "status": "approved"}',
    "a propensity of two": '{"context": "c", "response": "r", "edit": "e", "propensity": 2}',
    "metadata that is a list": '{"context": "c", "response": "r", "edit": "e", "metadata": [1]}',
    "no messages": '{"messages": [], "response": "r", "edit": "e"}',
    "a message with a tool call": '{"messages": [{"role": "user", "content": "q", "tool_calls": [1]}],'
    ' "response": "r", "edit": "e"}',
    "an image": '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}],'
    ' "response": "r", "edit": "e"}',
    "a context with its answer": '{"messages": [{"role": "user", "content": "q"},'
    ' {"role": "assistant", "content": "e"}], "response": "r", "edit": "e"}',
    "bytes that are no UTF-8": b'{"context": "caf\xe9", "response": "r", "edit": "e"}',
    "a zero byte": b'{"context": "c\x00", "response": "r", "edit": "e"}',
    "only zero bytes": b"\x00" * 40,
    "bytes of everything": bytes(set(range(256)) - {10, 13}),
}
"""Lines of JSONL that are not records."""

GOOD_LINES: dict[str, str] = {
    "a time that cannot be read": '{"context": "c", "response": "good 99", "edit": "e", "time": "soon"}',
    "a time of the mail": '{"context": "c", "response": "good 99", "edit": "e",'
    ' "time": "Wed, 04 Mar 2026 05:06:07 GMT"}',
    "a number as the user": '{"context": "c", "response": "good 99", "edit": "e", "user": 7}',
    "columns that nobody knows": '{"context": "c", "response": "good 99", "edit": "e", "x": {"y": []}}',
    "an empty edit": '{"context": "c", "response": "good 99", "edit": ""}',
    "separators of lines in a text": '{"context": "c", "response": "good 99", "edit": "a\u2028b\u0085c\x7f"}',
    "content in parts": '{"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],'
    ' "response": "good 99", "edit": "e"}',
}


def _text(line: bytes | str) -> bytes:
    return line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass")


def _jsonl() -> Iterator[Hostile]:
    around = [json.dumps(good(i)).encode() for i in range(GOOD)]
    half = GOOD // 2

    def lines(line: bytes) -> list[bytes]:
        return [*around[:half], line, *around[half:]]

    for name, line in BAD_LINES.items():
        data = b"\n".join(lines(_text(line)))
        yield Hostile(f"{name}, in lines", "log.jsonl", data + b"\n", {}, GOOD + 1)
        yield Hostile(
            f"{name}, in lines with CR LF and a mark",
            "log.ndjson",
            b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
            {},
            GOOD + 1,
        )
        last = b"\n".join([*around, _text(line)])
        yield Hostile(f"{name}, at the end of a gzip file", "log.jsonl.gz", gzip.compress(last), {}, GOOD + 1)
    for name, text in GOOD_LINES.items():
        data = b"\n".join(lines(text.encode()))
        yield Hostile(name, "log.jsonl", data, {}, GOOD + 1, GOOD + 1)
        array = b"[" + b", ".join(lines(text.encode())) + b"]"
        yield Hostile(f"{name}, in an array", "log.json", array, {}, GOOD + 1, GOOD + 1)
        wide = array.decode().encode("utf-16")
        yield Hostile(f"{name}, in an array in UTF-16", "log.json", wide, {}, GOOD + 1, GOOD + 1)
    for name in ("equal keys", "1e400", "NaN", "null", "an array", "a blank response", "a lone surrogate"):
        array = b"[" + b",\n".join(lines(_text(BAD_LINES[name]))) + b"]"
        yield Hostile(f"{name}, in an array", "log.json", array, {}, GOOD + 1)
    for name in ("not JSON", "a line that breaks off", "a trailing comma", "deep nesting"):
        array = b"[" + b",\n".join(lines(_text(BAD_LINES[name]))) + b"]"
        yield Hostile(f"{name}, in an array, which breaks it", "log.json", array)
    twice = b"\n".join([*around, *around])
    yield Hostile("every row twice", "log.jsonl", twice, {}, 2 * GOOD)
    same = b"\n".join([*around, b'{"id": "1", "context": "c", "response": "r", "edit": "e"}'] * 2)
    yield Hostile("every row twice, with an id", "log.jsonl", same, {}, 2 * GOOD + 2)
    blank = b"\n\n \n\t\n".join(around)
    yield Hostile("blank lines between rows", "log.jsonl", blank, {}, GOOD)


COLUMNS = ["context", "response", "edit"]


def _table(rows: list[str], end: str = "\n") -> bytes:
    return end.join(rows).encode() + end.encode()


def _tables() -> Iterator[Hostile]:
    for delimiter, name in ((",", "comma"), (";", "semicolon"), ("|", "bar"), ("\t", "tab")):
        file = "log.tsv" if delimiter == "\t" else "log.csv"
        d = delimiter

        def rows(*lines: str, d: str = d) -> list[str]:
            around = [d.join(good(i).values()) for i in range(GOOD)]
            return [d.join(COLUMNS), *around[: GOOD // 2], *lines, *around[GOOD // 2 :]]

        bad = {
            "fewer cells": f"c{d}r",
            "more cells": f"c{d}r{d}e{d}x",
            "one cell": "c",
            "a blank response": f"c{d} {d}e",
            "only delimiters": d * 2,
            "only delimiters, too many": d * 9,
        }
        for what, line in bad.items():
            yield Hostile(f"{what}, by {name}", file, _table(rows(line)), {}, GOOD + 1)
            packed = gzip.compress(_table(rows(line), "\r\n"))
            yield Hostile(f"{what}, by {name}, packed, CR LF", f"{file}.gz", packed, {}, GOOD + 1)
        latin = _table(rows(f"caf\xe9{d}r{d}e")).decode().encode("latin-1")
        yield Hostile(f"one line of Latin-1, by {name}", file, latin, {}, GOOD + 1)
        known = {"encoding": "latin-1"}
        yield Hostile(f"all in Latin-1, by {name}", file, latin, known, GOOD + 1)
        wide = _table(rows()).decode().encode("utf-16-le")
        yield Hostile(f"UTF-16 without a mark, by {name}", file, wide, {}, GOOD)
        quotes = _table(rows(f'"c{d}"a "" b"{d}e'))
        yield Hostile(f"quotes inside cells, by {name}", file, quotes, {}, GOOD + 1)
        deleted = _table(rows(f"c{d}good 99{d}"))
        yield Hostile(f"an empty edit, unsaid, by {name}", file, deleted)
        for empty in ("deleted", "pending"):
            options = {"empty": empty}
            yield Hostile(f"an empty edit is {empty}, by {name}", file, deleted, options, GOOD + 1, GOOD + 1)
        headerless = _table(rows()[1:])
        named = {"columns": COLUMNS, "delimiter": d}
        yield Hostile(f"no header, by {name}", "log.txt", headerless, named, GOOD)
        yield Hostile(f"no header and none given, by {name}", file, headerless)
        yield Hostile(f"a header twice, by {name}", file, _table([d.join(["context"] * 3)]))
        yield Hostile(f"a header alone, by {name}", file, _table([d.join(COLUMNS)]))
        zero = _table(rows(f"c{d}r\x00{d}e"))
        yield Hostile(f"a zero byte, by {name}", file, zero, {}, GOOD + 1)

    lone = [f'c{i}\t"good {i}\te"' if i % 2 else f'c{i}"\tgood {i}\t"e' for i in range(GOOD)]
    tsv = "\n".join(["\t".join(COLUMNS), *lone]).encode()
    yield Hostile("lone quotes in a TSV", "log.tsv", tsv, {}, GOOD, 0)
    multi = [f'c{i},"good {i}\nand, more\n",e' for i in range(GOOD)]
    csv = "\n".join([",".join(COLUMNS), *multi]).encode()
    yield Hostile("cells of several lines", "log.csv", csv, {}, GOOD, 0)
    open_end = "\n".join([",".join(COLUMNS), *[f"c,good {i},e" for i in range(GOOD)], 'c,"r,e']).encode()
    yield Hostile("a quote that nothing closes", "log.csv", open_end, {}, GOOD + 1)
    mac = open_end.replace(b"\n", b"\r").replace(b'"', b"")
    yield Hostile("lines that end with CR alone", "log.csv", mac)


def _parallel() -> Iterator[Hostile]:
    def three(lines: int, other: int, name: str = "log.txt") -> Callable[[Path], None]:
        def make(path: Path) -> None:
            path.write_text("".join(f"source {i}\n" for i in range(lines)))
            (path.parent / "mt").write_text("".join(f"good {i}\n" for i in range(lines)))
            (path.parent / "pe").write_text("".join(f"edit {i}\n" for i in range(other)))

        return make

    yield Hostile("parallel files", "log.txt", three(GOOD, GOOD), {"parallel": ["mt", "pe"]}, GOOD)
    yield Hostile("parallel files of unequal length", "log.txt", three(GOOD, 3), {"parallel": ["mt", "pe"]})
    yield Hostile("a parallel file that is not there", "log.txt", three(1, 1), {"parallel": ["mt", "no"]})


def _whole_files() -> Iterator[Hostile]:
    """Files that are refused as a whole."""
    lines = b"".join(json.dumps(good(i)).encode() + b"\n" for i in range(GOOD))
    noise = random.Random(0)
    refused: dict[str, tuple[str, bytes]] = {
        "nothing": ("log.jsonl", b""),
        "nothing, by no name": ("log", b""),
        "only blanks": ("log.csv", b" \n\t\r\n"),
        "only a mark": ("log.jsonl", b"\xef\xbb\xbf"),
        "only a wide mark": ("log.jsonl", b"\xff\xfe"),
        "half a wide character": ("log.jsonl", lines.decode().encode("utf-16")[:-1]),
        "a lone surrogate in UTF-16": ("log.jsonl", b"\xff\xfe\x00\xd8" + lines.decode().encode("utf-16-le")),
        "damaged UTF-32": ("log.jsonl", b"\xff\xfe\x00\x00\xff\xff\xff\xff"),
        "half a gzip file": ("log.jsonl.gz", gzip.compress(lines)[:-20]),
        "no gzip file": ("log.jsonl.gz", b"\x1f\x8bnone"),
        "a gzip file that packs nothing": ("log.jsonl.gz", gzip.compress(b"")),
        "a gzip file of a gzip file": ("log.jsonl.gz", gzip.compress(gzip.compress(lines))),
        "half a bzip2 file": ("log.jsonl.bz2", bz2.compress(lines)[:-9]),
        "half an xz file": ("log.jsonl.xz", lzma.compress(lines)[:-9]),
        "half a zstd file": ("log.jsonl.zst", b"\x28\xb5\x2f\xfd\x04\x00"),
        "a zip archive": ("log.jsonl", b"PK\x03\x04" + lines),
        "a Parquet file by another name": ("log.jsonl", b"PAR1" + lines),
        "no Parquet file": ("log.parquet", lines),
        "the head of a Parquet file": ("log.parquet", b"PAR1\x00\x00PAR1"),
        "a database by another name": ("log.csv", b"SQLite format 3\x00" + bytes(100)),
        "a picture": ("log", b"\x89PNG\r\n\x1a\n" + noise.randbytes(400)),
        "noise": ("log.jsonl", noise.randbytes(4000)),
        "noise as a table": ("log.csv", noise.randbytes(4000)),
        "a page of the web": ("log", b"<!DOCTYPE html><html><body>Sign in</body></html>"),
        "one object over several lines": ("log.json", json.dumps({"rows": [good(0)]}, indent=1).encode()),
        "an array of nothing": ("log.json", b"[]"),
        "an array of arrays": ("log.json", b"[[1], [2]]"),
        "an array that breaks off": ("log.json", b"[" + lines.replace(b"\n", b",")[:-9]),
        "brackets without end": ("log.json", b"[" * 100_000),
        "other columns": ("log.jsonl", b'{"prompt": "p", "answer": "a"}\n'),
        "other columns in a table": ("log.csv", b"prompt,answer\np,a\n"),
        "one column": ("log.csv", b"text\na\n"),
        "an endless header": ("log.csv", b"x" * 2_000_000 + b"\n"),
        "a header with a lone quote": ("log.csv", b'"context,response,edit\nc,r,e\n'),
        "lines that end with CR alone, in JSONL": ("log.jsonl", lines.replace(b"\n", b"\r")),
    }
    for name, (file, data) in refused.items():
        yield Hostile(name, file, data)

    def loop(path: Path) -> None:
        path.symlink_to(path.parent / "other")
        (path.parent / "other").symlink_to(path)

    def fifo(path: Path) -> None:
        import os

        os.mkfifo(path)

    yield Hostile("a loop of links", "log.jsonl", loop)
    yield Hostile("a link to nothing", "log.jsonl", lambda path: path.symlink_to(path.parent / "none"))
    yield Hostile("a pipe", "log.jsonl", fifo)
    yield Hostile("an empty folder", "log", lambda path: path.mkdir())
    yield Hostile("no file", "log.jsonl", lambda _: None)


def corpus() -> list[Hostile]:
    """Return all cases; no two have the same name."""
    return [*_jsonl(), *_tables(), *_parallel(), *_whole_files()]
