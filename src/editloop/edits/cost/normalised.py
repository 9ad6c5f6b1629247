"""Edit distances by unit and normaliser: what `levenshtein` and `ter` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits.cost.base import Cost, CostFamily, Tokenize
from editloop.edits.cost.breakdown import AlignedCost, Alignment, UnitPrices
from editloop.edits.cost.units import UNITS, in_units, plural

__all__ = ["edit_distance_family"]

Distance = Callable[[Sequence[Any], Sequence[Any]], int]
"""The number of edits between two sequences of units."""

NORMALISERS: Mapping[str, tuple[Callable[[int, int], int], str]] = {
    "response": (lambda response, edit: response or 1, "the draft"),
    "edit": (lambda response, edit: edit or 1, "the edit"),
    "longest": (lambda response, edit: max(response, edit, 1), "the longer text"),
    "none": (lambda response, edit: 1, ""),
}
"""What a distance is divided by, given the lengths of draft and edit; and what a label calls it."""


def edit_distance_family(
    family: str, distance: Distance, units: Sequence[str], *, is_aligned: bool = False
) -> CostFamily:
    """Return the costs `FAMILY:UNIT/NORMALISER` of one distance.

    Args:
        family: The beginning of the names.
        distance: Counts the edits between two sequences. It is never more than the length of the longer one,
            which makes `longest` a bounded cost.
        units: The names of `UNITS` that it can count.
        is_aligned: Whether each edit is a unit that is replaced, deleted or inserted in its place, so that
            the parts of a cost can be shown.
    """

    def make(name: str, rest: str, tokenize: Tokenize | None) -> Cost | None:
        unit, _, normaliser = rest.partition("/")
        if unit not in units or normaliser not in NORMALISERS:
            return None
        divisor, of = NORMALISERS[normaliser]

        def distances(responses: Sequence[str], edits: Sequence[str]) -> NDArray[np.float64]:
            # One call per pair, not RapidFuzz's cpdist over all: measured 1.7 times as fast on word lists, as
            # the words of a pair are still in the processor's cache. See the benchmark cost-speed.
            counts, divisors = [], []
            pairs = zip(in_units(responses, unit, tokenize), in_units(edits, unit, tokenize), strict=True)
            for response, edit in pairs:
                counts.append(distance(response, edit))
                divisors.append(divisor(len(response), len(edit)))
            return np.array(counts, np.float64) / np.array(divisors, np.float64)

        def prices(found: Alignment) -> UnitPrices:
            each = 1 / divisor(found.in_response, found.in_edit)
            return UnitPrices(each, each, each)

        counted = UNITS[unit]
        return Cost(
            name,
            distances,
            unit=counted,
            normaliser=normaliser,
            scale=None if normaliser == "none" else 1.0,
            bounded=normaliser == "longest",
            label=f"{plural(unit)} changed" + (f" per {counted} of {of}" if of else ""),
            breakdown=AlignedCost(unit, prices, (1, 1, 1), tokenize) if is_aligned else None,
        )

    return CostFamily(f"{family}:{'|'.join(units)}/{'|'.join(NORMALISERS)}", make)
