"""Which tokens an edit changed, and what they count: alignments by hand, and what every alignment keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.offline import Completions
from editloop.offline.methods.changes import changed_tokens, weighted
from editloop.policy import ContextTree

TOKENS = st.lists(st.integers(0, 4), max_size=12)


def marks(edit: str, response: str) -> tuple[str, str]:
    """The changed letters of both, the copied ones as dots."""
    new, old = changed_tokens([*map(ord, edit)], [*map(ord, response)])

    def shown(text: str, flags: list[bool]) -> str:
        return "".join(letter if each else "." for letter, each in zip(text, flags, strict=True))

    return shown(edit, new), shown(response, old)


@pytest.mark.parametrize(
    ("edit", "response", "new", "old"),
    [
        ("abXde", "abcde", "..X..", "..c.."),  # replaced
        ("abcXYde", "abcde", "...XY..", "....."),  # inserted
        ("abe", "abcde", "...", "..cd."),  # deleted
        ("Xabc", "abc", "X...", "..."),
        ("abc", "abc", "...", "..."),
        ("", "abc", "", "abc"),
        ("abc", "", "abc", ""),
    ],
)
def test_changed_tokens_by_hand(edit: str, response: str, new: str, old: str) -> None:
    assert marks(edit, response) == (new, old)


@given(TOKENS, TOKENS)
def test_what_is_copied_is_the_same_text_on_both_sides(edit: list[int], response: list[int]) -> None:
    new, old = changed_tokens(edit, response)
    copied = [token for token, is_changed in zip(edit, new, strict=True) if not is_changed]
    assert copied == [token for token, is_changed in zip(response, old, strict=True) if not is_changed]


def test_weights_stand_at_the_continuations_of_their_roles() -> None:
    tree = ContextTree((1,), ((5, 6, 7), (5, 9, 7), (8,)))
    own = Completions(tree, {"response": (0,), "edit": (1,), "sampled": (2,)}, (-1.0, -2.0, -3.0))
    found = weighted(own, changed=2.0, copied=0.5, roles=("edit", "response"))
    assert found.tree.continuations == ((5, 6, 7), (5, 9, 7))
    assert found.tree.weights == ((0.5, 2.0, 0.5), (0.5, 2.0, 0.5))
    assert found.reference is None  # that of all tokens would be another number
    assert found.with_reference((-1.0, -2.0)).only("edit").tree.weights == ((0.5, 2.0, 0.5),)
    alone = weighted(own, changed=2.0, copied=0.5, roles=("edit",))
    assert alone.tree.continuations == ((5, 9, 7),) and alone.roles == {"edit": (0,)}
    assert alone.tree.weights == ((0.5, 2.0, 0.5),)


def test_an_edit_that_is_its_response_is_copied_in_whole() -> None:
    own = Completions(ContextTree((1,), ((5, 6),)), {"response": (0,), "edit": (0,)})
    assert weighted(own, changed=2.0, copied=1.0, roles=("edit",)).tree.weights == ((1.0, 1.0),)
