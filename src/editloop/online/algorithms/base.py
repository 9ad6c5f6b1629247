"""What an algorithm is: it sees numbers only, one for each arm, and chooses.

The numbers are the pulls N (those in flight included), the pulls whose cost is known, and the mean cost of
the latter. Less cost is better: where the literature has an upper confidence bound on a reward, an algorithm
here has a lower bound on a cost. It knows neither scopes nor events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from editloop.errors import ConfigError

__all__ = [
    "Algorithm",
    "AlgorithmFactory",
    "Choice",
    "Numbers",
    "Scaled",
    "Uniform01",
    "drawn",
    "least_index",
    "untried_shares",
]


Numbers = Sequence[float]
"""One number for each arm."""

Uniform01 = Callable[[], float]
"""Draws a number in [0, 1)."""

Choice = tuple[int, float | None]
"""The index of the chosen arm, and the probability with which it was chosen, in (0, 1].

A deterministic algorithm has no probability that a log could be weighted by later: None, and not 1, because
the arm that was chosen depends on what was observed before.
"""


class Algorithm(Protocol):
    """Chooses an arm.

    One that chooses alike whatever was observed may have an attribute `learns` that is False; a replay is
    then faster.
    """

    @property
    def name(self) -> str:
        """The name in the registry."""
        ...

    def choose(self, pulls: Numbers, observed: Numbers, means: Numbers, uniform: Uniform01) -> Choice:
        """Return the index of the chosen arm, and its probability (see `Choice`).

        Args:
            pulls: N of each arm, pulls in flight included.
            observed: Those of them whose cost is known.
            means: Mean cost of those; of no meaning where `observed` is 0.
            uniform: Draws a number in [0, 1), the only source of randomness: a decision must follow from it
                and the numbers, so that it can be replayed.
        """
        ...


class AlgorithmFactory(Protocol):
    """Makes an algorithm; the class of one, as a rule. This is what the registry has."""

    def __call__(self, **options: Any) -> Algorithm:
        """Return an algorithm with these options of its own."""
        ...

    def for_costs(self, scale: float, *, alpha: float | None = None) -> Algorithm:
        """Return an algorithm for costs of this scale.

        Args:
            scale: A typical large cost.
            alpha: The strength of exploration, in the unit of the cost, if the user gave one; an algorithm
                without such a number ignores it.
        """
        ...


@dataclass(frozen=True)
class Scaled:
    """An algorithm whose only option is the scale of the costs.

    Attributes:
        scale: The largest cost; a mean above it counts as this much.

    Raises:
        ConfigError: The scale is not a finite number above 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError("the scale of a cost is a positive number", seen=self.scale)

    @classmethod
    def for_costs(cls, scale: float, *, alpha: float | None = None) -> Self:
        """See `AlgorithmFactory.for_costs`."""
        return cls(scale)


def untried_shares(pulls: Sequence[float]) -> list[float] | None:
    """Return equal probabilities for the arms without a pull, 0 for the others; None if each has one."""
    untried = sum(n <= 0 for n in pulls)
    return [1 / untried if n <= 0 else 0.0 for n in pulls] if untried else None


def drawn(probabilities: Sequence[float], uniform: float) -> Choice:
    """Return an arm that is drawn by its probability, and that probability.

    Args:
        probabilities: One for each arm; they sum to 1, to rounding.
        uniform: A number in [0, 1).
    """
    total = 0.0
    for arm, probability in enumerate(probabilities):
        total += probability
        if uniform < total:
            return arm, probability
    # Rounding can leave the sum a little below 1. The last arm that can be chosen takes what is left.
    arm = max(arm for arm, probability in enumerate(probabilities) if probability > 0)
    return arm, probabilities[arm]


def least_index(
    pulls: Sequence[float],
    observed: Sequence[float],
    means: Sequence[float],
    index: Callable[[float, float], float],
) -> int:
    """Return the first arm without a pull, else the arm with the least index.

    Args:
        pulls: As of `Algorithm.choose`.
        observed: Likewise.
        means: Likewise; an arm whose cost is not known yet counts as free.
        index: The index of an arm, from its mean cost and log t / N.
    """
    # t of Algorithm 1 is the sum of N, not a count of rounds: priors and discounts change N, and log t / N is
    # of one scale only if t changes with it.
    log_t = math.log(max(sum(pulls), 1.0))
    chosen, least = 0, math.inf
    for arm, n in enumerate(pulls):
        if n <= 0:
            return arm
        value = index(means[arm] if observed[arm] > 0 else 0.0, log_t / n)
        if value < least:
            chosen, least = arm, value
    return chosen
