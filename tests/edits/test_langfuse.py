"""Langfuse. Rows are made by hand from the models of the package `langfuse` 5.0.4 (api/commons, scores)."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tools import CHAT, RECORDS, imported, there_and_back

from editloop.edits import read_log
from editloop.errors import LogFormatError


def generation(id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "traceId": f"t-{id}",
        "startTime": "2026-03-04T05:06:00Z",
        "endTime": "2026-03-04T05:06:02Z",
        "type": "GENERATION",
        "name": "draft",
        "level": "DEFAULT",
        "userId": "bob",
        "input": {"messages": CHAT},
        "output": {"role": "assistant", "content": f"Dear {id}"},
        "metadata": None,
        "model": "gpt-x",
        **more,
    }


def score(of: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"s-{of}",
        "traceId": f"t-{of}",
        "observationId": of,
        "name": "output",
        "source": "ANNOTATION",
        "timestamp": "2026-03-05T00:00:00Z",
        "updatedAt": "2026-03-05T01:00:00Z",
        "authorUserId": "ann",
        "dataType": "CORRECTION",
        "value": 0,
        "stringValue": text,
        **more,
    }


def trace(id: str, **more: Any) -> dict[str, Any]:
    more = {"input": "Invite Ada.", "output": "Dear Ada", "userId": "bob", **more}
    return {"id": id, "timestamp": "2026-03-04T05:06:00Z", "name": "chat", **more}


def test_a_correction_edits_its_observation_or_its_trace(tmp_path: Path) -> None:
    rows = [
        score("o-1", "Hi o-1"),  # before its observation
        generation("o-1"),
        generation("o-2"),
        trace("t-3"),
        score("", "Hi Ada", traceId="t-3", observationId=None),
    ]
    log = imported(tmp_path / "rows.jsonl", rows, "langfuse")
    edited, pending, of_trace = log
    assert (edited.id, edited.response, edited.edit) == ("o-1", "Dear o-1", "Hi o-1")
    assert [message.content for message in edited.context] == ["Be kind.", "Invite Ada."]  # type: ignore[union-attr]
    assert (edited.user, edited.policy) == ("ann", "gpt-x")  # who corrected it, not who asked
    assert edited.time == datetime(2026, 3, 5, 1, tzinfo=UTC) and edited.metadata == {"trace_id": "t-o-1"}
    assert (pending.status, pending.user, pending.edit) == ("pending", "bob", None)
    assert (of_trace.context, of_trace.response, of_trace.edit) == ("Invite Ada.", "Dear Ada", "Hi Ada")
    assert log.report.bad_rows == 0


def test_what_gives_no_record_is_counted_with_its_reason(tmp_path: Path) -> None:
    rows = [
        generation("o-1"),
        generation("o-2", type="SPAN"),
        generation("o-3", output={"a": 1, "b": 2}),
        trace("t-4"),
        score("gone", "text"),
        {**score("o-1", ""), "dataType": "NUMERIC", "stringValue": None, "value": 1},
        {"unheard": "of"},
        {"id": "i", "datasetId": "d", "input": "q", "expectedOutput": "x", "sourceTraceId": None},
    ]
    log = imported(tmp_path / "rows.jsonl", rows, "langfuse", quarantine=tmp_path / "bad.jsonl")
    assert [record.id for record in log] == ["o-1"]
    assert log.report.reasons == {
        "the output holds no text": 1,
        "no row of Langfuse": 1,
        "it corrects a draft that is not in the export": 1,
    }
    assert log.report.left_out == {
        "a trace or a step that is no generation, without a correction": 2,
        "a score that is no correction": 1,
        "a dataset item without an expected output, or without a source": 1,
    }
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 7


def test_an_expected_output_corrects_the_source_of_the_item(tmp_path: Path) -> None:
    item = {
        "id": "i-1",
        "datasetId": "d",
        "datasetName": "fixes",
        "input": "Invite Ada.",
        "expectedOutput": {"role": "assistant", "content": "Hi Ada"},
        "sourceTraceId": "t-o-1",
        "sourceObservationId": "o-1",
        "updatedAt": "2026-03-06T00:00:00Z",
    }
    log = imported(tmp_path / "rows.jsonl", [generation("o-1"), item, score("o-1", "Hello Ada")], "langfuse")
    (record,) = log
    # The item is a day younger than the score, which is an earlier revision therefore.
    assert record.edit == "Hi Ada" and record.revisions == ("Hello Ada",)


def test_snake_case_pages_version_3_and_folders(tmp_path: Path) -> None:
    """An export to a bucket is a folder of files with the names of ClickHouse's columns."""
    folder = tmp_path / "export"
    (folder / "observations").mkdir(parents=True)
    (folder / "scores").mkdir()
    observation = {
        "id": "o-1",
        "trace_id": "t-1",
        "type": "GENERATION",
        "start_time": "2026-03-04 05:06:00",
        "end_time": "2026-03-04 05:06:02",
        "input": json.dumps(CHAT),
        "output": "Dear Ada",
        "provided_model_name": "gpt-x",
    }
    page = {"data": [observation, generation("o-2")], "meta": {"page": 1}}
    (folder / "observations" / "1.json.gz").write_bytes(gzip.compress(json.dumps(page, indent=1).encode()))
    first = {
        "id": "s-1",
        "trace_id": "t-1",
        "observation_id": "o-1",
        "name": "output",
        "data_type": "CORRECTION",
        "value": 0,
        "string_value": "Hi Ada",
    }
    third = {
        "id": "s-2",
        "name": "output",
        "dataType": "CORRECTION",
        "value": "Hi o-2",
        "subject": {"kind": "observation", "id": "o-2", "traceId": "t-o-2"},
    }
    (folder / "scores" / "1.json").write_text(json.dumps([first, third]))
    (folder / "README.txt").write_text("exported on Monday")
    log = imported(folder, None, "langfuse")
    assert [(each.response, each.edit, each.policy) for each in log] == [
        ("Dear Ada", "Hi Ada", "gpt-x"),
        ("Dear o-2", "Hi o-2", "gpt-x"),
    ]
    assert log.report.sha256


def test_csv_has_json_in_its_cells(tmp_path: Path) -> None:
    text = "id,traceId,type,name,startTime,input,output\n"
    text += (
        'o,t,GENERATION,n,2026-03-04,"[{""role"": ""user"", ""content"": ""q""}]","{""content"": ""a, b""}"\n'
    )
    (record,) = imported(tmp_path / "rows.csv", text, "langfuse")
    assert record.response == "a, b" and record.context[0].content == "q"  # type: ignore[union-attr]


def test_there_and_back(tmp_path: Path) -> None:
    assert there_and_back(tmp_path, "langfuse") == RECORDS


def test_the_wrong_format_says_which_ones_it_looks_like(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(generation("o-1")) + "\n")
    with pytest.raises(
        LogFormatError, match=r"no export of Argilla: .*looks like langfuse: --format langfuse"
    ):
        read_log(path, format="argilla")
    with pytest.raises(LogFormatError, match=r"no context.*looks like langfuse.*--format langfuse"):
        read_log(path)


def test_a_correction_of_a_conversation_that_ends_with_its_answer_is_bad(tmp_path: Path) -> None:
    chat = [*CHAT, {"role": "assistant", "content": "Dear o-1"}]
    log = imported(tmp_path / "rows.jsonl", [generation("o-1", input=chat)], "langfuse")
    assert not len(log) and "the context holds the answer" in next(iter(log.report.reasons))
