"""The redline: an edit as stretches of words, which together make up both texts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.edits import count_changes, redline
from editloop.edits.cost import steps
from editloop.edits.cost.alignment import Alignment, align
from editloop.edits.cost.steps import Step, alignment_steps

TEXTS = st.text(alphabet="ab \n.,é", max_size=30)
UNITS = st.lists(st.sampled_from("abc"), max_size=9)


@pytest.mark.parametrize(
    ("response", "edit", "expected"),
    [
        ("Hi Ada", "Hi Ada", [("kept", "Hi Ada")]),
        ("", "", []),
        ("", "new", [("inserted", "new")]),
        ("old", "", [("deleted", "old")]),
        ("Dear Ada,", "Hi Ada,", [("deleted", "Dear"), ("inserted", "Hi"), ("kept", " Ada,")]),
        # A word is what white space separates, as in the cost.
        ("Hi Ada!", "Hi Ada.", [("kept", "Hi "), ("deleted", "Ada!"), ("inserted", "Ada.")]),
        # Words that were replaced one after the other are read as one change.
        ("a b c", "x y c", [("deleted", "a b"), ("inserted", "x y"), ("kept", " c")]),
        # One kept word is worth more than two replaced ones.
        ("a b", "x a", [("inserted", "x"), ("inserted", " "), ("kept", "a"), ("deleted", " b")]),
        # White space that changes costs nothing, and is shown.
        (
            "a b\n",
            "a\nb",
            [("kept", "a"), ("deleted", " "), ("inserted", "\n"), ("kept", "b"), ("deleted", "\n")],
        ),
    ],
)
def test_spans_of_small_edits(response: str, edit: str, expected: list[tuple[str, str]]) -> None:
    joined = [
        (kind, "".join(text for _, text in group))
        for kind, group in itertools.groupby(expected, key=lambda span: span[0])
    ]
    assert redline(response, edit) == joined


@given(TEXTS, TEXTS)
def test_spans_are_both_texts(response: str, edit: str) -> None:
    spans = redline(response, edit)
    assert "".join(span.text for span in spans if span.kind != "inserted") == response
    assert "".join(span.text for span in spans if span.kind != "deleted") == edit
    assert all(span.text for span in spans)
    kinds = [span.kind for span in spans]
    assert all(a != b for a, b in itertools.pairwise(kinds))
    assert all(pair != ("inserted", "deleted") for pair in itertools.pairwise(kinds))


def counts(found: list[Step]) -> Alignment:
    return Alignment(
        kept=sum(step.kept for step in found),
        replaced=sum(None not in (step.response, step.edit) and not step.kept for step in found),
        deleted=sum(step.edit is None for step in found),
        inserted=sum(step.response is None for step in found),
    )


@pytest.mark.parametrize("most", [steps.MOST_CELLS, 10])
@given(response=UNITS, edit=UNITS)
def test_the_steps_are_those_that_the_cost_counts(most: int, response: list[str], edit: list[str]) -> None:
    """Also where texts are halved, which a table of ten cells makes of nearly all of these."""
    before, steps.MOST_CELLS = steps.MOST_CELLS, most
    try:
        found = alignment_steps(response, edit)
    finally:
        steps.MOST_CELLS = before
    assert counts(found) == align(response, edit)
    assert [step.response for step in found if step.response is not None] == list(range(len(response)))
    assert [step.edit for step in found if step.edit is not None] == list(range(len(edit)))
    for step in found:
        if step.response is not None and step.edit is not None:
            assert step.kept == (response[step.response] == edit[step.edit])


def test_of_equally_good_alignments_the_one_of_the_rule_is_shown() -> None:
    """The beginning is kept first, then the end; in between, from the end, rather replaced than deleted."""
    assert alignment_steps("aa", "a") == [Step(0, 0, True), Step(1, None)]
    assert alignment_steps("xaay", "zaw") == [Step(0, None), Step(1, 0), Step(2, 1, True), Step(3, 2)]


def test_counts_in_a_line() -> None:
    found = count_changes("Dear Ada the demo is on", "Hi Ada the demo is on Friday")
    assert found.in_words() == "1 replaced, 0 deleted, 1 inserted of 6 words"
    assert count_changes("a", "").in_words() == "0 replaced, 1 deleted, 0 inserted of 1 word"
