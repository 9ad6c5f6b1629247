"""The fitted mixture: convex weights over trained policies, π = Σ α_k π_k, chosen on validation data.

By likelihood, EM on the log-probabilities of the edits: the best mixture is seldom a single policy. By cost,
the expected cost Σ α_k c_k is linear and the policy that costs least has all the weight; the standard errors
say how sure that choice is.

This module knows tables of numbers only.
"""

from __future__ import annotations

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

TOLERANCE = 1e-6
"""EM ends where no weights can gain more log-likelihood per row."""

BOOTSTRAPS = 100
"""Samples of the rows that the standard errors are from."""


@dataclass(frozen=True)
class Mixture:
    """Weights over policies.

    Attributes:
        weights: By policy, not negative, 1 together.
        errors: Their standard errors: those of the weights of bootstrap samples of the rows.
        by: What they were fitted by.
        rows: How many rows they were fitted on; where the policies differ in that, the fewest.
        objective: Mean log-likelihood of a row, or mean cost, of the mixture.
        single: The same of each policy alone.
        curve: The objective after each step of the fit; by cost that of equal weights and that of the best.
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
    weights, curve = _em(table)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(BOOTSTRAPS):
        rows = generator.integers(len(table), size=len(table))
        drawn.append(_em(table[rows])[0])
    means = table.mean(axis=0)
    return _mixture(names, weights, np.array(drawn), "likelihood", len(table), means, curve)


def mix_by_cost(costs: Mapping[str, Sequence[float]], *, seed: int = 0) -> Mixture:
    """Minimises Σ_k α_k c_k, c_k the mean cost of policy k.

    Args:
        costs: For each policy what its responses cost, by the cost model or by what a user made of them; of
            the same contexts where they are as many, else of rounds of its own [n of that policy].
        seed: Of the bootstrap over rows that gives the standard errors.

    Raises:
        ConfigError: There are no policies or rows, or numbers that are not finite.
    """
    if len({len(values) for values in costs.values()}) == 1:
        names, paired = _table(costs)
        columns = list(paired.T)
    else:
        names, paired = list(costs), None
        columns = [_table({name: values})[1][:, 0] for name, values in costs.items()]
    generator = np.random.default_rng(seed)

    def resampled() -> Floats:
        if paired is not None:
            mean: Floats = paired[generator.integers(len(paired), size=len(paired))].mean(axis=0)
            return mean
        return np.array([generator.choice(column, size=len(column)).mean() for column in columns])

    means = np.array([column.mean() for column in columns])
    weights, curve = _cheapest(means)
    drawn = np.array([_cheapest(resampled())[0] for _ in range(BOOTSTRAPS)])
    rows = min(len(column) for column in columns)
    return _mixture(names, weights, drawn, "cost", rows, means, curve)


def _cheapest(costs: Floats) -> tuple[Floats, list[float]]:
    """All weight on the least of the costs [K], shared alike where several are least; and the curve."""
    least = (costs == costs.min()).astype(np.float64)
    return least / least.sum(), [float(costs.mean()), float(costs.min())]


def _table(values: Mapping[str, Sequence[float]]) -> tuple[list[str], Floats]:
    names = list(values)
    table = np.array([values[name] for name in names], np.float64).T
    if not names or table.ndim != 2 or not len(table):
        raise ConfigError("a mixture needs policies and rows", seen=table.shape)
    if not np.isfinite(table).all():
        bad = [name for name, column in zip(names, table.T, strict=True) if not np.isfinite(column).all()]
        raise ConfigError("a policy has numbers that are not finite", seen=bad, do="leave it out")
    return names, table


def _em(table: Floats) -> tuple[Floats, list[float]]:
    """Weights [K], equal at the start, and the mean log-likelihood after each step.

    A step of EM multiplies each weight by its slope. Where policies are alike that is slow: so the step is
    lengthened, to a power of the slope, for as long as this gains. The largest slope less 1 bounds what can
    still be gained.
    """
    highest = table.max(axis=1, keepdims=True)
    likelihood = np.exp(table - highest)

    def at(weights: Floats) -> tuple[float, Floats]:
        total = likelihood @ weights
        return float((np.log(total) + highest[:, 0]).mean()), (likelihood / total[:, None]).mean(axis=0)

    weights, power = np.full(table.shape[1], 1 / table.shape[1]), 1.0
    value, slope = at(weights)
    curve = [value]
    for _ in range(ITERATIONS):
        if slope.max() - 1 < TOLERANCE:
            break
        trial = weights * slope**power
        trial /= trial.sum()
        reached, new = at(trial)
        if reached < value and power > 1:
            power = 1.0  # EM's own step, which never loses
            continue
        weights, value, slope, power = trial, reached, new, 2 * power
        curve.append(value)
    return weights, curve


def _mixture(
    names: Sequence[str],
    weights: Floats,
    drawn: Floats,
    by: Literal["likelihood", "cost"],
    rows: int,
    single: Floats,
    curve: Sequence[float],
) -> Mixture:
    def named(values: Floats) -> dict[str, float]:
        return dict(zip(names, values.tolist(), strict=True))

    return Mixture(
        weights=named(weights),
        errors=named(drawn.std(axis=0, ddof=1)),
        by=by,
        rows=rows,
        objective=curve[-1],
        single=named(single),
        curve=tuple(curve),
    )
