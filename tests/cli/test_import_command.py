"""`editloop import` and `export`: what they print, write and send, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calling import fails
from editloop.edits import Record, read_log, write_log
from editloop.serve.api.app import create_app
from editloop.serve.backends.upstream import UpstreamBackend
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.store.database import Store
from listening import listening

ROWS = [
    {"input": {"messages": [{"role": "user", "content": f"q{i}"}]}}
    | {"preferred_output": [{"role": "assistant", "content": f"a{i} x"}]}
    | {"non_preferred_output": [{"role": "assistant", "content": f"a{i} b"}]}
    for i in range(4)
]
BAD = [{"input": {}, "preferred_output": [], "non_preferred_output": []}] * 6


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, ROWS[0], *BAD]))
    return tmp_path / "pairs.jsonl"


def test_an_export_becomes_a_log_and_every_row_is_counted(editloop, pairs: Path, tmp_path: Path) -> None:
    status, out, err = editloop("import", pairs, "out.jsonl", "--format", "openai-preference")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "read 11 rows of pairs.jsonl (OPENAI-PREFERENCE)",
        "4 records written to out.jsonl",
        f"7 rows gave no record, see {tmp_path}/out-quarantine.jsonl:",
        "  6 the input has no messages",
        "  1 a repetition of an earlier row",
    ]
    assert [record.edit for record in read_log(tmp_path / "out.jsonl")] == [f"a{i} x" for i in range(4)]
    assert len((tmp_path / "out-quarantine.jsonl").read_text().splitlines()) == 6


def test_the_way_there_and_back_by_the_command(editloop, tmp_path: Path) -> None:
    records = (Record(id="r", context="q", response="a b", edit="a x", user="ann", time=0),)
    write_log(records, tmp_path / "log.jsonl")
    status, out, _ = editloop("export", "log.jsonl", "--to", "label-studio", "--out", "tasks.json")
    assert status == 0 and "1 rows written to tasks.json" in out
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"] == {"context": "q"}
    assert editloop("import", "tasks.json", "back.jsonl", "--format", "label-studio")[0] == 0
    assert read_log(tmp_path / "back.jsonl").records == records


def test_mistakes_are_one_line_and_write_nothing(editloop, pairs: Path, tmp_path: Path) -> None:
    def mistaken(*arguments: object) -> tuple[int, str, str]:
        return editloop("import", *arguments)

    preference = ("--format", "openai-preference")
    fails(mistaken(pairs, "out.jsonl", "--format", "argilla"), "no export of Argilla", preference[1])
    fails(mistaken(pairs, "out.jsonl", "--format", "klingon"), "unknown format", "langfuse")
    fails(mistaken(pairs, pairs, *preference), "would replace its own input")
    (tmp_path / "bad.jsonl").write_text(json.dumps(BAD[0]) + "\n")
    fails(mistaken("bad.jsonl", "out.jsonl", *preference), "none of 1 rows gives a record", "no messages")
    fails(mistaken(tmp_path, "out.jsonl", "--format", "git"), "no git repository")
    both = (pairs, "out.jsonl", *preference, "--server", "http://127.0.0.1:9")
    fails(mistaken(*both), "give either OUT or --server", status=2)
    fails(mistaken(pairs, *both[2:]), "the server does not answer")
    assert not (tmp_path / "out.jsonl").exists()


def test_records_are_sent_to_a_server_and_count_once(editloop, pairs: Path, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/edits.db")
    app = create_app(FeedbackLoop(store, tmp_path / "state"), UpstreamBackend("http://127.0.0.1:9/v1"))
    with listening(app) as url:
        sent = ["import", pairs, "--format", "openai-preference", "--server", url]
        status, out, err = editloop(*sent)
        assert (status, err) == (0, "") and f"sent to {url}: 4 recorded" in out
        assert f"sent to {url}: 4 there before" in editloop(*sent)[1]
    log = read_log(f"sqlite:///{tmp_path}/edits.db")
    assert sorted(record.edit or "" for record in log) == [f"a{i} x" for i in range(4)]
