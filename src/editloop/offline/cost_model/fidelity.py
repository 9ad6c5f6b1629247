"""How well costs are predicted: figures of predictions and their uncertainty beside observed costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fidelity", "fidelity"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fidelity:
    """How well costs are predicted on rows that were not trained on.

    Attributes:
        rows: Number of rows.
        r2: 1 − mean square error / variance; NaN where all costs are equal.
        pearson: Correlation of prediction and cost; NaN where either is constant.
        spearman: Correlation of their ranks.
        covered: Share of the costs that are at most f̂ + κ u, for κ = 0, 1 and 2.
    """

    rows: int
    r2: float
    pearson: float
    spearman: float
    covered: tuple[float, float, float]


def fidelity(prediction: Floats, spread: Floats, costs: Floats) -> Fidelity:
    """How well predictions agree with costs.

    Args:
        prediction: f̂ of rows that were not trained on [n].
        spread: u of each [n].
        costs: The cost of each [n].
    """
    from scipy.stats import rankdata

    variance = float(np.var(costs))
    error = float(np.mean((prediction - costs) ** 2))
    covered = [float(np.mean(costs <= prediction + kappa * spread)) for kappa in (0, 1, 2)]
    return Fidelity(
        rows=len(costs),
        r2=1 - error / variance if variance > 0 else math.nan,
        pearson=_correlation(prediction, costs),
        spearman=_correlation(rankdata(prediction), rankdata(costs)),
        covered=(covered[0], covered[1], covered[2]),
    )


def _correlation(a: Floats, b: Floats) -> float:
    """Pearson's correlation; NaN where either is constant, without NumPy's warning."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])
