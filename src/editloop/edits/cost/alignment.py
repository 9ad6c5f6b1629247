"""What an edit took away of a draft, and what it had to add, as a share: (S + D + w I) / (|y| + w I).

S, D and I are the replaced, deleted and inserted units of an alignment, and w is a quarter. The cost lies in
[0, 1]. It is 1 if nothing of the draft was kept, however long draft and edit are: an empty draft and one that
rambles cost the same. What people take away says more about a draft than what they add: someone who adds
what the model could not know leaves the rest as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from editloop.edits.cost.base import Cost, CostFamily, Tokenize
from editloop.edits.cost.breakdown import AlignedCost, Alignment, UnitPrices
from editloop.edits.cost.steps import INVERSE_WEIGHT, alignment_weights
from editloop.edits.cost.units import UNITS, in_units, plural

__all__ = ["ALIGNMENT", "Alignment", "align"]


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


def _prices(found: Alignment) -> UnitPrices:
    """Return what a unit costs that was replaced, deleted or inserted: 1 and w, over |y| + w I."""
    lengths = INVERSE_WEIGHT * (found.kept + found.replaced + found.deleted) + found.inserted
    taken = INVERSE_WEIGHT / lengths if lengths else 0.0
    return UnitPrices(taken, taken, taken / INVERSE_WEIGHT)


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
        breakdown=AlignedCost(rest, _prices, tokenize=tokenize),
    )


ALIGNMENT = CostFamily(f"alignment:{'|'.join(UNITS)}", _make)
