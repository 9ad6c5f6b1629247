"""Distributions over finite responses: how far two of them are apart, and checks of what a world is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editloop.errors import WorldError

__all__ = [
    "LARGEST",
    "Floats",
    "as_distribution",
    "check_beta",
    "check_distance",
    "check_size",
    "kl",
    "kl_to",
    "total_variation",
]

LARGEST = 2_000
"""The most responses: larger kernels take too much memory (8 m² bytes for each context)."""

SUM = 1e-9
"""How far the sum of probabilities may be from 1."""

Floats = NDArray[np.float64]


def total_variation(p: Floats, q: Floats) -> Floats:
    """Return the total variation ½ Σ |p - q| over the last axis."""
    distance: Floats = 0.5 * np.abs(p - q).sum(axis=-1)
    return distance


def kl(p: Floats, q: Floats) -> Floats:
    """Return KL(p ‖ q) over the last axis, where 0 log 0 = 0; rounding cannot make it negative.

    Each term is p log p/q - p + q, which is at least 0; the parts -p + q sum to 0 over the axis.
    """
    with np.errstate(divide="ignore"):
        return kl_to(p, np.log(q))


def kl_to(p: Floats, log_q: Floats) -> Floats:
    """Return KL(p ‖ q) for a q that is given by its logarithms, because its probabilities may underflow."""
    log_p = np.log(np.where(p > 0, p, 1.0))
    # Where p and q are both 0, the product is 0 times infinity: NaN, which is not taken.
    with np.errstate(invalid="ignore"):
        terms = np.where(p > 0, p * (log_p - log_q), 0.0) - p + np.exp(log_q)
    divergence: Floats = np.maximum(terms, 0.0).sum(axis=-1)
    return divergence


def as_distribution(what: str, given: ArrayLike) -> Floats:
    """Return probabilities after checking that they sum to 1 over the last axis.

    Raises:
        WorldError: They do not sum to 1, or one is negative or not finite.
    """
    values = np.asarray(given, np.float64)
    if values.ndim == 0 or values.size == 0 or not np.isfinite(values).all():
        raise WorldError(f"{what} contains values that are not finite numbers")
    if (values < 0).any():
        raise WorldError(f"{what} has a negative probability", seen=float(values.min()))
    sums = values.sum(axis=-1)
    if (np.abs(sums - 1) > SUM).any():
        worst = float(sums.flat[np.abs(sums - 1).argmax()])
        raise WorldError(f"{what} does not sum to 1", seen=worst, do="normalise it")
    return values


def check_beta(beta: float) -> None:
    """Refuse a β that is not a positive number.

    Raises:
        WorldError: β is not positive.
    """
    if not (np.isfinite(beta) and beta > 0):
        raise WorldError("β must be positive: without it the optimum is not a distribution", seen=beta)


def check_distance(given: ArrayLike, m: int) -> Floats:
    """Return Δ [m, m] after checking it.

    Raises:
        WorldError: It has another shape, or is negative, not finite, or not zero without an edit.
    """
    distance = np.asarray(given, np.float64)
    if distance.shape != (m, m):
        raise WorldError("a distance has the shape [m, m]", seen=distance.shape, do=f"{(m, m)}")
    if not np.isfinite(distance).all() or (distance < 0).any() or np.diagonal(distance).any():
        raise WorldError("a distance is finite, not negative, and zero without an edit")
    return distance


def check_size(m: int) -> None:
    """Refuse a world that cannot be enumerated.

    Raises:
        WorldError: It has more than `LARGEST` responses.
    """
    if m > LARGEST:
        raise WorldError(
            f"too large to enumerate: {m} responses, at most {LARGEST}", do="use shorter or fewer strings"
        )
