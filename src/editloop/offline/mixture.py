"""Fit the weights α_k of a mixture π = Σ_k α_k π_k of trained policies on validation data.

By likelihood, the weights are fitted by EM on the log-probabilities of the edits; the best mixture is seldom
a single policy. By cost, the objective Σ_k α_k c_k is linear, so the policy of least mean cost has all the
weight; the standard errors show how certain that choice is.

This module is given tables of numbers only.
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
"""Limit on the steps of EM."""

TOLERANCE = 1e-6
"""EM stops when no weights can raise the mean log-likelihood of a row by more than this."""

NEGLIGIBLE = 1e-3
"""Weights below this become 0. EM comes close to 0 but never reaches it, and a policy with any weight is
loaded and run for every score of the mixture."""

BOOTSTRAPS = 100
"""Number of bootstrap samples for the standard errors."""


@dataclass(frozen=True)
class Mixture:
    """Weights over policies.

    Attributes:
        weights: The weight of each policy; they are not negative, and their sum is 1.
        errors: Standard errors of the weights, from bootstrap samples of the rows.
        by: What the weights were fitted by.
        rows: Number of rows that they were fitted on; if it differs between policies, the least.
        objective: The mixture's mean log-likelihood of a row, or its mean cost.
        single: The same figure for each policy alone.
        curve: The objective after each step of the fit. By cost, the objective of equal weights and of the
            best.
    """

    weights: Mapping[str, float]
    errors: Mapping[str, float]
    by: Literal["likelihood", "cost"]
    rows: int
    objective: float
    single: Mapping[str, float]
    curve: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """The mixture as plain data."""
        return asdict(self)


def mix_by_likelihood(
    log_probs: Mapping[str, Sequence[float]],
    *,
    prior: Mapping[str, float] | None = None,
    prior_rows: float = 0.0,
    seed: int = 0,
) -> Mixture:
    """Fit the weights that maximise Σ_i log Σ_k α_k π_k(y'_i | x_i); those below `NEGLIGIBLE` are 0.

    Weights that were fitted on few rows depend on which rows these are. With a prior, what is maximised is
    Σ_i log Σ_k α_k π_k(y'_i | x_i) + m Σ_k α⁰_k log α_k, as if m further rows were each known to be of
    one policy, in the shares α⁰. With more and more rows, its influence vanishes.

    Args:
        log_probs: For each policy log π_k(y'|x) of the validation rows, natural log [n].
        prior: The shares α⁰, which are not negative and add up to 1; by default equal ones.
        prior_rows: m, for how many rows the prior counts.
        seed: The seed of the bootstrap.

    Raises:
        ConfigError: There are no policies or no rows, a number is not finite, or the prior is no
            distribution over these policies.
    """
    names, table = _table(log_probs)
    pseudo = prior_rows * _shares(prior, names)
    weights, curve = _em(table, pseudo)
    while (small := (weights > 0) & (weights < NEGLIGIBLE)).any():
        kept = (weights > 0) & ~small
        weights = np.zeros_like(weights)
        weights[kept], more = _em(table[:, kept], pseudo[kept])
        curve.append(more[-1])
    generator = np.random.default_rng(seed)
    bootstrap = []
    for _ in range(BOOTSTRAPS):
        rows = generator.integers(len(table), size=len(table))
        bootstrap.append(_em(table[rows], pseudo)[0])
    means = table.mean(axis=0)
    return _mixture(names, weights, np.array(bootstrap), "likelihood", len(table), means, curve)


def mix_by_cost(costs: Mapping[str, Sequence[float]], *, seed: int = 0) -> Mixture:
    """Fit the weights that minimise Σ_k α_k c_k, where c_k is the mean cost of policy k.

    Args:
        costs: For each policy the costs of its responses, estimated or observed [n_k]. If all policies have
            the same number, they are costs in the same contexts; otherwise each policy has its own rounds.
        seed: The seed of the bootstrap.

    Raises:
        ConfigError: There are no policies or no rows, or a number is not finite.
    """
    if len({len(values) for values in costs.values()}) <= 1:
        names, paired = _table(costs)
        columns = list(paired.T)
    else:
        names, paired = list(costs), None
        columns = [_table({name: values})[1][:, 0] for name, values in costs.items()]
    generator = np.random.default_rng(seed)

    # In the same contexts the costs of two policies rise and fall together. Resampling whole rows keeps this
    # correlation, which makes the error of the difference of two means smaller.
    def resampled() -> Floats:
        if paired is not None:
            mean: Floats = paired[generator.integers(len(paired), size=len(paired))].mean(axis=0)
            return mean
        return np.array([generator.choice(column, size=len(column)).mean() for column in columns])

    means = np.array([column.mean() for column in columns])
    weights, curve = _cheapest(means)
    bootstrap = np.array([_cheapest(resampled())[0] for _ in range(BOOTSTRAPS)])
    rows = min(len(column) for column in columns)
    return _mixture(names, weights, bootstrap, "cost", rows, means, curve)


def _cheapest(costs: Floats) -> tuple[Floats, list[float]]:
    """All weight on the lowest cost, shared equally by ties [K]; and the curve of the objective.

    The curve has two points: equal weights, and these.

    Args:
        costs: The mean cost of each policy [K].
    """
    least = (costs == costs.min()).astype(np.float64)
    return least / least.sum(), [float(costs.mean()), float(costs.min())]


def _table(values: Mapping[str, Sequence[float]]) -> tuple[list[str], Floats]:
    """The names of the policies, and a table of their numbers [n, K].

    Raises:
        ConfigError: The table is empty, or a number is not finite.
    """
    names = list(values)
    table = np.array([values[name] for name in names], np.float64).T
    if not names or table.ndim != 2 or not len(table):
        raise ConfigError("a mixture needs policies and rows", seen=table.shape)
    if not np.isfinite(table).all():
        bad = [name for name, column in zip(names, table.T, strict=True) if not np.isfinite(column).all()]
        raise ConfigError("a policy has numbers that are not finite", seen=bad, do="leave it out")
    return names, table


def _shares(prior: Mapping[str, float] | None, names: Sequence[str]) -> Floats:
    """The shares of a prior in the order of the policies [K].

    Raises:
        ConfigError: They are no distribution over these policies.
    """
    if prior is None:
        return np.full(len(names), 1 / len(names))
    shares = np.array([prior.get(name, 0.0) for name in names], np.float64)
    if set(prior) - set(names) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise ConfigError("the prior of a mixture is no distribution over its policies", seen=dict(prior))
    return shares


def _em(table: Floats, pseudo: Floats) -> tuple[Floats, list[float]]:
    """Maximise the log-likelihood of a mixture by EM, beginning with equal weights.

    Args:
        table: log π_k(y'_i|x_i) [n, K].
        pseudo: How many further rows there are of which each policy alone is known to be the writer [K].

    Returns:
        The weights [K], and the mean log-likelihood of the rows of the table before the first and after each
        step.
    """
    # The E-step gives policy k the share α_k p_ik / Σ_j α_j p_ij of row i. The M-step sets α_k to the mean of
    # its shares: α_k is multiplied by its slope s_k = mean_i p_ik / Σ_j α_j p_ij, the derivative of the mean
    # log-likelihood with respect to α_k. If policies are alike, all slopes are close to 1 and EM takes
    # thousands of steps. So the step is lengthened to s_k^power. The power is doubled after each step that
    # raises the objective; a step that would lower it is not taken, and the power falls back to 1, which is
    # EM's own step and never lowers the objective.
    #
    # The stopping rule is a bound. The objective L is concave and Σ_k α_k s_k = 1, so any other weights β
    # have L(β) − L(α) ≤ Σ_k s_k (β_k − α_k) = Σ_k s_k β_k − 1 ≤ max_k s_k − 1.
    #
    # Likelihoods of whole texts underflow. Each row is divided by its highest likelihood, whose logarithm is
    # added to the objective again.
    highest = table.max(axis=1, keepdims=True)
    likelihood = np.exp(table - highest)

    # A row that is known to be of policy k adds log α_k to the objective and 1/α_k to its slope. The bound
    # above holds for it, too: log is concave, and the slopes of all rows together still have Σ_k α_k s_k = 1.
    rows = len(table) + float(pseudo.sum())

    def at(weights: Floats) -> tuple[float, float, Floats]:
        """The mean log-likelihood of the table's rows, the objective, and its slopes."""
        total = likelihood @ weights
        known = pseudo > 0
        assigned = float(pseudo[known] @ np.log(weights[known]))
        logs = np.log(total) + highest[:, 0]
        slope = (likelihood / total[:, None]).sum(axis=0)
        slope[known] += pseudo[known] / weights[known]
        return float(logs.mean()), (float(logs.sum()) + assigned) / rows, slope / rows

    weights, power = np.full(table.shape[1], 1 / table.shape[1]), 1.0
    seen, value, slope = at(weights)
    curve = [seen]
    for _ in range(ITERATIONS):
        if slope.max() - 1 < TOLERANCE:
            break
        # A step that is too long may overflow, or take a policy's weight below the least number there is.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            trial = weights * slope**power
            trial /= trial.sum()
            seen, reached, new = at(trial)
        if power > 1 and not reached >= value:  # NaN, too
            power = 1.0
            continue
        weights, value, slope, power = trial, reached, new, 2 * power
        curve.append(seen)
    return weights, curve


def _mixture(
    names: Sequence[str],
    weights: Floats,
    bootstrap: Floats,
    by: Literal["likelihood", "cost"],
    rows: int,
    single: Floats,
    curve: Sequence[float],
) -> Mixture:
    """A `Mixture`, with numbers by name; the standard errors are those of the bootstrap weights [B, K]."""

    def named(values: Floats) -> dict[str, float]:
        return dict(zip(names, values.tolist(), strict=True))

    return Mixture(
        weights=named(weights),
        errors=named(bootstrap.std(axis=0, ddof=1)),
        by=by,
        rows=rows,
        objective=curve[-1],
        single=named(single),
        curve=tuple(curve),
    )
