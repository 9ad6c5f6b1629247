"""LangSmith. Rows are made by hand from `langsmith.schemas` 0.15 and LangChain's serialised messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tools import RECORDS, imported, there_and_back

from editloop.edits.formats.messages import context_of, text_of


def lc(kind: str, content: Any) -> dict[str, Any]:
    id = ["langchain", "schema", "messages", kind]
    return {"lc": 1, "type": "constructor", "id": id, "kwargs": {"content": content, "type": "x"}}


def run(id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "trace_id": f"t-{id}",
        "name": "ChatOpenAI",
        "run_type": "llm",
        "start_time": "2026-03-04T05:06:00",
        "end_time": "2026-03-04T05:06:02",
        "inputs": {"messages": [[lc("SystemMessage", "Be kind."), lc("HumanMessage", "Invite Ada.")]]},
        "outputs": {"generations": [[{"text": "Dear Ada", "message": lc("AIMessage", "Dear Ada")}]]},
        "extra": {"metadata": {"ls_model_name": "gpt-x", "user_id": "bob"}},
        "error": None,
        **more,
    }


def feedback(of: str, correction: Any, **more: Any) -> dict[str, Any]:
    source = {"type": "app", "user_name": "ann"}
    about = {"created_at": "2026-03-05T00:00:00", "feedback_source": source}
    return {"id": f"f-{of}", "run_id": of, "key": "fix", "correction": correction, **about, **more}


def test_feedback_with_a_correction_edits_its_run(tmp_path: Path) -> None:
    rows = [
        run("1"),
        feedback("1", {"output": "Hi Ada"}),
        run("2", run_type="chain", inputs={"question": "q"}, outputs={"answer": "a b"}),
        feedback("2", "a x"),
        run("3"),
        run("4", run_type="tool"),
        run("5", error="timeout", outputs=None),
        run("6", outputs={"a": 1, "b": 2}),
        feedback("1", None, score=1),
        feedback("7", "x"),
        {"id": "e", "dataset_id": "d", "inputs": {}, "outputs": {"output": "Hey Ada"}, "source_run_id": "3"},
        {"id": "e", "dataset_id": "d", "inputs": {}, "outputs": {"output": "x"}, "source_run_id": None},
        run("8"),
        feedback("8", {"a": 1, "b": 2}),
    ]
    log = imported(tmp_path / "runs.jsonl", rows, "langsmith")
    assert [(each.id, each.response, each.edit, each.user) for each in log] == [
        ("1", "Dear Ada", "Hi Ada", "ann"),
        ("2", "a b", "a x", "ann"),
        ("3", "Dear Ada", "Hey Ada", "bob"),
    ]
    assert log.records[1].context == "q" and log.records[0].policy == "gpt-x"
    roles = [(each.role, each.content) for each in log.records[0].context]  # type: ignore[union-attr]
    assert roles == [("system", "Be kind."), ("user", "Invite Ada.")]
    assert log.report.left_out == {
        "a run that is no call of a model, without a correction": 1,
        "a run that failed": 1,
        "feedback without a correction": 1,
        "an example without a run": 1,
    }
    assert log.report.reasons == {
        "the outputs hold no text": 1,
        "it corrects a draft that is not in the export": 1,
        "the correction holds no text": 1,
    }


def test_there_and_back(tmp_path: Path) -> None:
    assert there_and_back(tmp_path, "langsmith") == RECORDS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ("", ""),
        ({"role": "assistant", "content": "a"}, "a"),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            "ab",
        ),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": {}}]}, None),
        ({"choices": [{"message": {"role": "assistant", "content": "a"}}]}, "a"),
        ({"messages": [{"type": "human", "content": "q"}, {"type": "ai", "content": "a"}]}, "a"),
        ([{"type": "ai", "data": {"content": "a"}}], "a"),
        ({"output": {"content": "a"}}, "a"),
        ({"summary": "a"}, "a"),
        ({"summary": "a", "title": "b"}, None),
        ({"n": 3}, None),
        ([], None),
        (None, None),
        (3, None),
    ],
)
def test_the_text_of_an_answer(value: Any, text: str | None) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize(
    ("value", "context"),
    [
        ("q", "q"),
        ({"question": "q"}, "q"),
        ({"a": "q", "b": 1}, '{"a": "q", "b": 1}'),
        ({"role": "human", "content": "q"}, [{"role": "user", "content": "q"}]),
        ({"messages": [{"type": "human", "content": "q"}], "k": 1}, [{"role": "user", "content": "q"}]),
        (
            [{"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}],
            [{"role": "assistant", "content": "", "tool_calls": [{"id": "c"}]}],
        ),
        (["a", "b"], '["a", "b"]'),
        (None, "null"),
    ],
)
def test_what_was_asked(value: Any, context: Any) -> None:
    assert context_of(value) == context
