"""Argilla. Records are made by hand as `GenericIO` of the package `argilla` 2.8 writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools import CHAT, RECORDS, imported, there_and_back


def record(id: str, responses: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "fields": {"prompt": "Invite Ada."},
        "metadata": {},
        "suggestions": {
            "answer": {"value": "Dear Ada", "score": None, "agent": "gpt-x"},
            "rating": {"value": 3, "score": None, "agent": None},
        },
        "responses": {"answer": responses, "rating": [{"value": 5, "user_id": "u-1"}]},
        "vectors": {},
        "status": "completed",
        "_server_id": f"s-{id}",
        **more,
    }


def said(value: Any, user: str = "u-1", **more: Any) -> dict[str, Any]:
    return {"value": value, "user_id": user, **more}


def test_each_response_is_an_edit_of_the_suggestion(tmp_path: Path) -> None:
    two = {"a": {"value": "x"}, "b": {"value": "y"}}
    rows = [
        record("1", [said("Hi Ada")]),
        record("2", [said("Hi Ada"), said("Dear Ada", "u-2")], fields={"chat": CHAT, "notes": None}),
        record("3", []),
        record("4", [said(["a"])]),
        record("5", [], suggestions=two),
        record("6", [], suggestions={}),
        record("7", [said("x")], fields={"a": "1", "b": "2"}),
    ]
    log = imported(tmp_path / "records.json", rows, "argilla")
    assert [(each.id, each.edit, each.user, each.status) for each in log] == [
        ("1", "Hi Ada", "u-1", "edited"),
        ("2:u-1", "Hi Ada", "u-1", "edited"),
        ("2:u-2", "Dear Ada", "u-2", "accepted"),
        ("3", None, None, "pending"),
        ("7", "x", "u-1", "edited"),
    ]
    assert {each.policy for each in log} == {"gpt-x"}
    assert log.records[4].context == '{"a": "1", "b": "2"}'
    assert log.report.reasons == {
        "a response that is no text": 1,
        "suggestions of text for several questions": 1,
        "no suggestion of text": 1,
    }


def test_flat_records_say_which_responses_were_submitted(tmp_path: Path) -> None:
    row = {
        "id": "1",
        "status": "completed",
        "_server_id": "s",
        "prompt": "Invite Ada.",
        "answer.suggestion": "Dear Ada",
        "answer.suggestion.agent": "gpt-x",
        "answer.suggestion.score": None,
        "answer.responses": ["Hi Ada", "Hi A", "x"],
        "answer.responses.users": ["u-1", "u-2", "u-3"],
        "answer.responses.status": ["submitted", "draft", "discarded"],
    }
    log = imported(tmp_path / "flat.jsonl", [row], "argilla")
    assert [(each.context, each.edit, each.user, each.status) for each in log] == [
        ("Invite Ada.", "Hi Ada", "u-1", "edited"),
        ("Invite Ada.", None, "u-3", "discarded"),
    ]


def test_of_several_questions_a_map_names_one(tmp_path: Path) -> None:
    suggestions = {name: {"value": f"the {name}"} for name in ("title", "body")}
    row = record("1", [], suggestions=suggestions) | {"responses": {"title": [said("A title")]}}
    mapped = "context=fields.prompt,response=suggestions.title.value,edit=responses.title.0.value,status="
    (found,) = imported(tmp_path / "records.jsonl", [row], "jsonl", map=mapped)
    assert (found.response, found.edit) == ("the title", "A title")


def test_there_and_back(tmp_path: Path) -> None:
    assert there_and_back(tmp_path, "argilla") == RECORDS
