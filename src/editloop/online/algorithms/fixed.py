"""Always the same arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editloop.errors import ConfigError

__all__ = ["Fixed"]


@dataclass(frozen=True)
class Fixed:
    """Always the same arm: a baseline.

    Attributes:
        arm: The arm's place among the arms.
    """

    arm: int = 0
    name = "fixed"

    @classmethod
    def for_costs(cls, scale: float, *, alpha: float | None = None) -> Fixed:
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
        if not 0 <= self.arm < len(pulls):
            raise ConfigError("there is no such arm", seen=self.arm, do=f"give 0 to {len(pulls) - 1}")
        return self.arm, 1.0
