"""Estimates with intervals from rows of a log: ratios, medians and cross-validated R².

Rows of one context are not independent, so whole contexts are resampled (the clusters below), not rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.intervals import mean_interval

__all__ = ["LEAST", "Estimate", "Floats", "cross_validated_r2", "one_minus", "ratio", "sample_median"]

Floats = NDArray[np.float64]

RESAMPLES = 1_000
"""The number of bootstrap samples of an interval."""

LEAST = 10
"""The fewest rows or contexts that are compared, and for which an interval is the bootstrap's."""

FOLDS = 5
"""The number of folds of the cross-validation."""


class Estimate(NamedTuple):
    """A figure with its 95% interval.

    The interval is the bootstrap's; with few independent observations it is Wilson's for a share and
    Student's for a mean.

    Attributes:
        value: The figure.
        low: The lower end of the interval.
        high: The upper end of the interval.
        n: The number of independent observations that it is estimated from.
    """

    value: float
    low: float
    high: float
    n: int


def ratio(over: Floats, under: Floats, clusters: Any, rng: np.random.Generator) -> Estimate | None:
    """Return Σ over / Σ under, with a 95% interval.

    It is a ratio of sums, not a mean of ratios, because a row that is divided by almost nothing must not
    decide it. The interval is the bootstrap's over clusters. For fewer than `LEAST` clusters it is Student's
    with the standard error of the linearised ratio: (Σ over / Σ under) − r ≈ mean(over − r · under) /
    mean(under).

    Args:
        over: The numerators [rows].
        under: The denominators [rows].
        clusters: The cluster of each row [rows].
        rng: Draws the resamples.

    Returns:
        None where the denominators sum to 0, or few clusters are all alike.
    """
    _, place = np.unique(clusters, return_inverse=True)
    tops, bottoms = np.bincount(place, over), np.bincount(place, under)
    if not (np.isfinite(tops).all() and bottoms.sum() > 0):
        return None
    n = len(tops)
    if n < LEAST:
        value = float(tops.sum() / bottoms.sum())
        residuals = (tops - value * bottoms) / bottoms.mean()
        error = float(residuals.std(ddof=1)) / n**0.5 if n > 1 else 0.0
        # Without any spread Student's interval would be a point, which claims too much: there is none then.
        few = mean_interval(value, error, n)
        return few and Estimate(value, *few, n)
    drawn = []
    for _ in range(RESAMPLES):
        some = rng.integers(n, size=n)
        if (bottom := bottoms[some].sum()) > 0:  # a sample may have only clusters without a denominator
            drawn.append(tops[some].sum() / bottom)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(tops.sum() / bottoms.sum()), float(low), float(high), n)


def one_minus(each: Estimate | None) -> Estimate | None:
    """Return 1 − an estimate; the ends of its interval change places."""
    return None if each is None else Estimate(1 - each.value, 1 - each.high, 1 - each.low, each.n)


def sample_median(values: Floats, rng: np.random.Generator) -> Estimate:
    """Return the median of independent values [n], with the bootstrap's interval."""
    drawn = np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(np.median(values)), float(low), float(high), len(values))


def cross_validated_r2(
    predict: Callable[[Floats, Floats, Floats], Floats],
    features: Floats,
    costs: Floats,
    clusters: Any,
    rng: np.random.Generator,
) -> Estimate | None:
    """Return the share of the costs' variance that a model predicts on rows that it was not fitted on.

    R² = 1 − Σ (predicted − cost)² / Σ (cost − mean)². The rows of a context are in one fold, because a model
    could remember the context. R² is negative where the mean of all costs predicts better than the model.

    Args:
        predict: Fits on features and costs, and predicts the costs of new features.
        features: The features of each row [rows, width].
        costs: The cost of each row [rows].
        clusters: The context of each row [rows].
        rng: Draws the folds and the resamples.

    Returns:
        None where there are fewer than `LEAST` contexts, or all costs are alike.
    """
    contexts, place = np.unique(clusters, return_inverse=True)
    if len(contexts) < LEAST or costs.std() < 1e-12:
        return None
    fold = (rng.permutation(len(contexts)) % FOLDS)[place]
    predicted = np.empty(len(costs))
    for k in range(FOLDS):
        predicted[fold == k] = predict(features[fold != k], costs[fold != k], features[fold == k])
    # 1 - R² is a ratio of two sums over rows, so its interval is that of `ratio`.
    errors, spread = (predicted - costs) ** 2, (costs - costs.mean()) ** 2
    return one_minus(ratio(errors, spread, clusters, rng))
