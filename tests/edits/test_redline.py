"""The redline: an edit as stretches of words, which together make up both texts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.edits import redline

TEXTS = st.text(alphabet="ab \n.,é", max_size=30)


@pytest.mark.parametrize(
    ("response", "edit", "expected"),
    [
        ("Hi Ada", "Hi Ada", [("kept", "Hi Ada")]),
        ("", "", []),
        ("", "new", [("inserted", "new")]),
        ("old", "", [("deleted", "old")]),
        ("Dear Ada,", "Hi Ada,", [("deleted", "Dear"), ("inserted", "Hi"), ("kept", " Ada,")]),
        ("Hi Ada!", "Hi Ada.", [("kept", "Hi Ada"), ("deleted", "!"), ("inserted", ".")]),
        # Words that were replaced one after the other are read as one change.
        ("a b c", "x y c", [("deleted", "a b"), ("inserted", "x y"), ("kept", " c")]),
    ],
)
def test_spans_of_small_edits(response: str, edit: str, expected: list[tuple[str, str]]) -> None:
    assert redline(response, edit) == expected


@given(TEXTS, TEXTS)
def test_spans_are_both_texts(response: str, edit: str) -> None:
    spans = redline(response, edit)
    assert "".join(span.text for span in spans if span.kind != "inserted") == response
    assert "".join(span.text for span in spans if span.kind != "deleted") == edit
    assert all(span.text for span in spans)
    kinds = [span.kind for span in spans]
    assert all(a != b for a, b in itertools.pairwise(kinds))
    assert all(pair != ("inserted", "deleted") for pair in itertools.pairwise(kinds))
