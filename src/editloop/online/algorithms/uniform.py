"""Each arm equally often."""

from __future__ import annotations

from dataclasses import dataclass

from editloop.online.algorithms.base import Choice, Numbers, Uniform01

__all__ = ["Uniform"]


@dataclass(frozen=True)
class Uniform:
    """Each arm with the same probability: a baseline, and the best log for importance weighting."""

    name = "uniform"
    learns = False

    @classmethod
    def for_costs(cls, scale: float, *, alpha: float | None = None) -> Uniform:
        """See `AlgorithmFactory.for_costs`."""
        return cls()

    def choose(self, pulls: Numbers, observed: Numbers, means: Numbers, uniform: Uniform01) -> Choice:
        """See `Algorithm.choose`."""
        return int(uniform() * len(pulls)), 1 / len(pulls)
