"""Reading logs: formats, maps, statuses, duplicates, the report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from editloop.edits import Message, Record, iter_records, parse_map, read_log
from editloop.errors import ConfigError, LogError, LogFormatError, TooManyBadRows

Write = Any
ROW = {"context": "c", "response": "a b", "edit": "a x"}


def test_jsonl(write: Write) -> None:
    path = write(
        {**ROW, "id": "1", "user": "u", "foreign": 1},
        {"messages": [{"role": "user", "content": "hi"}], "response": "r", "edit": None},
        "",
        {**ROW, "id": "3", "status": "accepted", "edit": None, "propensity": 0.5},
    )
    log = read_log(path)
    assert [record.status for record in log] == ["edited", "pending", "accepted"]
    assert log.records[0] == Record(
        **ROW, id="1", user="u"
    )  # a foreign column that is not mapped is left out
    assert log.records[1].context == (Message(role="user", content="hi"),)
    assert log.records[2].edit == "a b"
    report = log.report
    assert (len(log), report.rows_read, report.bad_rows, report.duplicates, report.format) == (
        3,
        3,
        0,
        0,
        "jsonl",
    )
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.loads(json.dumps(report.to_json()))["path"] == str(path)


@pytest.mark.parametrize("given", ["mapping", "text"])
def test_map_leads_into_nested_objects_and_lists(write: Write, given: str) -> None:
    columns = {
        "context": "turns.0.text",
        "response": "output.text",
        "edit": "final",
        "metadata.score": "scores.-1",
        "metadata.absent": "output.note",
        "user": "who.name",  # a column of that very name comes before a path
    }
    row = {"turns": [{"text": "c"}], "output": {"text": "r"}, "final": "e", "scores": [1, 2], "who.name": "u"}
    path = write(row, {**row, "output": {"text": "s", "note": "n"}, "metadata": {"own": 1}})
    text = ",".join(f"{field}={column}" for field, column in columns.items())
    first, second = read_log(path, map=columns if given == "mapping" else text)
    assert first == Record(context="c", response="r", edit="e", user="u", metadata={"score": 2})
    assert second.metadata == {"own": 1, "score": 2, "absent": "n"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("context", "each field once: 'context'"),
        ("context=a,context=b", "each field once"),
        ("context", "each field once"),
        ("metadata.x=", "no such field"),
        ("answer=text", "no such field: 'answer'"),
        ("metadata.=x", "no such field"),
    ],
)
def test_maps_that_make_no_sense(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_map(text)


def test_a_mapped_context_wins_over_native_messages(write: Write) -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "the answer"}]
    path = write({"messages": chat, "prompt": "q", "response": "r", "edit": "e"})
    assert read_log(path, map="context=prompt").records[0].context == "q"
    assert len(read_log(path).records[0].context) == 2
    mapped = write({"chat": chat, "prompt": "q", "response": "r", "edit": "e"}, name="m.jsonl")
    assert len(read_log(mapped, map="context=prompt,messages=chat").records[0].context) == 2


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_a_field_mapped_to_nothing_is_left_out(write: Write, name: str) -> None:
    rows = [{**ROW, "response": f"r{i}", "status": "approved", "id": "batch 1"} for i in range(3)]
    cells = ["context,response,edit,status,id", *(",".join(row.values()) for row in rows)]
    path = write(*(rows if name == "log.jsonl" else cells), name=name)
    with pytest.raises(TooManyBadRows):
        read_log(path)
    log = read_log(path, map="status=,id=")
    assert [record.status for record in log] == ["edited"] * 3
    assert len({record.id for record in log}) == 3
    with pytest.raises(LogFormatError, match="no context column"):
        read_log(path, map="context=")


def test_delimited_cells_are_what_the_csv_module_writes(write: Write) -> None:
    header = "context\tresponse\tedit\tuser\thter"
    path = write(header, 'c\t"a ""b""\nc"\t\'e\t\t0.5', name="log.tsv")
    (record,) = read_log(path, map="metadata.hter=hter", quote='"')
    assert record == Record(context="c", response='a "b"\nc', edit="'e", metadata={"hter": "0.5"})
    assert record.user is None


def test_an_empty_cell_is_an_empty_edit_only_where_the_status_says_edited(write: Write) -> None:
    rows = ["c,r2,,edited", "c,r3,,accepted", "c,r4,,expired", "c,r5,,pending"]
    path = write("context,response,edit,status", *rows, name="log.csv")
    assert [(record.edit, record.status) for record in read_log(path)] == [
        ("", "edited"),
        ("r3", "accepted"),
        (None, "expired"),
        (None, "pending"),
    ]


@pytest.mark.parametrize("status", ["", ",status"])
def test_what_an_empty_edit_says_is_not_guessed(write: Write, status: str) -> None:
    cells = ["", *[""] * 2, "e"]
    rows = [f"c,r{i},{cell}{',' if status else ''}" for i, cell in enumerate(cells)]
    path = write(f"context,response,edit{status}", *rows, name="m.csv")
    with pytest.raises(LogFormatError, match=r"3 of 4 edits are empty.*--empty deleted.*--empty pending"):
        read_log(path)
    deleted = read_log(path, empty="deleted")
    assert [record.edit for record in deleted] == ["", "", "", "e"]
    assert {record.status for record in deleted} == {"edited"}
    pending = read_log(path, empty="pending")
    assert [record.status for record in pending] == ["pending"] * 3 + ["edited"]
    assert deleted.report.empty_edits == pending.report.empty_edits == 3
    with pytest.raises(ConfigError, match="deleted or pending"):
        read_log(path, empty="none")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("log", ['{"context": "c", "response": "r", "edit": "e"}']),
        ("log.txt", ["context,response,edit", "c,r,e"]),
        ("log.data", ["context\tresponse\tedit", "c\tr\te"]),
    ],
)
def test_format_is_found_from_the_contents(write: Write, name: str, lines: list[str]) -> None:
    assert read_log(write(*lines, name=name)).records == (Record(context="c", response="r", edit="e"),)


def test_a_given_format_wins(write: Write) -> None:
    path = write("context\tresponse\tedit", "c\tr\te", name="log.csv")
    assert len(read_log(path, format="tsv")) == 1
    with pytest.raises(LogFormatError, match="unknown format: 'xls'"):
        read_log(path, format="xls")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_byte_order_mark_is_no_part_of_the_log(write: Write, name: str) -> None:
    rows = [json.dumps(ROW)] if name == "log.jsonl" else ["context,response,edit", "c,a b,a x"]
    assert read_log(write("\ufeff" + rows[0], *rows[1:], name=name)).records == (Record(**ROW),)


def test_duplicates_are_counted_and_the_first_is_kept(write: Write) -> None:
    rows = [{**ROW, "id": "1"}, {**ROW, "id": "2"}, {**ROW, "user": "u"}, ROW]
    log = read_log(write(*rows))
    assert [(record.id, record.user) for record in log if record.user is None] == [("1", None)]
    assert (len(log), log.report.duplicates, log.report.rows_read) == (2, 2, 4)
    kept = read_log(write(*rows), keep_duplicates=True)
    assert (len(kept), kept.report.duplicates) == (4, 2)


def test_derived_ids_do_not_depend_on_the_order(write: Write) -> None:
    rows = [{**ROW, "response": f"r{i}"} for i in range(5)]
    assert {r.id for r in read_log(write(*rows))} == {r.id for r in read_log(write(*reversed(rows)))}


def test_reading_streams(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editloop.edits.rows.HEAD_ROWS", 1)
    stream = iter_records(write(*({**ROW, "response": f"r{i}"} for i in range(10))))
    next(stream)
    assert (stream.report.rows_read, stream.report.sha256) == (1, None)
    assert len(list(stream)) == 9
    assert stream.report.rows_read == 10 and stream.report.sha256


def test_progress_is_told_and_ends_with_the_whole(write: Write) -> None:
    path = write(*({**ROW, "response": f"r{i}"} for i in range(2500)))
    reported: list[tuple[int, int]] = []
    read_log(path, progress=lambda done, total: reported.append((done, total)))
    size = path.stat().st_size
    assert len(reported) == 3 and reported[-1] == (size, size)
    assert 0 < reported[0][0] < reported[1][0] < size


def test_edit_column_may_appear_late(write: Write) -> None:
    pending = [{"context": "c", "response": f"r{i}"} for i in range(300)]
    log = read_log(write(*pending, ROW))
    assert [record.status for record in log].count("pending") == 300
    assert log.records[-1].edit == "a x"


def test_an_edit_column_is_not_needed_where_there_is_a_status(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editloop.edits.rows.HEAD_ROWS", 3)
    accepted = [{"context": "c", "response": f"r{i}", "status": "accepted"} for i in range(5)]
    assert [r.status for r in read_log(write(*accepted, ROW))] == ["accepted"] * 5 + ["edited"]
    with pytest.raises(LogFormatError, match="no edit column"):
        read_log(write(*({"context": "c", "response": f"r{i}"} for i in range(5))))


def test_parquet_reads_only_what_it_needs(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = pa.array([1_000_000], pa.timestamp("us"))
    table = {"q": ["c"], "a": [{"text": "r", "n": 1}], "final": ["e"], "vector": [[0.0] * 9], "at": at}
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(table), path)
    columns = "context=q,response=a.text,edit=final,metadata.n=a.n,metadata.at=at"
    (record,) = read_log(path, map=columns)
    assert record == Record(
        context="c", response="r", edit="e", metadata={"n": 1, "at": "1970-01-01 00:00:01"}
    )
    with pytest.raises(LogFormatError, match=r"whose columns are q, a, final, vector, at: 'b\.text'"):
        read_log(path, map="context=q,response=b.text,edit=final")


def test_the_rows_of_a_user_alone(write: Write, tmp_path: Path) -> None:
    users = ["ann", "bob", "ann", None, "cy"]
    lines = [{**ROW, "response": f"r{i}", "user": user} for i, user in enumerate(users)]
    path = write(*lines, lines[0], "{", lines[1])
    quarantine = tmp_path / "bad.jsonl"
    log = read_log(path, user="ann", max_bad_share=0.5, quarantine=quarantine)
    assert [record.response for record in log] == ["r0", "r2"]
    report = log.report
    assert (report.rows_read, report.other_users, report.dropped_duplicates, report.bad_rows) == (8, 4, 1, 1)
    assert report.rows_read == len(log) + report.bad_rows + report.dropped_duplicates + report.other_users
    assert (report.users, report.to_json()["users"]) == (("ann",), ["ann"])
    assert report.sha256 == read_log(path, max_bad_share=0.5).report.sha256
    two = read_log(path, user=["bob", "cy"], max_bad_share=0.5)
    assert [record.response for record in two] == ["r1", "r4"] and two.report.users == ("bob", "cy")
    with pytest.raises(LogError, match=r"no row of this user: \('dan',\) \(check --user"):
        read_log(path, user="dan", max_bad_share=0.5)
