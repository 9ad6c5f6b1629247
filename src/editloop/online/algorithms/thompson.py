"""Thompson sampling with known propensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editloop.online.algorithms.base import Choice, Numbers, Scaled, Uniform01, drawn

__all__ = ["Thompson"]

OFFSETS = np.linspace(-7.0, 7.0, 57)
"""Where a posterior is evaluated, in standard deviations from its mean."""


@dataclass(frozen=True)
class Thompson(Scaled):
    """Thompson sampling for costs in [0, scale]: an arm is played as often as it is probably the best.

    A cost c adds the fractions c/scale and 1 − c/scale to the parameters of the arm's Beta(1, 1). The
    probabilities are computed by quadrature instead of drawing from the posteriors, so that the propensity of
    each decision is known, which importance weighting needs. Pulls in flight do not change them.
    """

    name = "thompson"

    def choose(self, pulls: Numbers, observed: Numbers, means: Numbers, uniform: Uniform01) -> Choice:
        """See `Algorithm.choose`."""
        return drawn(self.probabilities(observed, means).tolist(), uniform())

    def probabilities(self, observed: Sequence[float], means: Sequence[float]) -> NDArray[np.float64]:
        """Return the probability of each arm to have the least mean, float64 [arms].

        P(arm a is best) = ∫ p_a(x) Π_{b ≠ a} P(b > x) dx, over one grid of points for all arms.
        """
        n = np.asarray(observed, dtype=np.float64)
        cost = n * np.clip(np.where(n > 0, means, 0.0) / self.scale, 0.0, 1.0)
        a, b = (1 + cost)[:, None], (1 + n - cost)[:, None]
        # The grid has the points where any arm has its mass, so that a narrow posterior beside a wide one is
        # resolved as well.
        middle, spread = a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
        points = np.unique(np.clip(middle + spread * OFFSETS, 1e-9, 1 - 1e-9))
        # Densities are relative to their maximum: with a thousand pulls they would underflow otherwise, and
        # the normalising constant cancels when each arm's mass is made to sum to 1.
        log_density = (a - 1) * np.log(points) + (b - 1) * np.log1p(-points)
        density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        steps = (density[:, 1:] + density[:, :-1]) * np.diff(points) / 2  # the trapezoidal rule
        mass = steps / steps.sum(axis=1, keepdims=True)
        above = np.maximum(1 - np.cumsum(mass, axis=1) + mass / 2, 1e-300)  # P(b > x) in the middle of a step
        # The product over all arms but a, as the sum of all logarithms less a's own.
        log_above = np.log(above)
        best = (mass * np.exp(log_above.sum(axis=0) - log_above)).sum(axis=1)
        return np.asarray(best / best.sum())
