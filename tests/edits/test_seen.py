"""The hash of a row depends on its content only, not on its file, its order or its white space."""

from __future__ import annotations

from editloop.edits import Message, Record, row_hashes


def made(**changes: object) -> Record:
    return Record.model_validate({"context": "notes", "response": "a draft", "edit": "the edit"} | changes)


def test_who_and_where_a_row_is_makes_no_difference() -> None:
    one = row_hashes([made(id="1")])
    assert row_hashes([made(id="2", user="ada", policy="sft", metadata={"k": 1})]) == one
    assert row_hashes([made(context=" notes\n", edit="the   edit")]) == one
    composed, decomposed = made(edit="caf\u00e9"), made(edit="cafe\u0301")
    assert row_hashes([composed]) == row_hashes([decomposed]) != one


def test_every_part_of_a_row_counts() -> None:
    chat = (Message(role="user", content="notes"),)
    rows = [
        made(),
        made(context="note"),
        made(response="a draft."),
        made(edit="the edit."),
        made(edit=""),
        made(edit=None),
        made(edit="a draft"),
        made(context=chat),
        made(context=(Message(role="system", content="notes"),)),
        made(context="notes a draft", response="x"),
    ]
    assert len(set(row_hashes(rows).tolist())) == len(rows)
    assert row_hashes([]).tolist() == []
