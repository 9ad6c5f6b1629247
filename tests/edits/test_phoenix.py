"""Phoenix. Rows are made by hand from `arize-phoenix-client` 3.5 and OpenInference's attributes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools import RECORDS, imported, there_and_back


def span(id: str, attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": f"node-{id}",
        "name": "ChatCompletion",
        "context": {"trace_id": f"t-{id}", "span_id": id},
        "span_kind": "LLM",
        "parent_id": None,
        "start_time": "2026-03-04T05:06:00Z",
        "end_time": "2026-03-04T05:06:02Z",
        "status_code": "OK",
        "attributes": attributes,
        **more,
    }


def annotation(of: str, text: str | None, name: str = "correction", **result: Any) -> dict[str, Any]:
    return {
        "id": f"a-{of}",
        "span_id": of,
        "name": name,
        "annotator_kind": "HUMAN",
        "result": {"label": None, "score": None, "explanation": text, **result},
        "user_id": "ann",
        "updated_at": "2026-03-05T00:00:00Z",
    }


FLAT = {
    "llm.model_name": "gpt-x",
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": "Be kind.",
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.content": "Invite Ada.",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "Dear Ada",
    "user.id": "bob",
}
NESTED = {
    "llm": {
        "model_name": "gpt-x",
        "input_messages": [{"message": {"role": "user", "content": "q"}}],
        "output_messages": [{"message": {"role": "assistant", "content": "a b"}}],
    }
}
PLAIN = {"input.value": "q", "output.value": "a b"}


def test_an_annotation_that_is_a_correction_edits_its_span(tmp_path: Path) -> None:
    rows = [
        span("1", FLAT),
        annotation("1", "Hi Ada"),
        span("2", NESTED),
        annotation("2", None, "Edit", label="a x"),
        span("3", PLAIN),
        span("4", {"output.value": '{"content": "in JSON"}', "output.mime_type": "application/json"}),
        span("5", PLAIN, span_kind="TOOL"),
        span("6", {"input.value": "q"}),
        annotation("1", "why not", "quality"),
        annotation("9", "x"),
        span("8", PLAIN),
        annotation("8", None),
    ]
    log = imported(tmp_path / "spans.jsonl", rows, "phoenix")
    assert [(each.id, each.response, each.edit, each.user, each.policy) for each in log] == [
        ("1", "Dear Ada", "Hi Ada", "ann", "gpt-x"),
        ("2", "a b", "a x", "ann", "gpt-x"),
        ("3", "a b", None, None, None),
        ("4", "in JSON", None, None, None),
    ]
    assert [each.content for each in log.records[0].context] == ["Be kind.", "Invite Ada."]  # type: ignore[union-attr]
    assert log.report.left_out == {
        "a span that is no call of a model, without a correction": 1,
        "an annotation that is no correction": 1,
    }
    assert log.report.reasons == {
        "the output holds no text": 1,
        "it corrects a draft that is not in the export": 1,
        "the correction holds no text": 1,
    }


def test_data_frames_have_flat_columns(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    row = {
        "context.span_id": "1",
        "context.trace_id": "t",
        "span_kind": "LLM",
        "name": "x",
        "attributes.llm.input_messages": [{"message.role": "user", "message.content": "q"}],
        "attributes.output.value": "a b",
    }
    (folder / "spans.json").write_text(json.dumps([row]))
    flat = {"span_id": "1", "annotation_name": "correction", "annotator_kind": "HUMAN", "explanation": "a x"}
    (folder / "annotations.jsonl").write_text(json.dumps(flat) + "\n")
    (record,) = imported(folder, None, "phoenix")
    assert (record.context[0].content, record.response, record.edit) == ("q", "a b", "a x")  # type: ignore[union-attr]


def test_there_and_back(tmp_path: Path) -> None:
    """Spans have ids of 16 digits, so the records' own go along in the metadata."""
    assert there_and_back(tmp_path, "phoenix") == RECORDS
