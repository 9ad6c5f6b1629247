"""What drafts cost that were cut: numbers by hand, and that no cut draft beats one that came to its end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.edits import get_cost
from editloop.edits.cost import PAPER_COST, charge_unfinished

TEXTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # By their texts 1/2, 1/2 and 0; the last two were cut.
        ("alignment:word", [0.5, 1.0, 1.0]),
        ("levenshtein:word/longest", [0.5, 1.0, 1.0]),
        # A cost that can exceed 1 is not lowered to it: "c d" to "a b x y z" costs 2.5.
        (PAPER_COST, [0.5, 1.0, 2.5]),
        # Without a scale: what writing the edit anew costs, which is its number of words.
        ("levenshtein:word/none", [1.0, 2.0, 5.0]),
    ],
)
def test_costs_by_hand(name: str, expected: list[float]) -> None:
    cost = get_cost(name)
    last = "a b x y z" if cost.scale is None or not cost.bounded else "c d"
    drafts, edits = ["a b", "a b", "c d"], ["a c", "a c", last]
    found = charge_unfinished(cost, cost(drafts, edits), [True, False, False], edits)
    assert found.tolist() == expected


def test_estimated_costs_are_charged_and_not_changed_in_place() -> None:
    estimated = np.array([0.2, 0.3])
    assert charge_unfinished(get_cost(), estimated, [False, True], ["a", "b"]).tolist() == [1.0, 0.3]
    assert estimated.tolist() == [0.2, 0.3]


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_no_draft_that_was_cut_beats_one_that_ends(cut: str, ending: str, edit: str, more: str) -> None:
    cost, drafts = get_cost(), [f"{cut} {more}", ending]
    costs = charge_unfinished(cost, cost(drafts, [edit, edit]), [False, True], [edit, edit])
    assert costs[1] <= costs[0] <= 1
