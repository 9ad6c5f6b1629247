"""Which tokens an edit changed: the alignment of the edit with the response, as weights of their tokens.

A user who replaces one word of a long draft says something about that word, and little about the words that
they left. Losses that read the edit count the changed tokens alone, or more than the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from editloop.offline.examples import EDIT, RESPONSE, Completions
from editloop.policy import ContextTree

__all__ = ["changed_tokens", "weighted"]


def changed_tokens(edit: Sequence[int], response: Sequence[int]) -> tuple[list[bool], list[bool]]:
    """Return which tokens of an edit, and which of its response, are not copied from one to the other.

    Args:
        edit: Token ids of the edit [n].
        response: Token ids of the response [m].

    Returns:
        For each token whether it was inserted or replaces another [n]; and whether it was deleted or replaced
        [m]. The alignment is one with the fewest changes.
    """
    new, old = [True] * len(edit), [True] * len(response)
    for part in Levenshtein.opcodes(response, edit):
        if part.tag == "equal":
            old[part.src_start : part.src_end] = [False] * (part.src_end - part.src_start)
            new[part.dest_start : part.dest_end] = [False] * (part.dest_end - part.dest_start)
    return new, old


def weighted(completions: Completions, *, changed: float, copied: float, roles: Sequence[str]) -> Completions:
    """Return completions whose tokens count by whether the user changed them, without log π_ref.

    An edit that is its response has no changed tokens; all of its tokens are copied.

    Args:
        completions: The edit and the response.
        changed: The weight of a changed token.
        copied: The weight of a copied one.
        roles: The roles of the completions to return.
    """
    both = completions.only(EDIT, RESPONSE)
    continuations, edit, response = both.tree.continuations, both.of(EDIT), both.of(RESPONSE)
    new, old = changed_tokens(continuations[edit], continuations[response])
    marks = {response: old, edit: new}
    weights = tuple(tuple(changed if each else copied for each in marks[i]) for i in range(len(both)))
    return Completions(ContextTree(both.tree.context, continuations, weights), both.roles).only(*roles)
