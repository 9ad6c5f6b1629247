"""Thompson sampling with normal posteriors (Agrawal and Goyal 2013, for contextual bandits: LinTS)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editloop.online.algorithms.base import Choice, Numbers, Scaled, Uniform01, drawn, untried_shares

__all__ = ["LinTS"]

DEVIATION = 0.25
"""The standard deviation of the posterior of one pull, for costs of unit scale."""

POINTS = np.linspace(-6.0, 6.0, 49)
"""Where a posterior is evaluated, in standard deviations from its mean."""

FLOOR = 0.01
"""The probability with which all arms are equally likely, so that no arm is without a propensity."""


@dataclass(frozen=True)
class LinTS(Scaled):
    """An arm is played as often as it is probably the best, if each mean cost is normally distributed.

    With features, the mean and the pulls of an arm are those for the request, and this is LinTS. The
    probabilities are computed by quadrature instead of drawing from the posteriors, so that each decision has
    a propensity.
    """

    name = "lin-ts"

    def choose(self, pulls: Numbers, observed: Numbers, means: Numbers, uniform: Uniform01) -> Choice:
        """See `Algorithm.choose`."""
        return drawn(self.probabilities(pulls, observed, means).tolist(), uniform())

    def probabilities(
        self, pulls: Sequence[float], observed: Sequence[float], means: Sequence[float]
    ) -> NDArray[np.float64]:
        """Return the probability of each arm, float64 [arms]; those without a pull share it equally."""
        if (untried := untried_shares(pulls)) is not None:
            return np.array(untried)
        n = np.asarray(pulls, dtype=np.float64)
        middle = np.where(np.asarray(observed) > 0, np.asarray(means, dtype=np.float64), 0.0) / self.scale
        spread = DEVIATION / np.sqrt(n)
        # One grid for all arms, with the points where any of them has its mass.
        points = np.unique((middle[:, None] + spread[:, None] * POINTS).ravel())
        below = _normal((points - middle[:, None]) / spread[:, None])  # P(arm < point)
        mass = np.diff(below, axis=1)
        above = np.maximum(1 - (below[:, 1:] + below[:, :-1]) / 2, 1e-300)
        log_above = np.log(above)
        best = (mass * np.exp(log_above.sum(axis=0) - log_above)).sum(axis=1)
        return np.asarray((1 - FLOOR) * best / best.sum() + FLOOR / len(n))


_GRID = np.linspace(-8.0, 8.0, 3201)
_TABLE = np.array([0.5 * (1 + math.erf(z / math.sqrt(2))) for z in _GRID.tolist()])


def _normal(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distribution function of the standard normal, to 1e-6. NumPy has none."""
    return np.asarray(np.interp(z, _GRID, _TABLE))
