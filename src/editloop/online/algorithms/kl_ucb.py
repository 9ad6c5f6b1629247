"""KL-UCB for costs (Garivier and Cappé 2011)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from editloop.online.algorithms.base import Choice, Numbers, Scaled, Uniform01, least_index

__all__ = ["KLUCB"]

TOLERANCE = 1e-6
"""How exactly an index is found, as a share of the scale."""


@dataclass(frozen=True)
class KLUCB(Scaled):
    """KL-UCB for costs in [0, scale]: the arm whose mean cost could plausibly be the least.

    An arm's index is the least q with N kl(C/N, q) <= log t, where kl is that of Bernoulli distributions.
    """

    name = "kl-ucb"

    def choose(self, pulls: Numbers, observed: Numbers, means: Numbers, uniform: Uniform01) -> Choice:
        """See `Algorithm.choose`; deterministic."""

        # N kl <= log t is kl <= log t / N, the budget. The index is a share of the scale, which ranks arms
        # in the same way.
        def index(mean: float, budget: float) -> float:
            return _least_plausible(min(mean / self.scale, 1.0), budget)

        return least_index(pulls, observed, means, index), None


def _least_plausible(mean: float, budget: float) -> float:
    """The least q in [0, mean] with kl(mean, q) <= budget, by bisection: kl falls as q grows to the mean."""
    # `high` always satisfies the condition, kl(mean, mean) being 0, and q is never 0, where log would fail.
    low, high = 0.0, mean
    while high - low > TOLERANCE:
        q = (low + high) / 2
        kl = mean * math.log(mean / q)
        if mean < 1:  # at 1 the second term is 0 log 0
            kl += (1 - mean) * math.log((1 - mean) / (1 - q))
        low, high = (q, high) if kl > budget else (low, q)
    return high
