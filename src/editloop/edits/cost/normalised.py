"""Edit distances by unit and normaliser: what `levenshtein` and `ter` have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits.cost.base import Cost, CostFamily, Tokenize
from editloop.errors import CostError

__all__ = ["UNITS", "edit_distance_family", "in_units", "plural"]

Distance = Callable[[Sequence[Any], Sequence[Any]], int]
"""The number of edits between two sequences of units."""

UNITS = {"word": "word", "char": "character", "token": "token", "code": "token of code"}
"""The units: in the names of costs, and as people call them."""

NORMALISERS: Mapping[str, tuple[Distance, str]] = {
    "response": (lambda response, edit: len(response) or 1, "the draft"),
    "edit": (lambda response, edit: len(edit) or 1, "the edit"),
    "longest": (lambda response, edit: max(len(response), len(edit), 1), "the longer text"),
    "none": (lambda response, edit: 1, ""),
}
"""What a distance is divided by, which is at least 1, and what a label calls it."""


def edit_distance_family(family: str, distance: Distance, units: Sequence[str]) -> CostFamily:
    """Return the costs `FAMILY:UNIT/NORMALISER` of one distance.

    Args:
        family: The beginning of the names.
        distance: Counts the edits between two sequences. It is never more than the length of the longer one,
            which makes `longest` a bounded cost.
        units: The names of `UNITS` that it can count.
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
                divisors.append(divisor(response, edit))
            return np.array(counts, np.float64) / np.array(divisors, np.float64)

        counted = UNITS[unit]
        return Cost(
            name,
            distances,
            unit=counted,
            normaliser=normaliser,
            scale=None if normaliser == "none" else 1.0,
            bounded=normaliser == "longest",
            label=f"{plural(unit)} changed" + (f" per {counted} of {of}" if of else ""),
        )

    return CostFamily(f"{family}:{'|'.join(units)}/{'|'.join(NORMALISERS)}", make)


_CODE = re.compile(r"\n *|\w+|[^\w\s]")
"""A name or a number, a mark, or a line break with the indentation after it."""


def plural(unit: str) -> str:
    """Return what several of a unit are called."""
    first, *rest = UNITS[unit].split(" ")
    return " ".join([f"{first}s", *rest])


def in_units(texts: Sequence[str], unit: str, tokenize: Tokenize | None) -> Iterable[Sequence[Any]]:
    """Return the texts as sequences of units; a string is a sequence of its characters already.

    Raises:
        CostError: The unit is `token`, and there is no tokenizer.
    """
    if unit == "word":
        return map(str.split, texts)
    if unit == "char":
        return texts
    if unit == "code":
        return map(_CODE.findall, texts)
    if tokenize is None:
        raise CostError(
            "the unit token needs the policy's tokenizer", do="give tokenize=, or use the unit word"
        )
    return tokenize(list(texts))
