"""What a request's features say about the cost of each arm, beyond the arm's mean cost.

Some arm may be better at letters and another at summaries. The mean cost m_a of an arm knows nothing of
that. So each arm has slopes θ_a, by which its cost differs between requests with other features x:

    m_a + w (x − x̄_a) · θ_a,        1/N_a + κ w (x − x̄_a)' A_a⁻¹ (x − x̄_a).

The first is the cost that is expected of the arm for this request, in place of m_a. With κ = 1, the second
is its variance in units of the noise, in place of 1/N_a: an arm that was only played for other requests is
less known for this one. An algorithm gets the inverse of it as the arm's pulls. So every algorithm works with
features, and none has to know them. x̄_a is the mean of the features for which the arm was played, and m_a is
that of the scope, which may be a user: the features say how a request differs, the scope says for whom.

κ is `SPREAD_SHARE`, and less than 1: most words of a request have nothing to do with the cost, and a choice
that explores the slopes of all of them explores far too much. Requests differ, so to play the arm that seems
best for each explores the slopes by itself (Bastani, Bayati and Khosravi 2021).

**The slopes** are those of a ridge regression of what is left of the costs when the scope's mean is taken
away, with an intercept that is not shrunk and the penalty `PENALTY`; A_a is its matrix without the row of the
intercept. An update by one cost takes the square of the number of features (Sherman and Morrison 1950).

**The weight** w ∈ [0, 1] is the probability that the features matter. Each cost is predicted twice before it
is counted, by the mean alone and with the slopes; w is the posterior probability of the second, after even
odds, with normal likelihoods over the costs of all arms. Features that explain nothing soon have w near 0,
and the choice is then as without them. The log odds stay within ± `MOST_LOG_ODDS`, so that w can change its
mind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.online.arrays import array_text, read_array

__all__ = ["Slopes"]

PENALTY = 10.0
"""The penalty of the slopes. Less costs more where the features explain nothing."""

INTERCEPT_PENALTY = 1e-3
"""That of the intercept. It is not 0, so that the matrix has an inverse from the beginning."""

SPREAD_SHARE = 0.1
"""κ, the part of the variance of the slopes that makes an algorithm explore."""

MOST_LOG_ODDS = 12.0

WARM = 10
"""Costs from which the noise is known well enough to compare predictions."""


class Slopes:
    """The slopes of all arms, each a regression with the constant 1 before the features.

    Args:
        kind: The kind of features that count; empty for that of the first ones that come.

    Attributes:
        kind: The kind of the features.
        size: Their number; 0 before the first.
        log_odds: The logarithm of the odds that the features matter.
    """

    def __init__(self, kind: str = "") -> None:
        self.kind, self.size = kind, 0
        self.log_odds = 0.0
        self._squares, self._costs = 0.0, 0  # of what the means leave, and of how many costs
        self._places: dict[str, int] = {}  # of the arms in the arrays
        self._set_arrays(_no_arms(0))

    def _set_arrays(self, arrays: Sequence[NDArray[np.float64]]) -> None:
        """Take A⁻¹ [arms, 1 + size, 1 + size], Σ r x and Σ x [arms, 1 + size] over the costs.

        r is what is left of a cost, and the first of Σ x is the number of costs.
        """
        self._inverse, self._target, self._sums = arrays
        self._slopes = np.zeros(self._target.shape)  # θ, after the intercept
        self._middle = np.zeros(len(self._sums))  # θ · x̄, with the intercept
        for place in range(len(self._sums)):
            self._settle(place)

    def _settle(self, place: int) -> None:
        """Compute an arm's slopes again from its sums."""
        slopes = self._inverse[place] @ self._target[place]
        self._slopes[place] = slopes
        self._middle[place] = slopes @ self._sums[place] / max(self._sums[place, 0], 1.0)

    @property
    def weight(self) -> float:
        """w, the probability that the features matter."""
        return 1 / (1 + math.exp(-self.log_odds))

    def knows(self, kind: str, size: int) -> bool:
        """Whether features of this kind and number are those that were observed."""
        return (kind, size) == (self.kind, self.size)

    def takes(self, kind: str, size: int) -> bool:
        """Whether costs with features of this kind and number can be counted. The first ones decide."""
        if not self.size and kind == (self.kind or kind):
            self.kind, self.size = kind, size
            self._set_arrays(_no_arms(size))
        return self.knows(kind, size)

    def adjust(self, arms: Sequence[str], x: NDArray[np.float64]) -> tuple[list[float], list[float]]:
        """Return what features change of each arm: w (x − x̄) · θ and κ w (x − x̄)' A⁻¹ (x − x̄).

        Both are 0 for an arm without a cost.

        Args:
            arms: The arms' names.
            x: The features [size].
        """
        # All arms at once, also those that are retired: for five arms, that is faster than to pick them.
        w, x = self.weight, np.concatenate(((1.0,), x))
        moved = (w * (self._slopes @ x - self._middle)).tolist()
        # The inverse with the intercept gives 1/N more than that.
        spread = (SPREAD_SHARE * w * ((self._inverse @ x) @ x - 1 / self._sums[:, 0])).tolist()
        places = [self._places.get(arm) for arm in arms]
        return (
            [0.0 if place is None else moved[place] for place in places],
            [0.0 if place is None else max(0.0, spread[place]) for place in places],
        )

    def observe(self, arm: str, x: NDArray[np.float64], left: float, pulls: float) -> None:
        """Count a cost.

        Args:
            arm: The arm.
            x: The features of the request [size].
            left: What is left of the cost when the mean is taken away that was expected without features.
            pulls: How many pulls that mean is of; above 0.
        """
        x = np.concatenate(((1.0,), x))
        place = self._places.get(arm)
        if place is None:
            place = self._add_arm(arm)
        inverse = self._inverse[place]
        direction = inverse @ x
        leverage = float(x @ direction)
        if self._sums[place, 0] > 0:
            featured = left - float(self._slopes[place] @ x - self._middle[place])
            self._compare(left, featured, 1 + 1 / pulls, 1 + leverage)
        inverse -= (direction / (1 + leverage))[:, None] * direction
        self._sums[place] += x
        self._target[place] += left * x
        self._settle(place)

    def revise(self, arm: str, x: NDArray[np.float64], change: float) -> None:
        """Change a cost that was counted before by so much."""
        place = self._places.get(arm)
        if place is not None:
            self._target[place] += change * np.concatenate(((1.0,), x))
            self._settle(place)

    def _add_arm(self, arm: str) -> int:
        place = self._places[arm] = len(self._places)
        penalty = np.full(self.size + 1, PENALTY, dtype=np.float64)
        penalty[0] = INTERCEPT_PENALTY
        none = np.zeros(self.size + 1)
        known = self._inverse, self._target, self._sums
        new = np.diag(1 / penalty), none, none
        self._set_arrays([np.concatenate((old, one[None])) for old, one in zip(known, new, strict=True)])
        return place

    def _compare(self, plain: float, featured: float, plain_spread: float, featured_spread: float) -> None:
        """Update the odds by the errors of both predictions, and their variances in units of the noise."""
        if self._costs >= WARM and self._squares > 0:
            noise = self._squares / self._costs
            gain = plain * plain / plain_spread - featured * featured / featured_spread
            self.log_odds += (gain / noise + math.log(plain_spread / featured_spread)) / 2
            self.log_odds = min(max(self.log_odds, -MOST_LOG_ODDS), MOST_LOG_ODDS)
        self._squares += plain * plain / plain_spread
        self._costs += 1

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON types, from which `from_json` restores it exactly."""
        return {
            "kind": self.kind,
            "size": self.size,
            "log_odds": self.log_odds,
            "noise": [self._squares, self._costs],
            "arms": list(self._places),
            "sums": [array_text(each) for each in (self._inverse, self._target, self._sums)],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Slopes:
        """What `to_json` wrote."""
        made = cls()
        made.kind, made.size, made.log_odds = row["kind"], row["size"], row["log_odds"]
        made._squares, made._costs = row["noise"]
        made._places = {arm: place for place, arm in enumerate(row["arms"])}
        n, size = len(made._places), made.size + 1
        shapes = (n, size, size), (n, size), (n, size)
        made._set_arrays([read_array(text, shape) for text, shape in zip(row["sums"], shapes, strict=True)])
        return made


def _no_arms(size: int) -> list[NDArray[np.float64]]:
    return [np.zeros((0, size + 1, size + 1)), np.zeros((0, size + 1)), np.zeros((0, size + 1))]
