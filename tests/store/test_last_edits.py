"""A user's last edits, and the preferences that were taken from them, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from editloop.store import reads, writes
from editloop.store.database import Store


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(url)
    made.open()
    yield made
    made.close()


def write(store: Store, name: str, time: float, *edits: str | None, **draft: Any) -> None:
    """A draft with its revisions; a revision that is `discarded` says so."""
    row = {"response_id": name, "time": time, "user": "ada", "context": '"ask"', "response": "draft"}
    with store.transaction() as connection:
        writes.insert_draft(connection, row | {"finish": "stop"} | draft)
        for revision, edit in enumerate(edits, 1):
            about: dict[str, Any] = {"response_id": name, "revision": revision, "time": time}
            about |= {"discarded": True} if edit == "discarded" else {"edit": edit}
            writes.insert_edit(connection, about)


def last(store: Store, limit: int = 9, *, longest: int = 100, context: int = 100) -> list[tuple[Any, ...]]:
    rows = store.read(lambda c: reads.last_edits(c, "ada", limit, longest=longest, context=context))
    return [(row.response_id, row.edit, row.revision, bool(row.changed)) for row in rows]


def test_the_last_revision_of_each_kept_draft_comes_newest_first(store: Store) -> None:
    write(store, "edited", 1.0, "first", "second")
    write(store, "accepted", 2.0, None)
    write(store, "pending", 3.0)
    write(store, "thrown away", 4.0, "first", "discarded")
    write(store, "taken back", 5.0, "discarded", "kept after all")
    write(store, "of another", 6.0, "secret", user="bob")
    write(store, "of nobody", 7.0, "secret", user=None)
    write(store, "refusal", 8.0, None, response="No.", non_answer="refusal")
    write(store, "refusal, rewritten", 9.0, "Yes.", response="No.", non_answer="refusal")
    write(store, "failed", 10.0, response=None, finish="failed")
    write(store, "as it was", 11.0, "draft")
    assert last(store) == [
        ("as it was", "draft", 1, False),
        ("refusal, rewritten", "Yes.", 1, True),
        ("taken back", "kept after all", 2, True),
        ("accepted", "draft", 1, False),
        ("edited", "second", 2, True),
    ]
    assert [row[0] for row in last(store, 2)] == ["as it was", "refusal, rewritten"]


def test_texts_that_are_too_long_are_not_read(store: Store) -> None:
    write(store, "long", 1.0, "ü" * 11)
    write(store, "just", 2.0, "ü" * 10)
    write(store, "long draft that was kept", 3.0, None, response="x" * 11)
    write(store, "long context", 4.0, "short", context='"' + "c" * 30 + '"')
    assert [row[0] for row in last(store, longest=10)] == ["long context", "just"]
    assert [row[0] for row in last(store, longest=10, context=31)] == ["just"]


def test_a_preference_is_replaced_and_goes_with_the_texts(store: Store) -> None:
    write(store, "a", 1.0, "edit")
    write(store, "b", 2.0, "edit")

    def prefer(name: str, revision: int, text: str, arm: str = "base@1") -> None:
        row = {"response_id": name, "revision": revision, "arm": arm, "text": text, "time": 1.0}
        with store.transaction() as connection:
            writes.set_preference(connection, row)

    def found(*names: str) -> set[tuple[str, int, str]]:
        rows = store.read(lambda c: reads.preferences_of(c, names, "base@1"))
        return {(row.response_id, row.revision, row.text) for row in rows}

    prefer("a", 1, "brief")
    prefer("a", 2, "brief, warm")
    prefer("a", 2, "of another policy", arm="base@2")
    prefer("b", 1, "")
    assert found("a", "b", "c") == {("a", 2, "brief, warm"), ("b", 1, "")}
    with store.transaction() as connection:
        writes.remove_texts(connection, ["a"])
    assert found("a", "b") == {("b", 1, "")}
    assert [row[0] for row in last(store)] == ["b"]
