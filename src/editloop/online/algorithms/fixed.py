"""Always the same arm."""

from __future__ import annotations

from dataclasses import dataclass

from editloop.errors import ConfigError
from editloop.online.algorithms.base import Choice, Numbers, Uniform01

__all__ = ["Fixed"]


@dataclass(frozen=True)
class Fixed:
    """Always the same arm: a baseline.

    Attributes:
        arm: The arm's place among the arms.
    """

    arm: int = 0
    name = "fixed"
    learns = False

    @classmethod
    def for_costs(cls, scale: float, *, alpha: float | None = None) -> Fixed:
        """See `AlgorithmFactory.for_costs`."""
        return cls()

    def choose(self, pulls: Numbers, observed: Numbers, means: Numbers, uniform: Uniform01) -> Choice:
        """See `Algorithm.choose`."""
        if not 0 <= self.arm < len(pulls):
            raise ConfigError("there is no such arm", seen=self.arm, do=f"give 0 to {len(pulls) - 1}")
        return self.arm, None
