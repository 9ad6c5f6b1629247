"""The cost model f̂(x, y) of Eq. 5, its uncertainty u(x, y), and the pessimistic cost f̄ = f̂ + κ u.

Ridge regression in closed form, on features of a continuation in its context (see
`editloop.policy.batch_features`). What a cost depends on is rarely linear in them, as it is whether the
response suits the context: so random Fourier features (Rahimi and Recht 2007) of the first and of the mean
state stand beside them. How smooth they are and how strong the ridge is are chosen on validation data.

This module knows features and costs only: no text, no model, no loss.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from editloop.edits.writing import atomic, json_text
from editloop.errors import RunError

__all__ = ["CostModel", "Fidelity", "fidelity", "fit_cost_model"]

Floats = NDArray[np.float64]
Spread = Literal["ridge", "bootstrap"]

FOURIER = 1024
"""Random Fourier features."""

SMOOTHNESS = (0.5, 1.0, 2.0)
"""Length scales that are tried, in units of the root mean square distance of two rows' features."""

RIDGES = tuple(float(ridge) for ridge in np.logspace(-3, 4, 15))
"""Ridges that are tried."""

HEADS = 20
"""Regressions whose spread is the uncertainty of `bootstrap`."""


@dataclass(frozen=True)
class Fidelity:
    """How well costs are predicted on rows that were not trained on.

    Attributes:
        rows: How many.
        r2: 1 − squared error / variance.
        pearson: Correlation of prediction and cost; NaN where either is constant.
        spearman: The same of their ranks.
        covered: Share of the costs that are at most f̂ + κ u, for κ = 0, 1 and 2.
    """

    rows: int
    r2: float
    pearson: float
    spearman: float
    covered: tuple[float, float, float]


@dataclass(frozen=True)
class CostModel:
    """A fitted cost model.

    Attributes:
        centre: Subtracted from the features [F].
        scale: What they are divided by afterwards [F].
        directions: Of the Fourier features [F, D]; no column for a linear model.
        phases: Of the Fourier features [D].
        weights: Of the design's columns [P], P = 1 + F + D (constant, features, Fourier features).
        factor: Lower Cholesky factor of Λ = ΦᵀΦ + ridge [P, P].
        noise: Root mean square error on the validation rows, the unit of u.
        heads: Weights of bootstrap regressions [H, P], or none.
        settings: What was chosen, for people.
    """

    centre: Floats
    scale: Floats
    directions: Floats
    phases: Floats
    weights: Floats
    factor: Floats
    noise: float
    heads: Floats
    settings: Mapping[str, Any]

    def predict(self, features: NDArray[np.floating[Any]]) -> tuple[Floats, Floats]:
        """f̂ and u of continuations.

        Args:
            features: Of n continuations [n, F].

        Returns:
            f̂ [n], and u [n] in the unit of the cost: noise · √(φᵀ Λ⁻¹ φ), or the spread of the heads.
        """
        from scipy.linalg import solve_triangular

        design = self._design(np.asarray(features, np.float64))
        if len(self.heads):
            spread = (design @ self.heads.T).std(axis=1, ddof=1)
        else:
            spread = self.noise * np.sqrt(
                (solve_triangular(self.factor, design.T, lower=True) ** 2).sum(axis=0)
            )
        return design @ self.weights, spread

    def pessimistic(self, features: NDArray[np.floating[Any]], kappa: float) -> Floats:
        """f̄ = f̂ + κ u, an upper bound on the cost [n]."""
        mean, spread = self.predict(features)
        return mean + kappa * spread

    def _design(self, features: Floats) -> Floats:
        return _design((features - self.centre) / self.scale, self.directions, self.phases)

    def save(self, folder: Path) -> None:
        """Write `cost_model.safetensors` and `cost_model.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {key: value for key, value in vars(self).items() if isinstance(value, np.ndarray)}
        with atomic(folder / "cost_model.safetensors", RunError) as unfinished:
            save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, unfinished)
        content = {"noise": self.noise, "settings": dict(self.settings)}
        with atomic(folder / "cost_model.json", RunError) as unfinished:
            unfinished.write_text(json_text(content), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> CostModel:
        """The model that `save` wrote.

        Raises:
            RunError: There is none, or it is damaged.
        """
        try:
            content = json.loads((folder / "cost_model.json").read_text(encoding="utf-8"))
            arrays = load_file(folder / "cost_model.safetensors")
            return cls(noise=float(content["noise"]), settings=content["settings"], **arrays)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RunError(
                "the cost model is missing or damaged",
                seen=str(folder),
                do="fit again with rl among --methods",
            ) from error


def fit_cost_model(
    features: NDArray[np.floating[Any]],
    costs: Floats,
    held_features: NDArray[np.floating[Any]],
    held_costs: Floats,
    *,
    spread: Spread = "ridge",
    seed: int = 0,
) -> CostModel:
    """Least squares on observed costs (Eq. 5); smoothness and ridge are those that validate best.

    Args:
        features: Of the responses to learn from [n, F].
        costs: Δ(y, y') of each [n].
        held_features: Of the validation part [m, F].
        held_costs: Likewise [m].
        spread: What u is: from Λ, or from bootstrap regressions.
        seed: Of the Fourier features and the bootstrap.
    """
    x, y = np.asarray(features, np.float64), np.asarray(costs, np.float64)
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-6 * max(1.0, float(np.abs(centre).max())), scale, np.inf)  # says nothing
    standard, held = (x - centre) / scale, (np.asarray(held_features, np.float64) - centre) / scale
    generator = np.random.default_rng(seed)
    informative = max(int(np.isfinite(scale).sum()), 1)
    unit = generator.standard_normal((x.shape[1], FOURIER)) / math.sqrt(2 * informative)
    phases = generator.uniform(0, 2 * math.pi, FOURIER)
    nothing = np.empty((x.shape[1], 0)), np.empty(0)
    choices = {"linear": nothing} | {f"fourier {s:g}": (unit / s, phases) for s in SMOOTHNESS}
    best: tuple[float, str, float] | None = None
    for name, (directions, shifts) in choices.items():
        found = _errors(
            _design(standard, directions, shifts), y, _design(held, directions, shifts), held_costs
        )
        for ridge, error in zip(RIDGES, found, strict=True):
            if best is None or error < best[0]:
                best = error, name, ridge
    assert best is not None
    error, name, ridge = best
    directions, shifts = choices[name]
    design = _design(standard, directions, shifts)
    factor = _factor(design, ridge)
    weights = _solve(factor, design.T @ y)
    heads = np.empty((0, design.shape[1]))
    if spread == "bootstrap":
        heads = np.stack([_resampled(design, y, ridge, generator) for _ in range(HEADS)])
    settings = {"features": name, "ridge": ridge, "spread": spread, "rows": len(y)}
    return CostModel(centre, scale, directions, shifts, weights, factor, math.sqrt(error), heads, settings)


def fidelity(prediction: Floats, spread: Floats, costs: Floats) -> Fidelity:
    """How well predictions [n] with uncertainty [n] agree with costs [n]."""
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
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _design(standard: Floats, directions: Floats, phases: Floats) -> Floats:
    """Constant, features of unit length together, and Fourier features of unit length together [n, P]."""
    n, width = standard.shape
    parts = [np.ones((n, 1)), standard / math.sqrt(width)]
    if len(phases):
        parts.append(math.sqrt(2 / len(phases)) * np.cos(standard @ directions + phases))
    return np.hstack(parts)


def _factor(design: Floats, ridge: float) -> Floats:
    """The lower Cholesky factor of Λ; the constant is as good as not shrunk."""
    gram = design.T @ design
    gram[np.diag_indices_from(gram)] += np.array([1e-6] + [ridge] * (len(gram) - 1))
    return np.asarray(np.linalg.cholesky(gram), np.float64)


def _errors(design: Floats, costs: Floats, held: Floats, held_costs: Floats) -> list[float]:
    """The mean squared error on the validation rows at each ridge, by one decomposition."""
    mean, centre = costs.mean(), design.mean(axis=0)
    values, vectors = np.linalg.eigh((design - centre).T @ (design - centre))
    loads = vectors.T @ ((design - centre).T @ (costs - mean))
    projected = (held - centre) @ vectors
    predictions = [mean + projected @ (loads / (np.maximum(values, 0) + ridge)) for ridge in RIDGES]
    return [float(np.mean((prediction - held_costs) ** 2)) for prediction in predictions]


def _solve(factor: Floats, right: NDArray[np.floating[Any]]) -> Floats:
    from scipy.linalg import cho_solve

    solution: Floats = cho_solve((factor, True), right)
    return solution


def _resampled(design: Floats, costs: Floats, ridge: float, generator: np.random.Generator) -> Floats:
    rows = generator.integers(len(costs), size=len(costs))
    return _solve(_factor(design[rows], ridge), design[rows].T @ costs[rows])
