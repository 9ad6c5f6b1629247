"""CSV and TSV as people write them: delimiters, quotes, no header, cells that may have swallowed rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editloop.edits import Record, read_log, write_log
from editloop.errors import ConfigError, LogFormatError

Write = Any


def test_lone_quotes_of_a_tsv_fuse_no_rows(write: Write) -> None:
    path = write("context\tresponse\tedit", 'c1\t"He left\tx', 'c2\tand slept"\ty', "c3\tr\te", name="a.tsv")
    log = read_log(path)
    assert log.records == (
        Record(context="c1", response='"He left', edit="x"),
        Record(context="c2", response='and slept"', edit="y"),
        Record(context="c3", response="r", edit="e"),
    )
    assert log.report.read_as == ("TSV", "tab", "not quoted") and not log.report.suspicious


def test_a_tsv_with_quotes_is_told_and_read_when_asked(write: Write) -> None:
    path = write("context\tresponse\tedit", 'c\t"a ""b"""\te', name="a.tsv")
    plain = read_log(path)
    assert plain.records[0].response == '"a ""b"""'
    suspicious = plain.report.first_suspicious
    assert suspicious is not None and suspicious.startswith(
        "line 2: a cell in quotes was read with them (--quote"
    )
    asked = read_log(path, quote='"')
    assert asked.records[0].response == 'a "b"' and asked.report.read_as == ("TSV", "tab", "quoted")


def test_what_write_log_wrote_is_read_with_its_quotes(tmp_path: Path) -> None:
    records = (Record(context='a\t"b', response="r\nr\ts", edit="", status="edited"),)
    for name in ("a.tsv", "a.csv"):
        write_log(records, tmp_path / name)
        log = read_log(tmp_path / name)
        assert log.records == records and not log.report.suspicious


@pytest.mark.parametrize(
    ("header", "row", "delimiter"),
    [
        ("context;response;edit", "c;r, r;e", "semicolon"),
        ("context,response,edit", "c,r; r,e", "comma"),
        ("context|response|edit", "c|r, r|e", "bar"),
        ("context\tresponse\tedit", "c\tr, r\te", "tab"),
        ('"con;te;xt",context,response,edit', "x,c,r; r,e", "comma"),
    ],
)
def test_the_header_tells_the_delimiter_of_a_csv(write: Write, header: str, row: str, delimiter: str) -> None:
    log = read_log(write(header, row, name="a.csv"))
    assert log.records[0].response[:1] == "r" and log.records[0].edit == "e"
    assert log.report.read_as == ("CSV", delimiter, "quoted")


def test_delimiter_and_quote_are_taken_as_given(write: Write) -> None:
    path = write("context^response^edit", "c^'r^r'^e", name="a.csv")
    log = read_log(path, delimiter="^", quote="'")
    assert log.records == (Record(context="c", response="r^r", edit="e"),)
    assert log.report.read_as == ("CSV", "'^'", "quoted")
    unnamed = write("context^response^edit", "c^r^e", name="a.txt")
    assert read_log(unnamed, delimiter="^").records == (Record(context="c", response="r", edit="e"),)
    for wrong in ({"delimiter": "::"}, {"delimiter": "\n"}, {"quote": "''"}, {"quote": "\n"}):
        with pytest.raises(ConfigError, match="one character"):
            read_log(path, **wrong)
    with pytest.raises(ConfigError, match="cannot be the same"):
        read_log(path, delimiter='"')
    with pytest.raises(LogFormatError, match="only CSV and TSV have delimiters"):
        read_log(write({"context": "c", "response": "r", "edit": "e"}), delimiter=",")


@pytest.mark.parametrize("columns", ["context, response,edit", ["context", "response", "edit"]])
def test_a_table_without_a_header_is_given_one(write: Write, columns: Any) -> None:
    path = write("c\tr\te", "c\ts\te", name="a.tsv")
    log = read_log(path, columns=columns)
    assert [record.response for record in log] == ["r", "s"] and log.report.rows_read == 2
    assert log.report.read_as == ("TSV", "tab", "not quoted", "no header")
    with pytest.raises(LogFormatError, match="leave --columns out"):
        read_log(write("context\tresponse\tedit", "c\tr\te", name="b.tsv"), columns=columns)


def test_a_cell_that_may_have_swallowed_a_row_is_told_with_its_line(write: Write) -> None:
    path = write("context,response,edit", "c,r,e", 'c1,"He left,x', 'c2,and slept",y', name="a.csv")
    log = read_log(path)
    assert len(log) == 2 and log.report.suspicious.total() == 1
    assert log.report.first_suspicious == "line 3: a cell holds a line break and a delimiter after it"
    fine = read_log(write("context,response,edit", 'c,"two\nlines",e', name="b.csv"))
    assert not fine.report.suspicious


def test_json_in_cells_is_entered_by_a_map(write: Write) -> None:
    cell = json.dumps({"draft": {"text": "r"}, "turns": [{"role": "user", "content": "q"}]})
    path = write("data;final", f"'{cell}';e", name="a.csv")
    log = read_log(path, map="context=data.turns,response=data.draft.text,edit=final", quote="'")
    assert log.records == (Record(context=[{"role": "user", "content": "q"}], response="r", edit="e"),)
    broken = write("data;final", "{;e", name="b.csv")
    with pytest.raises(LogFormatError, match="no column for response"):
        read_log(broken, map="context=final,response=data.draft,edit=final")
