"""Inverse-gap weighting: SquareCB (Foster and Rakhlin 2020, Beyond UCB)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from editloop.online.algorithms.base import Choice, Numbers, Scaled, Uniform01, drawn, untried_shares

__all__ = ["SquareCB"]

GAMMA = 20.0
"""γ is this times the root of all pulls, for costs of unit scale."""


@dataclass(frozen=True)
class SquareCB(Scaled):
    """An arm is played the less often, the more it is expected to cost beyond the arm that costs least.

    With K arms and the gap d of an arm, its probability is 1 / (K + γ d), and the arm that costs least has
    what is left. How well a mean is known does not count.
    """

    name = "square-cb"

    def choose(self, pulls: Numbers, observed: Numbers, means: Numbers, uniform: Uniform01) -> Choice:
        """See `Algorithm.choose`."""
        return drawn(self.probabilities(pulls, observed, means), uniform())

    def probabilities(
        self, pulls: Sequence[float], observed: Sequence[float], means: Sequence[float]
    ) -> list[float]:
        """Return the probability of each arm [arms]; arms without a pull share all of it equally."""
        if (untried := untried_shares(pulls)) is not None:
            return untried
        known = [mean / self.scale if n > 0 else 0.0 for mean, n in zip(means, observed, strict=True)]
        gamma = GAMMA * math.sqrt(sum(pulls))
        best = known.index(min(known))
        found = [1 / (len(pulls) + gamma * (mean - known[best])) for mean in known]
        found[best] = 1 - sum(found[:best]) - sum(found[best + 1 :])
        return found
