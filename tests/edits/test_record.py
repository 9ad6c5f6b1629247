"""The record: what is derived, what contradicts, what is no record, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from editloop.edits import Message, Record
from editloop.edits.record import explain


@pytest.mark.parametrize(
    ("given", "status", "edit"),
    [
        ({}, "pending", None),
        ({"edit": None}, "pending", None),
        ({"edit": "draft"}, "accepted", "draft"),
        ({"edit": "better"}, "edited", "better"),
        ({"edit": ""}, "edited", ""),  # the user deleted it all
        ({"status": "accepted"}, "accepted", "draft"),
        ({"status": "expired"}, "expired", None),
        ({"status": None, "edit": "better"}, "edited", "better"),
    ],
)
def test_status_is_derived(given: dict[str, Any], status: str, edit: str | None) -> None:
    record = Record(context="c", response="draft", **given)
    assert (record.status, record.edit) == (status, edit)
    assert record.is_observed == (edit is not None)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"response": ""}, "response: empty"),
        ({"response": " \n\t"}, "response: empty"),
        ({"response": 3}, "response: not a valid string"),
        ({"response": None}, "response: missing"),
        ({"context": None}, "context: missing"),
        ({"context": 3}, "context: neither text nor a chat of {role, content} messages"),
        ({"context": []}, "a chat context without messages"),
        ({"context": [{"role": "user"}]}, "context: neither text nor a chat of {role, content} messages"),
        (
            {"context": [{"role": "user", "content": "x", "tool_calls": [1]}]},
            "context: neither text nor a chat of {role, content} messages",
        ),
        ({"edit": 3}, "edit: not a valid string"),
        ({"context": "\ud800"}, "context: lone surrogate, not valid Unicode text"),
        (
            {"context": [{"role": "user", "content": "\udfff"}]},
            "context: lone surrogate, not valid Unicode text",
        ),
        ({"response": "a\ud800"}, "response: lone surrogate, not valid Unicode text"),
        ({"edit": "a\ud800"}, "edit: lone surrogate, not valid Unicode text"),
        ({"user": "a\ud800"}, "user: lone surrogate, not valid Unicode text"),
        ({"metadata": {"a": ["\ud800"]}}, "metadata: lone surrogate, not valid Unicode text"),
        ({"metadata": {"a": float("nan")}}, "metadata: not what JSON can hold"),
        ({"status": "edited"}, "status is edited but there is no edit"),
        ({"status": "edited", "edit": "draft"}, "status is edited but the edit equals the response"),
        ({"status": "accepted", "edit": "x"}, "status is accepted but the edit differs from the response"),
        ({"status": "pending", "edit": "x"}, "status is pending but there is an edit"),
        ({"status": "expired", "edit": "draft"}, "status is expired but there is an edit"),
        ({"status": "done"}, "status: not one of edited, accepted, discarded, pending, expired"),
        ({"propensity": 0}, "propensity: not greater than 0"),
        ({"propensity": 1.01}, "propensity: not less than or equal to 1"),
        ({"propensity": float("nan")}, "propensity: not less than or equal to 1"),
        ({"logprob": 0.5}, "logprob: not less than or equal to 0"),
        ({"logprob": float("-inf")}, "logprob: not a finite number"),
        ({"time": "yesterday"}, "time: not a valid datetime or date, input is too short"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "time: outside the years 1 to 9999"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
    ],
)
def test_what_is_no_record_says_why_without_its_values(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as error:
        Record(**{"context": "c", "response": "draft", **given})
    assert explain(error.value) == reason


@pytest.mark.parametrize(
    "time",
    ["2026-01-02T03:04:05Z", "2026-01-02T05:04:05+02:00", "2026-01-02T03:04:05", 1767323045, "1767323045"],
)
def test_times_are_aware_utc(time: object) -> None:
    record = Record.model_validate({"context": "c", "response": "r", "time": time})
    assert record.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert record.time.tzinfo is UTC


def test_ids_users_and_policies_may_be_numbers_and_empty_names_are_none() -> None:
    record = Record.model_validate({"id": 7, "context": "c", "response": "r", "user": 8, "policy": ""})
    assert (record.id, record.user, record.policy) == ("7", "8", None)


@pytest.mark.parametrize(
    ("given", "name"), [(12.0, "12"), (1.5, "1.5"), (float("nan"), None), (0, "0"), (True, None)]
)
def test_numbers_are_named_as_in_csv(given: object, name: str | None) -> None:
    row = {"context": "c", "response": "r", "user": given, "id": given}
    if given is True:
        with pytest.raises(ValidationError):
            Record.model_validate(row)
        return
    record = Record.model_validate(row)
    assert record.user == name
    assert record.id == name if name else len(record.id) == 32


def test_derived_id_depends_on_the_content_alone() -> None:
    def made(**given: Any) -> str:
        return Record(**{"context": "c", "response": "r", "edit": "e", "user": "u", **given}).id

    assert made() == made(policy="p", metadata={"a": 1}, time=0)
    others = {made(context="C"), made(response="R"), made(edit="E"), made(edit=None), made(user=None)}
    assert len(others | {made()}) == 6
    chat = [{"role": "user", "content": "c"}]
    assert made(context=chat) != made()
    assert made(context=chat) == made(context=(Message(role="user", content="c"),))


def test_records_are_frozen_and_keep_what_json_keeps() -> None:
    record = Record(context="c", response="r", metadata={"when": datetime(2026, 1, 1), "pair": (1, 2)})
    assert record.metadata == {"when": "2026-01-01 00:00:00", "pair": [1, 2]}
    with pytest.raises(ValidationError, match="frozen"):
        record.edit = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("found", "texts"),
    [
        (["one", "two"], ("one", "two")),
        (["one", None, {"text": "x"}, 2, ""], ("one", "")),
        ([], ()),
        (None, ()),
        ("one", ()),
        (3, ()),
        ({"0": "one"}, ()),
    ],
)
def test_earlier_revisions_are_the_texts_of_a_list(found: object, texts: tuple[str, ...]) -> None:
    record = Record(context="c", response="r", edit="e", metadata={"revisions": found})
    assert record.revisions == texts
    assert Record(context="c", response="r").revisions == ()


def test_null_keys_of_a_message_are_dropped() -> None:
    message = Message.model_validate({"role": "user", "content": "hi", "name": None, "tool_calls": None})
    assert message == Message(role="user", content="hi")
