"""Bad input gives a clear error of one line or a counted bad row, and everything that can be read is read."""

from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from editloop.edits import Record, iter_records, preferences, read_log, summarize, write_log
from editloop.errors import ConfigError, LogError, LogFormatError, TooManyBadRows

Write = Any
ROW = {"context": "c", "response": "a b", "edit": "a x"}


def rows(n: int) -> list[dict[str, Any]]:
    return [{**ROW, "response": f"r{i}"} for i in range(n)]


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(LogError) as error:
        read_log(path, **options)
    assert "\n" not in str(error.value)
    return f"{type(error.value).__name__}: {error.value}"


def test_no_such_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "log.jsonl").startswith("LogError: no such log: ")


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.parquet", "log"])
@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff", "\ufeff\n"])
def test_empty_file(write: Write, name: str, content: str) -> None:
    assert "LogFormatError: the log is empty" in refused(write(content, name=name, end=b""))


def test_header_without_rows(write: Write) -> None:
    assert "the log has no rows" in refused(write("context,response,edit", name="log.csv"))


def test_directories(tmp_path: Path) -> None:
    assert "an empty folder" in refused(tmp_path)
    (tmp_path / "dataset_dict.json").write_text("{}")
    (tmp_path / "train").mkdir()
    assert "holds several datasets: ['train'] (name one of them)" in refused(tmp_path)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "state.json").write_text("{}")
    assert "this dataset folder cannot be read" in refused(damaged)
    file = tmp_path / "file"
    file.write_text("x")
    assert "a dataset is a folder, this is a file" in refused(file, format="dataset")


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16(write: Write, name: str, encoding: str) -> None:
    text = json.dumps(ROW) if name != "log.csv" else "context,response,edit\nc,a b,a x"
    log = read_log(write(text.encode(encoding), name=name, end=b""))
    assert log.records == (Record(**ROW),)
    assert log.report.read_as[0] == ("UTF-16" if encoding == "utf-16" else encoding.upper())


def test_latin_1_lines_are_bad_rows_with_their_number(write: Write, tmp_path: Path) -> None:
    good = rows(30)
    path = write(*good[:2], b'{"context": "caf\xe9", "response": "r", "edit": "e"}', *good[2:])
    report = read_log(path, quarantine=tmp_path / "bad.jsonl").report
    assert (report.bad_rows, report.first_bad) == (1, "line 3: not UTF-8 text")
    table = write("context,response,edit", "c,r,e", b"caf\xe9,r,e", name="log.csv")
    assert "1 of 2 rows are bad, more than 5%; the first at line 3: not UTF-8 text" in refused(table)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"\x1f\x8b\x08\x00data", "the gzip file is damaged"),
        (gzip.compress(b"{}" * 999, mtime=0)[:-9], "the gzip file is damaged"),
        (b"\x28\xb5\x2f\xfddata", "the zstd file is damaged"),
        (b"BZh9data", "the bzip2 file is damaged"),
        (b"\xfd7zXZ\x00data", "the xz file is damaged"),
        (b"PK\x03\x04data", "the log is a zip archive"),
    ],
)
def test_a_damaged_archive_is_told(write: Write, head: bytes, reason: str) -> None:
    assert reason in refused(write(head, end=b""))


def test_other_formats_than_the_name_says(write: Write) -> None:
    assert "the JSON array is broken at line 2" in refused(write("[", "{]"))
    assert "the log is not JSONL" in refused(write(b"PAR1xxxx"))
    assert "not a Parquet file" in refused(write("{}", name="log.parquet"))
    packed = refused(write(gzip.compress(b"{}"), name="log.parquet.gz", end=b""))
    assert "'log.parquet'" in packed  # not the temporary file that was read
    assert "neither name nor contents show" in refused(write("hello", name="log.txt"))
    assert "two columns have the same name" in refused(write("a,b,a", "1,2,3", name="log.csv"))
    assert "the header is no CSV" in refused(write('"a', "1,2", name="log.csv"))


def test_a_damaged_parquet_file_gives_what_comes_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_log((Record(context="c", response=f"response {i}") for i in range(3000)), path)
    import pyarrow.parquet as pq

    damage = pq.ParquetFile(path).metadata.row_group(2).column(3).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[damage : damage + 100] = b"\xff" * 100
    path.write_bytes(data)
    assert "LogError: the log is damaged after row 1," in refused(path)
    read: list[Record] = []
    with pytest.raises(LogError):
        for record in iter_records(path):
            read.append(record)
    assert [record.response for record in read[::500]] == [
        "response 0",
        "response 500",
        "response 1000",
        "response 1500",
    ]


def test_bad_lines_go_to_quarantine_and_the_rest_is_used(write: Write, tmp_path: Path) -> None:
    deep = '{"context": ' + "[" * 100_000 + "]" * 100_000 + "}"
    path = write(
        *rows(2),
        "{not json",  # line 3
        "[1, 2]",
        {"context": "c", "edit": "e"},
        {**ROW, "response": 5},
        {**ROW, "response": " "},
        '{"context": "c", "response": "r\\ud800", "edit": "e"}',  # line 8
        {**ROW, "status": "pending"},
        {**ROW, "id": "x"},
        {**ROW, "id": "x", "response": "other"},  # line 11
        deep,
        '{"context": "c", "context": "d", "response": "r", "edit": "e"}',  # line 13
        '{"context": "c", "response": "r", "edit": "e", "metadata": {"a": 1e400}}',
        '{"context": "c", "response": "r", "edit": "e", "propensity": NaN}',
        '{"context": "c", "response": "cut o',
        end=b"",
    )
    quarantine = tmp_path / "deep" / "bad.jsonl"
    log = read_log(path, quarantine=quarantine, max_bad_share=1.0)
    assert [record.response for record in log] == ["r0", "r1", "a b"]
    kept = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [(each["line"], each["reason"]) for each in kept] == [
        (3, "not JSON"),
        (4, "not a JSON object"),
        (5, "response: missing"),
        (6, "response: not a valid string"),
        (7, "response: empty"),
        (8, "response: lone surrogate, not valid Unicode text"),
        (9, "status is pending but there is an edit"),
        (11, "id: belongs to an earlier row with other content"),
        (12, "nested too deeply"),
        (13, "the same key twice in one JSON object"),
        (14, "a number too large for JSON readers"),
        (15, "NaN is no JSON number"),
        (16, "truncated last line"),
    ]
    assert kept[0]["row"].startswith("{not json")
    assert json.loads(kept[3]["row"])["response"] == 5
    assert all(len(each["row"]) <= 1001 for each in kept)
    report = log.report
    assert (report.rows_read, report.bad_rows, report.quarantine) == (16, 13, quarantine)
    assert report.reasons == {each["reason"]: 1 for each in kept}


def test_bad_lines_of_tables(write: Write) -> None:
    lines = ["context,response,edit", "c,r,e", "c,r", "c,r,e,x", 'c,"r"s,e', "c,r2,e2", 'c,"r3', "cut,e3"]
    log = read_log(write(*lines, name="log.csv", end=b""), max_bad_share=1.0)
    assert [record.response for record in log] == ["r", "r2"]
    assert log.report.reasons == {
        "fewer cells than the header": 1,
        "more cells than the header": 1,
        "',' expected after '\"'": 1,
        "unexpected end of data": 1,
        "truncated last line": 1,
    }
    cut = read_log(
        write("context,response,edit", "c,r,e", "c,r3", name="log.csv", end=b""), max_bad_share=1.0
    )
    assert (cut.report.first_bad, len(cut)) == ("line 3: truncated last line", 1)


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ('c,"lost,e', "unexpected end of data"),  # no other quote closes it
        ('c,"lost",e', None),
        ('c,"lost,e\nc,r8,e\nc,"r9",e', "',' expected after '\"'"),  # another row's quote does
        ('c,"lost,e\nc,r8,e\nc,r9",e,x', "more cells than the header"),
    ],
)
def test_a_lost_quote_costs_its_line_only(
    write: Write, tmp_path: Path, lost: str, reason: str | None
) -> None:
    after = ['c,"two\nlines",e', *(f"c,after{i},e" for i in range(40))]
    path = write("context,response,edit", "c,r0,e", lost, *after[1:], name="log.csv")
    log = read_log(path, quarantine=tmp_path / "bad.jsonl", max_bad_share=0.1)
    responses = [record.response for record in log]
    assert responses[0] == "r0" and responses[-39:] == [f"after{i}" for i in range(1, 40)]
    assert log.report.rows_read == len(log) + log.report.bad_rows
    if reason is None:
        assert log.report.bad_rows == 0
        return
    assert log.report.reasons[reason] >= 1 and log.report.first_bad == f"line 3: {reason}"
    assert ("r8" in responses) == ("r8" in lost)
    kept = json.loads((tmp_path / "bad.jsonl").read_text().splitlines()[0])
    assert kept["row"] == 'c,"lost,e\n'


def test_rows_of_several_lines_are_read_as_one(write: Write) -> None:
    path = write("context,response,edit", 'c,"two\n\nlines",e', "c,r", "c,r2,e", name="log.csv")
    log = read_log(path, max_bad_share=0.5)
    assert [record.response for record in log] == ["two\n\nlines", "r2"]
    assert log.report.first_bad == "line 5: fewer cells than the header"


def test_many_lost_quotes_are_read_in_time_that_grows_with_the_log(write: Write) -> None:
    lines = [f'c\t"r{i}\te' if i % 2 else f"c\tr{i}\te" for i in range(4000)]
    path = write("context\tresponse\tedit", *lines, name="log.tsv")
    log = read_log(path, max_bad_share=1.0, quote='"')
    assert (len(log), log.report.bad_rows) == (2000, 2000)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    assert "the log is a pipe or device, and it is read more than once" in refused(tmp_path / "log.jsonl")


def test_arrow_values_that_python_cannot_hold_are_bad_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def parquet(response: pa.Array, time: pa.Array) -> Path:
        texts = pa.array(["c"] * 4)
        table = pa.table({"context": texts, "response": response, "edit": texts, "time": time})
        pq.write_table(table, tmp_path / "log.parquet")
        return tmp_path / "log.parquet"

    broken = pa.array([b"r0", b"caf\xe9", b"r2", b"r3"], pa.binary()).view(pa.string())
    early = pa.array([0] * 4, pa.timestamp("us"))
    log = read_log(parquet(broken, early), max_bad_share=0.5)
    assert [record.response for record in log] == ["r0", "r2", "r3"]
    assert log.report.first_bad == "line 2: not UTF-8 text"
    far = pa.array([0, 0, 2**62, 0], pa.timestamp("us"))
    log = read_log(parquet(pa.array(["r0", "r1", "r2", "r3"]), far), max_bad_share=0.5)
    assert [record.response for record in log] == ["r0", "r1", "r3"]
    assert str(log.report.first_bad).startswith("line 3: a value out of range")


def test_more_than_a_set_share_of_bad_rows_stops_the_run(write: Write, tmp_path: Path) -> None:
    path = write(*rows(19), "{")
    assert len(read_log(path)) == 19  # 5% is not more than 5%
    quarantine = tmp_path / "bad.jsonl"
    with pytest.raises(
        TooManyBadRows, match=r"1 of 20 rows are bad, more than 1%; the first at line 20: not JSON"
    ):
        read_log(path, max_bad_share=0.01, quarantine=quarantine)
    assert len(quarantine.read_text().splitlines()) == 1
    assert "TooManyBadRows: 2 of 2 rows are bad" in refused(write("{", "}"))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        read_log(path, max_bad_share=5)


def test_no_quarantine_file_without_bad_rows(write: Write, tmp_path: Path) -> None:
    log = read_log(write(*rows(3)), quarantine=tmp_path / "bad.jsonl")
    assert log.report.quarantine is None and not (tmp_path / "bad.jsonl").exists()


def test_quarantine_must_not_be_the_log(write: Write) -> None:
    path = write(*rows(3), "{")
    with pytest.raises(ConfigError, match="would replace its own input"):
        read_log(path, quarantine=path)
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize("when", ["open", "write", "close"])
def test_no_space_for_the_quarantine_costs_no_row(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    class Full:
        def fail(self, at: str) -> None:
            if at == when:
                raise OSError(errno.ENOSPC, "No space left on device")

        def write(self, text: str) -> None:
            self.fail("write")

        def close(self) -> None:
            self.fail("close")

    path = write(*rows(38), "{", "}")
    open_path = Path.open

    def opened(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name == "bad.jsonl":
            Full().fail("open")
            return Full()
        return open_path(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    log = read_log(path, quarantine=tmp_path / "bad.jsonl")
    assert (len(log), log.report.bad_rows) == (38, 2)
    assert log.report.problem is not None
    assert log.report.problem.endswith("bad.jsonl is incomplete: No space left on device")


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_long_responses_are_fine_and_endless_lines_are_bad(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    long = "word " * 200_000  # 1 MB
    lines = [json.dumps({**ROW, "response": long})] if name == "log.jsonl" else [f"c,{long},a x"]
    header = [] if name == "log.jsonl" else ["context,response,edit"]
    path = write(*header, *lines, name=name)
    (record,) = read_log(path)
    assert record.response == long
    monkeypatch.setattr("editloop.edits.formats.lines.LONGEST_LINE", 1000)
    for module in ("jsonl", "cells"):
        monkeypatch.setattr(f"editloop.edits.formats.{module}.TOO_LONG", "too long")
    good = json.dumps(ROW) if name == "log.jsonl" else "c,r,e"
    log = read_log(write(*header, *lines, good, name=name), max_bad_share=0.5)
    assert (len(log), log.report.reasons) == (1, {"too long": 1})


def test_missing_columns_name_those_there_and_the_flag(write: Write) -> None:
    for path in (
        write({"instruction": "c", "preedit": "r", "postedit": "e"}),
        write("instruction,preedit,postedit", "c,r,e", name="log.csv"),
    ):
        message = refused(path)
        assert "no context and no response and no edit column" in message
        assert "its columns are instruction, preedit, postedit" in message
        assert "--map context=COLUMN,response=COLUMN,edit=COLUMN" in message
        message = refused(path, map="context=instruction,response=draft,edit=postedit")
        assert (
            "no column for response in the log, whose columns are instruction, preedit, postedit" in message
        )
        assert "'draft'" in message and "--map" in message


def test_a_wrong_path_into_a_nested_column(write: Write) -> None:
    path = write({"context": "c", "output": {"text": "r"}, "edit": "e"})
    with pytest.raises(LogFormatError, match=r"'output\.txt'"):
        read_log(path, map="response=output.txt")


def test_one_row_and_nothing_but_unedited_rows(write: Write) -> None:
    (record,) = read_log(write(ROW))
    assert record == Record(**ROW)
    unedited = read_log(write(*({**ROW, "response": f"r{i}", "edit": f"r{i}"} for i in range(5))))
    assert {each.status for each in unedited} == {"accepted"}
    assert preferences(unedited).dropped == {"unedited": 5}  # an error only for those who need the rows
    summary = summarize(unedited)
    assert (summary.all.share_edited, summary.all.mean_cost, summary.shared) == (0.0, 0.0, None)


def test_a_log_that_may_not_be_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(ROW)

    def denied(self: Path, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "the log cannot be read, Permission denied" in refused(path)
