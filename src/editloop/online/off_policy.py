"""What another rule of choice would have cost: off-policy estimates from logged decisions.

A log has, for each decision, the arm that was played, the probability with which it was (the propensity p),
and the cost c. A rule to be estimated has probabilities π of its own. With the weight w = π(a)/p of a logged
decision and predicted costs q of all arms:

    ips      mean of w c                                  unbiased; its noise grows with the weights
    snips    Σ w c / Σ w                                  less noise, a small bias
    direct   mean of Σ_a π(a) q(a)                        no noise of weights, but the bias of q
    dr       mean of Σ_a π(a) q(a) + w (c − q(a))         unbiased; less noise the better q is
    switch   dr, with the correction left out where w is above a limit (Wang et al. 2017)

Doubly robust (Dudík et al. 2011) is the one to read first. The predictions must not have seen the cost that
they are corrected by, so they are made across folds (`arm_means`, `ridge_costs`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editloop.errors import BanditError

__all__ = ["ESTIMATORS", "LoggedChoices", "OffPolicyEstimate", "arm_means", "estimate", "ridge_costs"]

Floats = NDArray[np.float64]

LEAST_EFFECTIVE = 20.0
"""With fewer rows' worth of weight, there is too little overlap for an estimate."""

MOST_ERRORS = 3.0
"""By how many times 1/√(effective rows), the most that its standard error can be, the mean weight may differ
from 1."""

WEIGHT_LIMIT = 10.0
"""The weight above which `switch` takes the prediction alone."""

FOLDS, RESAMPLES = 5, 1000


@dataclass(frozen=True)
class LoggedChoices:
    """Logged decisions whose cost is known, and what the rule to be estimated would have done.

    Attributes:
        arms: The names of the arms [k].
        chosen: The index of the arm that was played [n].
        propensity: The probability with which it was, in (0, 1] [n].
        cost: What it cost [n].
        target: The probability of each arm under the rule to be estimated [n, k].
        answered: The share of the decisions for each arm whose cost is known [k]; None if they do not differ.

    Raises:
        BanditError: The shapes differ, a propensity is not in (0, 1], a cost is not finite, or the rows of
            `target` are no probabilities.
    """

    arms: Sequence[str]
    chosen: NDArray[np.int64]
    propensity: Floats
    cost: Floats
    target: Floats
    answered: Floats | None = None

    def __post_init__(self) -> None:
        n, k = len(self.chosen), len(self.arms)
        if self.propensity.shape != (n,) or self.cost.shape != (n,) or self.target.shape != (n, k):
            raise BanditError("the columns of the log differ in length", seen=(n, self.target.shape))
        if n == 0:
            raise BanditError("there is no decision whose cost is known")
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            bad = self.propensity[~((self.propensity > 0) & (self.propensity <= 1))][0]
            raise BanditError("a propensity lies in (0, 1]", seen=float(bad), do="leave such rows out")
        if not np.isfinite(self.cost).all():
            raise BanditError("a cost is a finite number", seen=float(self.cost[~np.isfinite(self.cost)][0]))
        if not ((self.target >= 0).all() and np.allclose(self.target.sum(axis=1), 1, atol=1e-6)):
            raise BanditError("the probabilities of the rule must be at least 0 and sum to 1")

    def __len__(self) -> int:
        return len(self.chosen)

    @cached_property
    def weights(self) -> Floats:
        """w = π(a)/p of each row [n]."""
        played: Floats = self.target[np.arange(len(self)), self.chosen]
        return played / self.propensity

    @property
    def mean_weight(self) -> float:
        """The mean weight, relative to what it would be with all decisions that the rule needs.

        Of all decisions the weights are 1 on average. Of those whose cost is known they are more, if the rule
        plays arms that are answered more often.
        """
        mean = float(self.weights.mean())
        if self.answered is None:
            return mean
        played = np.bincount(self.chosen, minlength=len(self.arms))
        decisions = (played[played > 0] / self.answered[played > 0]).sum()
        expected = float(self.target.mean(axis=0) @ self.answered) * decisions / len(self)
        return mean / expected if expected > 0 else math.inf

    @property
    def effective(self) -> float:
        """The effective number of rows, (Σ w)² / Σ w²; 0 if all weights are 0."""
        squares = float((self.weights**2).sum())
        return float(self.weights.sum()) ** 2 / squares if squares else 0.0


@dataclass(frozen=True)
class OffPolicyEstimate:
    """What a rule would have cost.

    Attributes:
        value: The mean cost of a decision.
        error: Its standard error.
        interval: The 95% interval by bootstrap over rows.
        bounds: The 95% interval by the empirical Bernstein inequality (Maurer and Pontil 2009), which holds
            for any number of rows whose values lie in the range that was seen, and is wide; None for
            estimators that are no mean over rows.
        effective: The effective number of rows, (Σ w)² / Σ w².
    """

    value: float
    error: float
    interval: tuple[float, float]
    bounds: tuple[float, float] | None
    effective: float


Estimator = Callable[[LoggedChoices, Floats], tuple[Floats, Floats]]
"""Returns, for each row, a numerator and a denominator; the estimate is the ratio of their means."""


def _ips(log: LoggedChoices, predicted: Floats) -> tuple[Floats, Floats]:
    return log.weights * log.cost, np.ones(len(log))


def _snips(log: LoggedChoices, predicted: Floats) -> tuple[Floats, Floats]:
    return log.weights * log.cost, log.weights


def _direct(log: LoggedChoices, predicted: Floats) -> tuple[Floats, Floats]:
    return (log.target * predicted).sum(axis=1), np.ones(len(log))


def _corrected(log: LoggedChoices, predicted: Floats, weights: Floats) -> tuple[Floats, Floats]:
    residual = log.cost - predicted[np.arange(len(log)), log.chosen]
    return (log.target * predicted).sum(axis=1) + weights * residual, np.ones(len(log))


def _dr(log: LoggedChoices, predicted: Floats) -> tuple[Floats, Floats]:
    return _corrected(log, predicted, log.weights)


def _switch(log: LoggedChoices, predicted: Floats) -> tuple[Floats, Floats]:
    return _corrected(log, predicted, np.where(log.weights <= WEIGHT_LIMIT, log.weights, 0.0))


ESTIMATORS: dict[str, Estimator] = {
    "dr": _dr,
    "switch": _switch,
    "snips": _snips,
    "ips": _ips,
    "direct": _direct,
}
"""The estimators by name, the one to read first at the beginning."""


def estimate(
    log: LoggedChoices, predicted: Floats, *, names: Sequence[str] = tuple(ESTIMATORS), seed: int = 0
) -> dict[str, OffPolicyEstimate]:
    """Estimate what a rule would have cost.

    Args:
        log: The logged decisions.
        predicted: The predicted cost of each arm in each row, from `arm_means` or `ridge_costs` [n, k].
        names: The estimators, of `ESTIMATORS`.
        seed: The seed of the bootstrap.

    Raises:
        BanditError: The rule plays arms that the log hardly has, or an estimator is unknown.
    """
    check_overlap(log)
    n = len(log)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    found = {}
    for name in names:
        if name not in ESTIMATORS:
            raise BanditError("unknown estimator", seen=name, do=f"choose of {', '.join(ESTIMATORS)}")
        over, under = ESTIMATORS[name](log, predicted)
        value = float(over.mean() / under.mean())
        # The linear part of a ratio around its value; for a mean, the rows' distances from it.
        influence = (over - value * under) / under.mean()
        low, high = np.quantile((draws @ over) / (draws @ under), (0.025, 0.975))
        found[name] = OffPolicyEstimate(
            value,
            float(influence.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan,
            (float(low), float(high)),
            _bernstein(over) if (under == 1).all() else None,
            log.effective,
        )
    return found


def check_overlap(log: LoggedChoices) -> None:
    """Check that the log has enough of what the rule would do.

    Raises:
        BanditError: The rule plays an arm that was never logged, too few rows' worth of weight are left, or
            the weights are not 1 on average.
    """
    shares, logged = log.target.mean(axis=0), np.bincount(log.chosen, minlength=len(log.arms))
    missing = [arm for arm, share, n in zip(log.arms, shares, logged, strict=True) if share > 1e-9 and n == 0]
    if missing:
        raise BanditError("the log has no decision for an arm that the rule plays", seen=", ".join(missing))
    if log.effective < LEAST_EFFECTIVE:
        raise BanditError(
            "too little overlap of the rule with the log",
            seen=f"{log.effective:.1f} effective of {len(log)} rows",
            do="log decisions of an algorithm that gives every arm a probability, such as rand-ucb",
        )
    # Weights are 1 on average. If an arm had a chance of a thousandth wherever the rule would play it, the
    # decisions with the weight 1000 are missing, as a rule, and no estimator can know what they would show.
    mean = log.mean_weight
    if abs(mean - 1) > MOST_ERRORS / math.sqrt(log.effective):
        lacks = "the log lacks decisions that the rule would make"
        raise BanditError(
            lacks if mean < 1 else "the log has too many of the decisions that the rule would make",
            seen=f"a mean weight of {mean:.2f} in place of 1",
            do="log decisions of an algorithm that explores more, such as square-cb or uniform",
        )


def arm_means(log: LoggedChoices) -> Floats:
    """Predict the cost of each arm as its mean cost in the other folds [n, k]."""
    return ridge_costs(log, np.zeros((len(log), 0)))


def ridge_costs(log: LoggedChoices, features: ArrayLike, *, penalty: float = 1.0) -> Floats:
    """Predict the cost of each arm from features of the request, across folds [n, k].

    A ridge regression for each arm, whose constant is not penalised. An arm without a row in the other folds
    gets the mean cost of all.

    Args:
        log: The logged decisions.
        features: Features of each request [n, d]; without any, the prediction is the arm's mean.
        penalty: The penalty of squared coefficients.

    Raises:
        BanditError: Features are missing or not finite.
    """
    table = np.asarray(features, np.float64)
    if table.ndim != 2 or len(table) != len(log) or not np.isfinite(table).all():
        raise BanditError("features must be finite, with a row for each decision", seen=table.shape)
    predicted = np.empty((len(log), len(log.arms)))
    fold = np.random.default_rng(0).permutation(len(log)) % FOLDS
    for held in range(FOLDS):
        out = fold == held
        if not out.any():
            continue
        rest = log.cost[~out]
        for arm in range(len(log.arms)):
            rows = ~out & (log.chosen == arm)
            if not rows.any():
                predicted[out, arm] = rest.mean() if len(rest) else log.cost.mean()
                continue
            x, y = table[rows], log.cost[rows]
            centre, mean = x.mean(axis=0), y.mean()
            gram = (x - centre).T @ (x - centre) + penalty * np.eye(table.shape[1])
            slope = np.linalg.solve(gram, (x - centre).T @ (y - mean))
            predicted[out, arm] = mean + (table[out] - centre) @ slope
    return predicted


def _bernstein(values: Floats) -> tuple[float, float]:
    """The empirical Bernstein interval of the mean of independent values of this range, at 95%."""
    n, width = len(values), float(np.ptp(values))
    if n < 2:
        return -math.inf, math.inf
    tail = math.log(4 / 0.05)
    reach = math.sqrt(2 * float(values.var(ddof=1)) * tail / n) + 7 * width * tail / (3 * (n - 1))
    mean = float(values.mean())
    return mean - reach, mean + reach
