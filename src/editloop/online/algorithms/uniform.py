"""Each arm equally often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Uniform"]


@dataclass(frozen=True)
class Uniform:
    """Each arm with the same probability: a baseline, and the best log for importance weighting."""

    name = "uniform"

    @classmethod
    def for_costs(cls, scale: float, *, alpha: float | None = None) -> Uniform:
        """See `AlgorithmFactory.for_costs`."""
        return cls()

    def choose(
        self,
        pulls: Sequence[float],
        observed: Sequence[float],
        means: Sequence[float],
        uniform: Callable[[], float],
    ) -> tuple[int, float]:
        """See `Algorithm.choose`."""
        return int(uniform() * len(pulls)), 1 / len(pulls)
