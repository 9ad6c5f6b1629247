"""Responses that are strings, the distances between them, and the edits from one to its neighbours."""

from __future__ import annotations

from itertools import product

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from editloop.errors import WorldError
from editloop.theory.distributions import Floats, check_distance, check_size

__all__ = ["abstract_distances", "edit_distances", "neighbours", "strings"]


def strings(alphabet: str, longest: int) -> tuple[str, ...]:
    """Return all strings of 1 to `longest` letters, the short ones first.

    Raises:
        WorldError: There are none, or too many to enumerate.
    """
    letters = "".join(dict.fromkeys(alphabet))
    if not letters or longest < 1:
        raise WorldError(
            "there are no such strings", seen=(alphabet, longest), do="give letters and a length"
        )
    check_size(sum(len(letters) ** length for length in range(1, min(longest, 64) + 1)))
    return tuple("".join(each) for n in range(1, longest + 1) for each in product(letters, repeat=n))


def edit_distances(responses: tuple[str, ...], *, normalised: bool = False) -> Floats:
    """Return the Levenshtein distances in letters [m, m].

    Args:
        responses: The responses.
        normalised: Whether to divide by the length of the response that is edited, which is the row's.
    """
    distance: Floats = cdist(responses, responses, scorer=Levenshtein.distance, dtype=np.float64)
    return distance / np.array([len(each) for each in responses])[:, None] if normalised else distance


def abstract_distances(m: int, rng: np.random.Generator) -> Floats:
    """Return the distances between m points drawn in a square, at most 1 [m, m]."""
    points = rng.random((m, 2)) / np.sqrt(2)  # a square whose diagonal is 1
    distance: Floats = np.linalg.norm(points[:, None] - points[None], axis=2)
    return distance


def neighbours(distance: Floats, within: float = 1.0) -> Floats:
    """Return local edits: from each response to all others within a distance, equally probable [m, m].

    Raises:
        WorldError: A response has no neighbour, or has one without being its neighbour.
    """
    distance = check_distance(distance, len(distance))
    near = (distance <= within) & ~np.eye(len(distance), dtype=bool)
    if not near.any(axis=1).all():
        alone = int((~near.any(axis=1)).argmax())
        raise WorldError("a response without neighbours cannot be edited", seen=alone, do="widen `within`")
    if (near != near.T).any():
        raise WorldError("neighbours must be mutual", do="use a symmetric distance for them")
    steps: Floats = near / near.sum(axis=1, keepdims=True)
    return steps
