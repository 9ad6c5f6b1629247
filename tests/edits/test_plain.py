"""One log, whether it is compressed, in another encoding, one JSON array, piped, or in parallel files."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import pytest

from editloop.edits import Record, iter_records, read_log
from editloop.edits.formats import json_array
from editloop.errors import ConfigError, LogError, LogFormatError

Write = Any
LINES = [{"context": "c", "response": f"r {i}", "edit": f"é {i}"} for i in range(3)]
RECORDS = tuple(Record(**line) for line in LINES)
JSONL = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES)
CSV = "context,response,edit\n" + "".join(f"c,r {i},é {i}\n" for i in range(3))


def zstd(data: bytes) -> bytes:
    import pyarrow as pa

    return pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("suffix", "pack", "described"),
    [
        (".gz", gzip.compress, "gzip"),
        (".zst", zstd, "zstd"),
        (".bz2", bz2.compress, "bzip2"),
        (".xz", lzma.compress, "xz"),
        ("", gzip.compress, "gzip"),  # known by its contents
    ],
)
@pytest.mark.parametrize(("name", "text", "kind"), [("a.jsonl", JSONL, "JSONL"), ("a.csv", CSV, "CSV")])
def test_compressed(
    tmp_path: Path, suffix: str, pack: Any, described: str, name: str, text: str, kind: str
) -> None:
    path = tmp_path / (name + suffix)
    path.write_bytes(pack(text.encode()))
    log = read_log(path)
    assert log.records == RECORDS
    assert log.report.read_as[:2] == (described, kind)


def test_the_hash_is_of_the_file_as_it_lies_there(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(JSONL.encode()))
    assert read_log(path).report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("encoding", "described"),
    [
        ("utf-16", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("utf-16-le", "UTF-16-LE"),
        ("utf-16-be", "UTF-16-BE"),
        ("utf-32-le", "UTF-32-LE"),
        ("utf-32-be", "UTF-32-BE"),
    ],
)
@pytest.mark.parametrize(("name", "text"), [("a.jsonl", JSONL), ("a.csv", CSV), ("a", JSONL)])
def test_wide_encodings_are_seen_with_and_without_a_mark(
    write: Write, encoding: str, described: str, name: str, text: str
) -> None:
    log = read_log(write(text.encode(encoding), name=name, end=b""))
    assert log.records == RECORDS and log.report.read_as[0] == described


def test_other_encodings_are_named(write: Write) -> None:
    path = write(CSV.encode("cp1252"), name="a.csv", end=b"")
    with pytest.raises(LogError, match=r"not UTF-8 text.*--encoding, cp1252 for example"):
        read_log(path)
    log = read_log(path, encoding="cp1252")
    assert log.records == RECORDS and log.report.read_as == ("cp1252", "CSV", "comma", "quoted")
    for none in ("klingon", "rot13", "base64"):
        with pytest.raises(ConfigError, match="no such encoding"):
            read_log(path, encoding=none)
    with pytest.raises(LogFormatError, match=r"not in .*utf-?16.*--encoding"):
        read_log(write(b"abc", name="b.csv", end=b""), encoding="utf-16")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a"])
def test_a_json_array(write: Write, indent: int | None, name: str) -> None:
    log = read_log(write("\n " + json.dumps(LINES, indent=indent), name=name))
    assert log.records == RECORDS and log.report.read_as == ("JSON array", "JSONL")


def test_the_elements_of_an_array_are_judged_as_lines_are(write: Write) -> None:
    bad = ['{"a": 1, "a": 2}', "3", "NaN", '{"context": "c", "response": "r\\nr", "edit": "e"}']
    log = read_log(write("[" + ",\n".join([*bad, json.dumps(LINES[0])]) + "]"), max_bad_share=1.0)
    assert [record.response for record in log] == ["r\nr", "r 0"]
    assert list(log.report.reasons) == [
        "the same key twice in one JSON object",
        "not a JSON object",
        "NaN is no JSON number",
    ]
    behind = read_log(write("[]", *LINES, "[1]"), max_bad_share=0.5)  # lines behind an array are rows, too
    assert behind.records == RECORDS and behind.report.bad_rows == 1


@pytest.mark.parametrize("broken", ["[", '[{"a": 1}', '[{"a": 1},', '[{"a": 1} {"b": 2}]', '[{"a": 1}, x]'])
def test_nobody_can_count_what_a_broken_array_holds(write: Write, broken: str) -> None:
    with pytest.raises(LogFormatError, match="the JSON array is broken at line 1"):
        read_log(write(broken))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (JSONL.encode(), CSV.encode(), gzip.compress(JSONL.encode())):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        log = read_log("-")
        assert log.records == RECORDS and log.report.read_as[0] == "standard input"
        assert log.report.sha256


def test_parallel_files(tmp_path: Path) -> None:
    for name, lines in {"src": "a\n[b\n", "mt": "x\ny\n", "pe": "x\nz\r\n"}.items():
        (tmp_path / name).write_text(lines, encoding="utf-8", newline="")
    src, mt, pe = (tmp_path / name for name in ("src", "mt", "pe"))
    log = read_log(src, parallel=[mt, pe])
    assert log.records == (
        Record(context="a", response="x", edit="x"),
        Record(context="[b", response="y", edit="z"),
    )
    assert log.report.read_as == ("parallel lines", "JSONL")
    before = log.report.sha256
    pe.write_text("x\nw\n")
    assert read_log(src, parallel=[mt, pe]).report.sha256 != before
    pe.write_text("x\n\n")
    with pytest.raises(LogFormatError, match="1 of 2 edits are empty"):
        read_log(src, parallel=[mt, pe])
    assert read_log(src, parallel=[mt, pe], empty="deleted").records[1].edit == ""
    pe.write_text("x\n")
    with pytest.raises(LogFormatError, match="different numbers of lines: before line 2 ends: 'pe'"):
        read_log(src, parallel=[mt, pe])
    with pytest.raises(ConfigError, match="parallel files are three"):
        read_log(src, parallel=[mt])
    with pytest.raises(LogError, match="no such log"):
        read_log(src, parallel=[mt, tmp_path / "none"])


def test_parallel_files_may_be_compressed_and_in_another_encoding(tmp_path: Path) -> None:
    for name, line in {"src": "ü\n", "mt": "é\n", "pe": "è\n"}.items():
        (tmp_path / name).write_bytes(gzip.compress(line.encode("cp1252")))
    log = read_log(tmp_path / "src", parallel=[tmp_path / "mt", tmp_path / "pe"], encoding="cp1252")
    assert log.records == (Record(context="ü", response="é", edit="è"),)
    assert log.report.read_as == ("gzip", "cp1252", "parallel lines", "JSONL")


def test_temporary_files_go_with_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(JSONL.encode()))
    stream = iter_records(path)
    next(stream)
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    del stream
    assert not list((tmp_path / "tmp").iterdir())


VALUES = [
    1234567,
    -0.5e-3,
    'a, ] } " \\ é',
    {"a": [1, {"b": "x" * 40}], "c": None},
    [],
    True,
    "z",
]


@pytest.mark.parametrize("piece", [1, 2, 7, 64])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_read_in_pieces_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_array, "PIECE", piece)
    path = tmp_path / "a.json"
    path.write_text("\ufeff  " + json.dumps(VALUES, ensure_ascii=False, indent=indent) + " \n{}", "utf-8")
    lines = list(json_array.array_elements(path, "a.json"))
    elements, behind = lines[: len(VALUES)], lines[len(VALUES) :]
    assert [json.loads(line) for line in elements] == VALUES
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in elements)
    assert b"".join(behind) == b" \n{}"  # nothing behind the array is lost
    path.write_text("\n".join(json.dumps(each, indent=indent) for each in VALUES))
    assert [json.loads(line) for line in json_array.documents(path, "a.json")] == VALUES


def test_the_memory_of_an_array_is_that_of_its_longest_element(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_array, "PIECE", 100)
    path, windows = tmp_path / "a.json", []
    path.write_text(json.dumps([{"x": "y" * 150}] * 300))

    class Watched(json_array._Window):
        def value(self) -> bytes:
            windows.append(len(self._text))
            return super().value()

    monkeypatch.setattr(json_array, "_Window", Watched)
    assert len(list(json_array.array_elements(path, "a.json"))) == 301  # and nothing behind them
    assert max(windows) < 1000 < path.stat().st_size


@pytest.mark.parametrize(("text", "line"), [('[1,\n2,\n{"a": }\n]', 3), ("[1,\n\n\n2 3]", 4)])
def test_where_an_array_is_broken_is_said_across_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int
) -> None:
    monkeypatch.setattr(json_array, "PIECE", 2)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(LogFormatError, match=f"broken at line {line}"):
        list(json_array.array_elements(tmp_path / "a.json", "a.json"))


def test_a_value_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "PIECE", 10)
    monkeypatch.setattr(json_array, "LONGEST_LINE", 100)
    (tmp_path / "a.json").write_text(json.dumps(["x" * 1000]))
    with pytest.raises(LogFormatError, match="or has a value of more than"):
        list(json_array.array_elements(tmp_path / "a.json", "a.json"))


def test_documents_of_several_lines_are_rows(write: Write) -> None:
    text = "\n".join(json.dumps(line, indent=2) for line in LINES)
    log = read_log(write(text, name="a.json"))
    assert log.records == RECORDS and log.report.read_as == ("JSON documents", "JSONL")
