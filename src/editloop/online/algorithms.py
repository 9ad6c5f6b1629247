"""How an arm is chosen from what is known of each: Algorithm 1 and its relatives.

An algorithm sees numbers only, one for each arm: pulls N (those in flight counted), pulls observed, and
the mean cost of the latter. Costs are lower is better, so "upper confidence" is a lower bound on the cost.
This module knows neither scopes nor events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from editloop.errors import ConfigError

__all__ = ["KLUCB", "UCB", "Algorithm", "Fixed", "Thompson", "Uniform", "get_algorithm"]

ALPHA = 0.45
"""Of `UCB`, for costs of unit scale. How it was chosen: `docs/online.md`."""


class Algorithm(Protocol):
    """Chooses an arm."""

    @property
    def name(self) -> str:
        """The name in `get_algorithm`."""
        ...

    def choose(
        self,
        pulls: Sequence[float],
        observed: Sequence[float],
        means: Sequence[float],
        uniform: Callable[[], float],
    ) -> tuple[int, float]:
        """The index of the chosen arm, and the probability with which it was chosen.

        Args:
            pulls: N of each arm, pulls in flight included.
            observed: Those of them whose cost is known.
            means: Mean cost of those; of no meaning where `observed` is 0.
            uniform: Draws a number in [0, 1).
        """
        ...


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

    def choose(
        self,
        pulls: Sequence[float],
        observed: Sequence[float],
        means: Sequence[float],
        uniform: Callable[[], float],
    ) -> tuple[int, float]:
        """See `Algorithm.choose`; deterministic. While no cost is known, the arm least in flight."""
        alpha, root = self.alpha, math.sqrt
        return _least(pulls, observed, means, lambda mean, budget: mean - alpha * root(budget)), 1.0


@dataclass(frozen=True)
class KLUCB:
    """KL-UCB (Garivier and Cappé 2011) for costs in [0, scale]: the arm with the least plausible mean.

    An arm's index is the least q with N kl(C/N, q) <= log t, kl that of Bernoulli distributions.

    Attributes:
        scale: The largest cost; what is above counts as this much.
    """

    scale: float = 1.0
    name = "kl-ucb"

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def choose(
        self,
        pulls: Sequence[float],
        observed: Sequence[float],
        means: Sequence[float],
        uniform: Callable[[], float],
    ) -> tuple[int, float]:
        """See `Algorithm.choose`; deterministic."""
        scale = self.scale
        return _least(
            pulls, observed, means, lambda mean, budget: _least_plausible(min(mean / scale, 1.0), budget)
        ), 1.0


@dataclass(frozen=True)
class Thompson:
    """Thompson sampling for costs in [0, scale]: an arm as often as it is probably the best.

    A cost c moves the arm's Beta(1, 1) by the fractions c/scale and 1 − c/scale. The probabilities are
    computed (by quadrature), not sampled, so each decision has the propensity that importance weighting
    needs. Pulls in flight have no part in them.

    Attributes:
        scale: The largest cost; what is above counts as this much.
    """

    scale: float = 1.0
    name = "thompson"

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def choose(
        self,
        pulls: Sequence[float],
        observed: Sequence[float],
        means: Sequence[float],
        uniform: Callable[[], float],
    ) -> tuple[int, float]:
        """See `Algorithm.choose`."""
        return _draw(self.probabilities(observed, means), uniform())

    def probabilities(self, observed: Sequence[float], means: Sequence[float]) -> NDArray[np.float64]:
        """The probability of each arm to have the least mean, float64 [arms]."""
        n = np.asarray(observed, dtype=np.float64)
        cost = n * np.clip(np.where(n > 0, means, 0.0) / self.scale, 0.0, 1.0)
        a, b = (1 + cost)[:, None], (1 + n - cost)[:, None]
        # Points where any arm has its mass, so that a narrow posterior beside a wide one is resolved.
        middle, spread = a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
        points = np.unique(np.clip(middle + spread * _OFFSETS, 1e-9, 1 - 1e-9))
        log_density = (a - 1) * np.log(points) + (b - 1) * np.log1p(-points)
        density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        steps = (density[:, 1:] + density[:, :-1]) * np.diff(points) / 2
        mass = steps / steps.sum(axis=1, keepdims=True)
        above = np.maximum(1 - np.cumsum(mass, axis=1) + mass / 2, 1e-300)  # at the middle of a step
        log_above = np.log(above)
        best = (mass * np.exp(log_above.sum(axis=0) - log_above)).sum(axis=1)
        return np.asarray(best / best.sum())


_OFFSETS = np.linspace(-7.0, 7.0, 57)
"""Where a posterior is looked at, in its standard deviations from its mean."""


@dataclass(frozen=True)
class Uniform:
    """Each arm equally often: a reference, and the best log for importance weighting."""

    name = "uniform"

    def choose(
        self,
        pulls: Sequence[float],
        observed: Sequence[float],
        means: Sequence[float],
        uniform: Callable[[], float],
    ) -> tuple[int, float]:
        """See `Algorithm.choose`."""
        return int(uniform() * len(pulls)), 1 / len(pulls)


@dataclass(frozen=True)
class Fixed:
    """Always the same arm: a reference.

    Attributes:
        arm: Its place among the arms.
    """

    arm: int = 0
    name = "fixed"

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


_ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    each.name: each for each in (UCB, KLUCB, Thompson, Uniform, Fixed)
}


def get_algorithm(name: str, **options: Any) -> Algorithm:
    """The algorithm of that name with these options.

    Raises:
        ConfigError: An unknown name or option.
    """
    if name not in _ALGORITHMS:
        raise ConfigError("unknown algorithm", seen=name, do=f"use one of {', '.join(_ALGORITHMS)}")
    try:
        return _ALGORITHMS[name](**options)
    except TypeError as error:
        raise ConfigError(f"{name} does not take these options", seen=options) from error


def _check_scale(scale: float) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise ConfigError("the scale of a cost is a positive number", seen=scale)


def _least(
    pulls: Sequence[float],
    observed: Sequence[float],
    means: Sequence[float],
    index: Callable[[float, float], float],
) -> int:
    """The first arm without a pull, else that with the least index of its mean cost and log t / N."""
    log_t = math.log(max(sum(pulls), 1.0))
    chosen, least = 0, math.inf
    for arm, n in enumerate(pulls):
        if n <= 0:
            return arm
        value = index(means[arm] if observed[arm] > 0 else 0.0, log_t / n)
        if value < least:
            chosen, least = arm, value
    return chosen


def _least_plausible(mean: float, budget: float) -> float:
    """The least q in [0, mean] with kl(mean, q) <= budget, to 1e-6, by bisection."""
    low, high = 0.0, mean
    while high - low > 1e-6:
        q = (low + high) / 2
        kl = mean * math.log(mean / q)
        if mean < 1:
            kl += (1 - mean) * math.log((1 - mean) / (1 - q))
        low, high = (q, high) if kl > budget else (low, q)
    return high


def _draw(probabilities: NDArray[np.float64], uniform: float) -> tuple[int, float]:
    arm = min(int(np.searchsorted(np.cumsum(probabilities), uniform, side="right")), len(probabilities) - 1)
    return arm, float(probabilities[arm])
