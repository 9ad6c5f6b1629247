"""From records to examples: which rows become which views, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest

from editloop.edits.record import Message, Record
from editloop.errors import EmptyViewError
from editloop.offline import make_examples
from editloop.offline.examples import EDIT, RESPONSE, check_window
from editloop.policy import Encoder
from tiny import tiny_tokenizer


def encoder(max_length: int = 100, **made: Any) -> Encoder:
    return Encoder(tiny_tokenizer(**made), max_length)


def record(name: str, response: str, edit: str | None, **more: Any) -> Record:
    return Record(id=name, context=more.pop("context", "say it"), response=response, edit=edit, **more)


def test_edited_accepted_pending_and_expired_rows() -> None:
    made = encoder()
    found = make_examples(
        [
            record("edited", "abc", "abd"),
            record("accepted", "abc", "abc"),
            record("pending", "abc", None),
            record("expired", "abc", None, status="expired"),
            record("deleted", "abc", ""),
        ],
        made,
    )
    assert [e.id for e in found.examples] == ["edited", "accepted", "deleted"]
    assert [e.is_pair for e in found.examples] == [True, False, True]
    assert [e.id for e in found.pairs] == ["edited", "deleted"]
    edited, accepted, deleted = found.examples
    assert edited.tree.context == made.prompt("say it")
    assert edited.tree.continuations == (made.continuation("abd"), made.continuation("abc"))
    assert accepted.tree.continuations == (made.continuation("abc"),)
    assert deleted.tree.continuations == ((made.end,), made.continuation("abc"))
    assert found.counts == {"pending": 1, "expired": 1, "unedited: no preference": 1}
    assert (edited.edit, edited.response, edited.context) == ("abd", "abc", "say it")
    assert edited.completions.roles == {EDIT: (0,), RESPONSE: (1,)}
    assert accepted.completions.roles == {EDIT: (0,), RESPONSE: (0,)}  # one text in two roles
    for example in found.examples:
        own = example.completions
        assert (own.reference, own.cost, own.spread, example.sampled) == (None, None, None, None)


def test_supervision_alone_keeps_the_edit() -> None:
    pair, single = make_examples([record("1", "abc", "abd"), record("2", "ab", "ab")], encoder()).examples
    assert pair.completions.only(EDIT).tree.continuations == pair.tree.continuations[:1]
    assert not pair.completions.only(EDIT).is_pair
    assert single.completions.only(EDIT, RESPONSE) is single.completions
    assert single.completions.only(EDIT).tree == single.tree


def test_a_pair_that_differs_only_after_the_cut_is_counted_and_no_pair() -> None:
    found = make_examples([record("1", "abcdefghij", "abcdefghiX"), record("2", "x", "y")], encoder(12))
    assert [e.is_pair for e in found.examples] == [False, True]  # room for 5 of 11 tokens
    assert found.counts == {"pair differs only after the cut": 1, "continuation cut": 1}


def test_a_pair_that_differs_in_no_token_is_counted_and_no_pair() -> None:
    found = make_examples([record("1", "a§", "a¶")], encoder())  # both unknown to the tokenizer
    assert not found.examples[0].is_pair
    assert found.counts == {"pair differs in no token": 1}


def test_contexts_that_cannot_be_used_are_counted() -> None:
    made = encoder(20, chat=True)
    tool = (Message(role="tool", content="x"),)
    found = make_examples(
        [record("1", "a", "b", context="x" * 30), record("2", "a", "b", context=tool)], made
    )
    assert found.examples == ()
    assert found.counts == {"context too long": 1, "refused by the chat template": 1}


def test_counts_are_of_this_call() -> None:
    made = encoder(20)
    rows = [record("1", "a", "b", context="x" * 30)]
    assert make_examples(rows, made).counts == make_examples(rows, made).counts == {"context too long": 1}


@pytest.mark.parametrize("order", [1, -1])
def test_two_records_of_one_id_keep_their_own_responses(order: int) -> None:
    rows = [record("same", "abc", "abd"), record("same", "xyz", "xy"), record("same", "q", "q")][::order]
    made = encoder()
    for row, example in zip(rows, make_examples(rows, made).examples, strict=True):
        expected = [made.continuation(t) for t in dict.fromkeys([row.edit, row.response]) if t is not None]
        assert example.tree.continuations == tuple(expected)


def test_a_log_of_which_no_edit_fits_into_the_window_is_refused() -> None:
    made = encoder(12)  # a prompt "say it" of 7 tokens leaves room for 4 characters and the end token
    assert len(made.prompt("say it")) == 7
    rows = [record("1", "a", "abcde"), record("2", "a", "abcdefgh"), record("3", "a", None)]
    with pytest.raises(EmptyViewError, match=r"window of 12 tokens: '2 rows of 13 to 16 tokens'"):
        check_window(rows, make_examples(rows, made), made)
    for other in (record("4", "abcdefgh", "abcd"), record("5", "abcd", "abcd")):
        check_window([*rows, other], make_examples([*rows, other], made), made)
    check_window(rows[2:], make_examples(rows[2:], made), made)
