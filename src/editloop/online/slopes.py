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
intercept. An update by one cost takes the square of the number of features (Sherman and Morrison 1950), a
choice the square of the number of those that are not 0.

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
from editloop.online.features import Features

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
        """Take A⁻¹ [arms, 1 + size, 1 + size], θ after the intercept, and Σ x [arms, 1 + size].

        The first of Σ x is the number of costs.
        """
        self._inverse, self._slopes, self._sums = arrays
        self._product = np.empty(self._inverse.shape[1:])  # room for an update
        self._middle = [0.0] * len(self._sums)  # θ · x̄, with the intercept
        self._costs_of = self._sums[:, 0].tolist()  # as Python's floats, which a choice reads faster
        for place in range(len(self._sums)):
            self._change(place, 0.0)

    def _change(self, place: int, by: float | NDArray[np.float64]) -> None:
        """Add to the slopes of an arm."""
        slopes, sums = self._slopes[place], self._sums[place]
        slopes += by
        self._costs_of[place] = float(sums[0])
        self._middle[place] = float(slopes @ sums) / max(self._costs_of[place], 1.0)

    @property
    def weight(self) -> float:
        """w, the probability that the features matter."""
        return 1 / (1 + math.exp(-self.log_odds))

    def knows(self, x: Features) -> bool:
        """Whether features are of the kind and number that were observed."""
        return (x.kind, x.size) == (self.kind, self.size)

    def takes(self, x: Features) -> bool:
        """Whether costs with features of this kind and number can be counted. The first ones decide."""
        if not self.size and x.kind == (self.kind or x.kind):
            self.kind, self.size = x.kind, x.size
            self._set_arrays(_no_arms(x.size))
        return self.knows(x)

    def adjust(self, arms: Sequence[str], x: Features) -> tuple[list[float], list[float]]:
        """Return what features change of each arm: w (x − x̄) · θ and κ w (x − x̄)' A⁻¹ (x − x̄).

        Both are 0 for an arm without a cost.

        Args:
            arms: The arms' names.
            x: The features, which are known (`knows`).
        """
        # All arms at once, also those that are retired: for five arms, that is faster than to pick them.
        w, at, values = self.weight, x.places, x.values
        predicted = (self._slopes.take(at, axis=1) @ values).tolist()
        # Of few features, `take` from flat matrices is several times as fast as to index rows and columns.
        inverses = self._inverse.reshape(len(self._sums), (self.size + 1) ** 2)
        of_pairs = inverses.take((at[:, None] * (self.size + 1) + at).ravel(), axis=1)
        own = (of_pairs @ (values[:, None] * values).ravel()).tolist()
        moved, spread = [0.0] * len(arms), [0.0] * len(arms)
        for i, arm in enumerate(arms):
            place = self._places.get(arm)
            if place is not None:
                moved[i] = w * (predicted[place] - self._middle[place])
                # The inverse with the intercept gives 1/N more than that.
                spread[i] = max(0.0, SPREAD_SHARE * w * (own[place] - 1 / self._costs_of[place]))
        return moved, spread

    def observe(self, arm: str, x: Features, left: float, pulls: float) -> None:
        """Count a cost.

        Args:
            arm: The arm.
            x: The features of the request, which can be counted (`takes`).
            left: What is left of the cost when the mean is taken away that was expected without features.
            pulls: How many pulls that mean is of; above 0.
        """
        at, values = x.places, x.values
        place = self._places.get(arm)
        if place is None:
            place = self._add_arm(arm)
        inverse, sums = self._inverse[place], self._sums[place]
        direction = values @ inverse.take(at, axis=0)
        leverage = float(direction.take(at) @ values)
        predicted = float(self._slopes[place].take(at) @ values)
        if sums[0] > 0:
            self._compare(left, left - (predicted - self._middle[place]), 1 + 1 / pulls, 1 + leverage)
        gain = direction / (1 + leverage)
        # Of one column and one row, a product is that of each two numbers, and faster than `np.outer`.
        inverse -= np.dot(gain[:, None], direction[None], out=self._product)
        sums[at] += values
        self._change(place, gain * (left - predicted))

    def revise(self, arm: str, x: Features, change: float) -> None:
        """Change a cost that was counted before by so much."""
        place = self._places.get(arm)
        if place is not None:
            at, values = x.places, x.values
            self._change(place, change * (values @ self._inverse[place].take(at, axis=0)))

    def inherit(self, arm: str, parent: str, pulls: float) -> None:
        """Count the costs of another arm for this one, too, with a weight by which they are few.

        Args:
            arm: The arm that gets them.
            parent: The other arm.
            pulls: What its n costs count for, n · pulls / (n + pulls), is below this.
        """
        source = self._places.get(parent)
        if source is None or pulls <= 0:
            return
        place = self._places[arm] if arm in self._places else self._add_arm(arm)
        share = pulls / (self._costs_of[source] + pulls)
        known, own = np.linalg.inv(self._inverse[source]), np.linalg.inv(self._inverse[place])
        # Both have the penalty in them, which is to count once.
        whole = own + share * (known - np.diag(self._penalty()))
        costs = own @ self._slopes[place] + share * (known @ self._slopes[source])  # Σ x times what is left
        self._inverse[place] = np.linalg.inv(whole)
        self._sums[place] += share * self._sums[source]
        self._slopes[place] = self._inverse[place] @ costs
        self._change(place, 0.0)

    def _add_arm(self, arm: str) -> int:
        place = self._places[arm] = len(self._places)
        none = np.zeros(self.size + 1)
        known = self._inverse, self._slopes, self._sums
        new = np.diag(1 / self._penalty()), none, none
        self._set_arrays([np.concatenate((old, one[None])) for old, one in zip(known, new, strict=True)])
        return place

    def _penalty(self) -> NDArray[np.float64]:
        """The penalties of the intercept and of all slopes [1 + size]."""
        return np.array([INTERCEPT_PENALTY, *[PENALTY] * self.size])

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
            "arrays": [array_text(each) for each in (self._inverse, self._slopes, self._sums)],
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
        made._set_arrays([read_array(text, shape) for text, shape in zip(row["arrays"], shapes, strict=True)])
        return made


def _no_arms(size: int) -> list[NDArray[np.float64]]:
    return [np.zeros((0, size + 1, size + 1)), np.zeros((0, size + 1)), np.zeros((0, size + 1))]
