"""UCB1 for costs: Algorithm 1 of the paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from editloop.errors import ConfigError
from editloop.online.algorithms.base import Choice, Numbers, Uniform01, least_index

__all__ = ["ALPHA", "UCB"]

ALPHA = 0.45
"""α for costs of unit scale. How it was chosen: `docs/online.md`."""


@dataclass(frozen=True)
class UCB:
    """Algorithm 1: the arm with the least C/N − α √(log t / N), an arm without a pull first.

    Attributes:
        alpha: α, in the unit of the cost.
    """

    alpha: float = ALPHA
    name = "ucb"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ConfigError("alpha is a finite number, at least 0", seen=self.alpha)

    @classmethod
    def for_costs(cls, scale: float, *, alpha: float | None = None) -> Self:
        """See `AlgorithmFactory.for_costs`."""
        return cls(ALPHA * scale if alpha is None else alpha)

    def choose(self, pulls: Numbers, observed: Numbers, means: Numbers, uniform: Uniform01) -> Choice:
        """See `Algorithm.choose`; deterministic. While no cost is known, it is the arm least in flight."""
        alpha, root = self.alpha, math.sqrt
        return least_index(pulls, observed, means, lambda mean, budget: mean - alpha * root(budget)), None
