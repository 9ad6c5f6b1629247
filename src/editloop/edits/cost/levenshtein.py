"""The Levenshtein distance: how many units are inserted, deleted or replaced."""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein

from editloop.edits.cost.normalised import edit_distance_family

__all__ = ["LEVENSHTEIN"]

LEVENSHTEIN = edit_distance_family(
    "levenshtein", Levenshtein.distance, ("token", "word", "char", "code"), is_aligned=True
)
