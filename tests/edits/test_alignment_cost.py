"""The alignment cost: counts and costs by hand, and what nobody can gain by writing more or less."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.edits import get_cost
from editloop.edits.cost import DEFAULT_COST, describe_cost
from editloop.edits.cost.alignment import Alignment, align

texts = st.lists(st.sampled_from("abc"), max_size=7)


@pytest.mark.parametrize(
    ("response", "edit", "counts", "cost"),
    [
        ("a b c d", "a b c d", (4, 0, 0, 0), 0.0),
        ("a b c d", "a b x d e", (3, 1, 0, 1), (1 + 1 / 4) / (4 + 1 / 4)),
        ("a b c d", "b d", (2, 0, 2, 0), 2 / 4),
        ("a b c d", "", (0, 0, 4, 0), 1.0),
        ("", "a b", (0, 0, 0, 2), 1.0),
        ("", "", (0, 0, 0, 0), 0.0),
        # One kept word is worth an insertion and a deletion, where plain Levenshtein is indifferent.
        ("a b", "x a", (1, 0, 1, 1), (1 + 1 / 4) / (2 + 1 / 4)),
        # What is only added costs little: two words to four.
        ("a b c d", "a b c d e f", (4, 0, 0, 2), (2 / 4) / (4 + 2 / 4)),
        ("a b", "x y", (0, 2, 0, 0), 1.0),
    ],
)
def test_counts_and_costs_by_hand(
    response: str, edit: str, counts: tuple[int, int, int, int], cost: float
) -> None:
    assert align(response.split(), edit.split()) == Alignment(*counts)
    assert get_cost("alignment:word")([response], [edit]).tolist() == [pytest.approx(cost)]


def every_alignment(response: list[str], edit: list[str]) -> set[Alignment]:
    """The counts of all alignments, by recursion."""
    if not response or not edit:
        return {Alignment(0, 0, len(response), len(edit))}
    found = set()
    for step, rest in (
        ((int(response[0] == edit[0]), int(response[0] != edit[0]), 0, 0), (response[1:], edit[1:])),
        ((0, 0, 1, 0), (response[1:], edit)),
        ((0, 0, 0, 1), (response, edit[1:])),
    ):
        found |= {Alignment(*map(sum, zip(step, each, strict=True))) for each in every_alignment(*rest)}
    return found


@pytest.mark.parametrize("pair", [*product(("", "a", "aba", "abcab"), ("", "b", "bab", "cabba", "aacb"))])
def test_it_is_the_alignment_that_takes_away_least(pair: tuple[str, str]) -> None:
    response, edit = map(list, pair)
    best = min(
        (4 * (a.replaced + a.deleted) + a.inserted, a.replaced) for a in every_alignment(response, edit)
    )
    found = align(response, edit)
    assert found in every_alignment(response, edit)
    assert (4 * (found.replaced + found.deleted) + found.inserted, found.replaced) == best


@given(texts, texts)
def test_it_is_bounded_and_zero_for_equal_texts_only(response: list[str], edit: list[str]) -> None:
    found = align(response, edit)
    assert 0 <= found.cost <= 1
    assert (found.cost == 0) == (response == edit)
    assert (found.cost == 1) == (found.kept == 0 and bool(response or edit))
    assert found.kept + found.replaced + found.deleted == len(response)
    assert found.kept + found.replaced + found.inserted == len(edit)


def test_neither_rambling_nor_silence_pays() -> None:
    cost, edit = get_cost("alignment:word"), "thank you for the report on friday"
    good, rambling, silence = "thanks for the report on friday", f"{edit} {'and so on ' * 40}", ""
    values = cost([good, rambling, silence], [edit] * 3).tolist()
    assert values[0] < 0.35 and values[1] > 0.9 and values[2] == 1.0
    # Divided by the draft's length, as the paper's cost is, a long draft looks as if little had been changed.
    unrelated = " ".join(f"w{i}" for i in range(70))
    assert get_cost()([unrelated], [edit])[0] == 1.0 == cost([unrelated], [edit])[0]


def test_what_it_declares() -> None:
    cost = describe_cost("alignment:char")
    assert (cost.unit, cost.scale, cost.bounded) == ("character", 1.0, True)
    assert get_cost("alignment:char")(["kitten"], ["sitting"])[0] == pytest.approx((2 + 1 / 4) / (6 + 1 / 4))
    assert describe_cost("alignment:token").unit == "token"


def test_it_is_the_default() -> None:
    assert get_cost().name == DEFAULT_COST == "alignment:word"
    assert get_cost()(["a  b\nc", "a"], ["a b x", "a b"]).tolist() == [1 / 3, 0.25 / 1.25]
