"""The fitted mixture: convex weights over trained policies, π = Σ α_k π_k, chosen on validation data.

By likelihood, EM on the log-probabilities of the edits: the best mixture is seldom a single policy. By cost,
on what responses of each policy cost: there the expected cost Σ α_k c_k is linear and a single policy is
always best, so the weights are how sure one can be which (the share of bootstrap samples in which a policy
costs least).

This module knows tables of numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from editloop.errors import ConfigError

__all__ = ["Mixture", "mix_by_cost", "mix_by_likelihood"]

Floats = NDArray[np.float64]

ITERATIONS = 2000
"""Most steps of EM."""

TOLERANCE = 1e-9
"""EM ends where a step gains less log-likelihood per row."""

BOOTSTRAPS = 400


@dataclass(frozen=True)
class Mixture:
    """Weights over policies.

    Attributes:
        weights: By policy, not negative, 1 together.
        errors: Their standard errors: from the bootstrap over rows, or, by cost, of the shares themselves.
        by: What they were fitted by.
        rows: How many rows they were fitted on.
        objective: Mean log-likelihood of a row, or mean cost, of the mixture.
        single: The same of each policy alone.
        curve: The objective after each step of the fit.
    """

    weights: Mapping[str, float]
    errors: Mapping[str, float]
    by: Literal["likelihood", "cost"]
    rows: int
    objective: float
    single: Mapping[str, float]
    curve: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def mix_by_likelihood(log_probs: Mapping[str, Sequence[float]], *, seed: int = 0) -> Mixture:
    """Maximises Σ_i log Σ_k α_k π_k(y'_i | x_i).

    Args:
        log_probs: For each policy log π(y'|x) of the validation rows, natural log [n].
        seed: Of the bootstrap that gives the standard errors.

    Raises:
        ConfigError: There are no policies or rows, or numbers that are not finite.
    """
    names, table = _table(log_probs)
    weights, curve = _em(table, np.full(len(names), 1 / len(names)))
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(BOOTSTRAPS // 4):  # EM again and again: a quarter is enough for an error
        rows = generator.integers(len(table), size=len(table))
        drawn.append(_em(table[rows], weights * 0.9 + 0.1 / len(names), tolerance=1e-6)[0])
    return _mixture(names, weights, np.array(drawn), "likelihood", table, curve[-1], curve)


def mix_by_cost(costs: Mapping[str, Sequence[float]], *, seed: int = 0) -> Mixture:
    """How sure it is that each policy costs least, as weights.

    Args:
        costs: For each policy what its responses to the same contexts cost [n].
        seed: Of the bootstrap over contexts.

    Raises:
        ConfigError: There are no policies or rows, or numbers that are not finite.
    """
    names, table = _table(costs)
    generator = np.random.default_rng(seed)
    means = np.stack(
        [table[generator.integers(len(table), size=len(table))].mean(axis=0) for _ in range(BOOTSTRAPS)]
    )
    best = np.eye(len(names))[means.argmin(axis=1)]
    so_far = (best.cumsum(axis=0) / np.arange(1, BOOTSTRAPS + 1)[:, None]) @ table.mean(axis=0)
    weights = best.mean(axis=0)
    objective = float(weights @ table.mean(axis=0))
    return _mixture(names, weights, best / math.sqrt(BOOTSTRAPS), "cost", table, objective, so_far.tolist())


def _table(values: Mapping[str, Sequence[float]]) -> tuple[list[str], Floats]:
    names = list(values)
    table = np.array([values[name] for name in names], np.float64).T
    if not names or table.ndim != 2 or not len(table):
        raise ConfigError("a mixture needs policies and rows", seen=table.shape)
    if not np.isfinite(table).all():
        bad = [name for name, column in zip(names, table.T, strict=True) if not np.isfinite(column).all()]
        raise ConfigError("a policy has numbers that are not finite", seen=bad, do="leave it out")
    return names, table


def _em(table: Floats, start: Floats, *, tolerance: float = TOLERANCE) -> tuple[Floats, list[float]]:
    """Weights [K] and the mean log-likelihood after each step."""
    highest = table.max(axis=1, keepdims=True)
    likelihood = np.exp(table - highest)
    weights, curve = start, [-math.inf]
    for _ in range(ITERATIONS):
        joint = likelihood * weights
        total = joint.sum(axis=1, keepdims=True)
        curve.append(float((np.log(total) + highest).mean()))
        if curve[-1] - curve[-2] < tolerance:
            break
        weights = (joint / total).mean(axis=0)
    return weights, curve[1:]


def _mixture(
    names: Sequence[str],
    weights: Floats,
    drawn: Floats,
    by: Literal["likelihood", "cost"],
    table: Floats,
    objective: float,
    curve: Sequence[float],
) -> Mixture:
    def named(values: Floats) -> dict[str, float]:
        return dict(zip(names, values.tolist(), strict=True))

    return Mixture(
        weights=named(weights),
        errors=named(drawn.std(axis=0, ddof=1)),
        by=by,
        rows=len(table),
        objective=objective,
        single=named(table.mean(axis=0)),
        curve=tuple(curve),
    )
