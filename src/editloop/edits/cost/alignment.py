"""What an edit took away of a draft, and what it had to add, as a share: (S + D + w I) / (|y| + w I).

S, D and I are the replaced, deleted and inserted units of an alignment, and w is a quarter. The cost lies in
[0, 1]. It is 1 if nothing of the draft was kept, however long draft and edit are: an empty draft and one that
rambles cost the same. What people take away says more about a draft than what they add: someone who adds
what the model could not know leaves the rest as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from editloop.edits.cost.base import Cost, CostFamily, Tokenize
from editloop.edits.cost.normalised import UNITS, in_units, plural

__all__ = ["ALIGNMENT", "Alignment", "align", "alignment_weights"]

INVERSE_WEIGHT = 4
"""1 / w: how many inserted units weigh as much as one that was taken away."""


class Alignment(NamedTuple):
    """How many units of a draft and its edit are kept, replaced, deleted and inserted."""

    kept: int
    replaced: int
    deleted: int
    inserted: int

    @property
    def cost(self) -> float:
        """(S + D + w I) / (|y| + w I), in [0, 1]; 0 if both texts are empty."""
        taken = INVERSE_WEIGHT * (self.replaced + self.deleted) + self.inserted
        return taken / (INVERSE_WEIGHT * self.kept + taken) if taken else 0.0

    def in_words(self) -> str:
        """The counts in a line: `2 replaced, 1 deleted, 3 inserted of 40 words`, those of the draft."""
        words = self.kept + self.replaced + self.deleted
        return (
            f"{self.replaced} replaced, {self.deleted} deleted, {self.inserted} inserted of "
            f"{words} word{'' if words == 1 else 's'}"
        )


def alignment_weights(shorter: int) -> tuple[int, int, int]:
    """Return what an insertion, a deletion and a replacement weigh in whole numbers.

    An insertion weighs a quarter of the others. Each weight is multiplied by more than the number of
    replacements S can be, and a replacement weighs 1 more: the least total T then also has the least S, and
    one number holds both, T M + S.

    Args:
        shorter: The length of the shorter sequence.
    """
    above = shorter + 1
    return above, INVERSE_WEIGHT * above, INVERSE_WEIGHT * above + 1


def align(response: Sequence[Any], edit: Sequence[Any]) -> Alignment:
    """Return the counts of the alignment that takes away least: the least S + D + w I, and then the least S.

    Args:
        response: The units of the draft.
        edit: The units of the edit.
    """
    # The distance holds T = 4 (S + D) + I and S. The lengths give the rest: |y| = K + S + D and
    # |y'| = K + S + I, so T = 4 (|y| - K) + |y'| - K - S.
    weights = alignment_weights(min(len(response), len(edit)))
    total, replaced = divmod(Levenshtein.distance(response, edit, weights=weights), weights[0])
    kept = (INVERSE_WEIGHT * len(response) + len(edit) - replaced - total) // (INVERSE_WEIGHT + 1)
    return Alignment(kept, replaced, len(response) - kept - replaced, len(edit) - kept - replaced)


def _make(name: str, rest: str, tokenize: Tokenize | None) -> Cost | None:
    if rest not in UNITS:
        return None

    def costs(responses: Sequence[str], edits: Sequence[str]) -> NDArray[np.float64]:
        pairs = zip(in_units(responses, rest, tokenize), in_units(edits, rest, tokenize), strict=True)
        return np.array([align(response, edit).cost for response, edit in pairs], np.float64)

    return Cost(
        name,
        costs,
        unit=UNITS[rest],
        normaliser="response",
        scale=1.0,
        bounded=True,
        label=f"share of the draft's {plural(rest)} that were taken away",
    )


ALIGNMENT = CostFamily(f"alignment:{'|'.join(UNITS)}", _make)
