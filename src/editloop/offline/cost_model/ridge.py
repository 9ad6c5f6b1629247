"""The cost model f̂(x, y) of Eq. 5, its uncertainty u(x, y), and the pessimistic cost f̄ = f̂ + κ u.

Ridge regression in closed form, on features of a continuation in its context (see
`editloop.policy.batch_features`). A cost is rarely linear in them, as it is whether the response suits the
context: so products stand beside them, of a random Fourier feature of the context (Rahimi and Recht 2007)
and a random direction of all features. They are what a kernel of contexts times one of responses is made of:
a regression on the response whose weights change smoothly with the context. How smoothly, and how strong the
ridge is, are chosen by the error on rows left out one at a time, which the closed form gives.

This module knows features and costs only: no text, no model, no loss.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from editloop.errors import ConfigError, RunError
from editloop.io import atomic_file, write_json

__all__ = ["CostModel", "Fidelity", "fidelity", "fit_cost_model"]

Floats = NDArray[np.float64]

PRODUCTS = 1024
"""Random product features."""

SMOOTHNESS = (0.25, 0.5, 1.0)
"""Length scales that are tried, in units of the root mean square distance of two contexts."""

MOST_ROWS = 20_000
"""Rows that a model is fitted on at most: the regression takes 2 GB for so many."""

RIDGES = tuple(float(ridge) for ridge in np.logspace(-3, 4, 15))
"""Ridges that are tried."""


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


class _Basis(NamedTuple):
    """What of the features a cost model is linear in."""

    directions: Floats
    phases: Floats
    mixed: Floats

    def of(self, standard: Floats) -> Floats:
        """Constant, features and products of standardised features, each kind of length about 1 [n, P]."""
        n, width = standard.shape
        waves = np.cos(standard[:, : len(self.directions)] @ self.directions + self.phases)
        products = math.sqrt(2 / max(len(self.phases), 1)) * waves * (standard @ self.mixed)
        return np.hstack([np.ones((n, 1)), standard / math.sqrt(width), products])


@dataclass(frozen=True)
class CostModel:
    """A fitted cost model.

    Attributes:
        centre: Subtracted from the features [F].
        scale: What they are divided by afterwards [F].
        directions: Of the Fourier features of the context [C, D]; no column for a linear model.
        phases: Of the Fourier features [D].
        mixed: The directions of all features that they are multiplied by [F, D].
        weights: Of the design's columns [P], P = 1 + F + D (constant, features, products).
        factor: Lower Cholesky factor of Λ = ΦᵀΦ + ridge [P, P].
        noise: Root mean square error of a row that is left out, the unit of u.
        heads: Weights of bootstrap regressions [H, P], or none.
        settings: What was chosen, for people.
    """

    centre: Floats
    scale: Floats
    directions: Floats
    phases: Floats
    mixed: Floats
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
            f̂ [n], and u [n] in the unit of the cost: noise · √(φᵀ Λ⁻¹ φ); or mean and spread of the heads.
        """
        from scipy.linalg import solve_triangular

        design = self._design(np.asarray(features, np.float64))
        if len(self.heads):
            found = design @ self.heads.T
            return found.mean(axis=1), found.std(axis=1, ddof=1)
        spread = (solve_triangular(self.factor, design.T, lower=True) ** 2).sum(axis=0)
        return design @ self.weights, self.noise * np.sqrt(spread)

    def pessimistic(self, features: NDArray[np.floating[Any]], kappa: float) -> Floats:
        """f̄ = f̂ + κ u, an upper bound on the cost [n]."""
        mean, spread = self.predict(features)
        return mean + kappa * spread

    def _design(self, features: Floats) -> Floats:
        basis = _Basis(self.directions, self.phases, self.mixed)
        return basis.of((features - self.centre) / self.scale)

    def save(self, folder: Path) -> None:
        """Write `cost_model.safetensors` and `cost_model.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {key: value for key, value in vars(self).items() if isinstance(value, np.ndarray)}
        with atomic_file(folder / "cost_model.safetensors", RunError) as unfinished:
            save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, unfinished)
        content = {"noise": self.noise, "settings": dict(self.settings)}
        write_json(folder / "cost_model.json", content, RunError)

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
    *,
    context: int = 0,
    heads: int = 0,
    seed: int = 0,
) -> CostModel:
    """Least squares on observed costs (Eq. 5), with the smoothness and the ridge that leave-one-out prefers.

    Fewer rows than features, features that say nothing and costs that are all equal are no trouble: the
    ridge keeps Λ regular, and what cannot be told is predicted by the mean. A single row is thought to be
    as uncertain as it is high. Of very many rows `MOST_ROWS` are taken at random.

    Args:
        features: Of the responses [n, F].
        costs: Δ(y, y') of each [n].
        context: How many of the features, the first, are of the context alone; 0 for none.
        heads: How many bootstrap regressions, at least 2, give f̂ and u in place of one and its Λ; or 0.
        seed: Of the random features and the bootstrap.

    Raises:
        ConfigError: There are no rows, or a number is not finite.
    """
    if heads == 1:
        raise ConfigError("one regression has no spread", seen="heads = 1", do="take 2 or more")
    x, y = np.asarray(features, np.float64), np.asarray(costs, np.float64)
    if not len(y):
        raise ConfigError("the cost model needs rows with a cost", seen="none")
    for kind, values in (("cost", y), ("feature", x)):
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise ConfigError(f"a {kind} is not finite", seen=f"{count} of {values.size}")
    generator = np.random.default_rng(seed)
    if len(y) > MOST_ROWS:
        taken = generator.choice(len(y), MOST_ROWS, replace=False)
        x, y = x[taken], y[taken]
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-6 * np.maximum(1.0, np.abs(centre)), scale, np.inf)  # else it says nothing
    standard, width = (x - centre) / scale, context or x.shape[1]
    told = max(int(np.isfinite(scale[:width]).sum()), 1)
    unit = generator.standard_normal((width, PRODUCTS)) / math.sqrt(2 * told)
    phases = generator.uniform(0, 2 * math.pi, PRODUCTS)
    mixed = generator.standard_normal((x.shape[1], PRODUCTS)) / math.sqrt(x.shape[1])
    basis = {"linear": _Basis(np.empty((width, 0)), np.empty(0), np.empty((x.shape[1], 0)))}
    basis |= {f"products {s:g}": _Basis(unit / s, phases, mixed) for s in SMOOTHNESS}
    errors = {name: _left_out_errors(each.of(standard), y) for name, each in basis.items()}
    name = min(errors, key=lambda each: min(errors[each]))
    alike = np.flatnonzero(np.array(errors[name]) <= min(errors[name]) * (1 + 1e-6))
    ridge = RIDGES[alike[-1]]  # the strongest, where rows are too few to tell
    design = basis[name].of(standard)
    factor = _factor(design, ridge)
    weights = _solve(factor, design.T @ y)
    resampled = [_resampled(design, y, ridge, generator) for _ in range(heads)]
    settings = {"features": name, "ridge": ridge, "heads": heads, "rows": len(y)}
    noise = math.sqrt(min(errors[name])) if len(y) > 1 else abs(float(y[0]))
    drawn = np.array(resampled).reshape(heads, design.shape[1])
    return CostModel(centre, scale, *basis[name], weights, factor, noise, drawn, settings)


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


def _factor(design: Floats, ridge: float) -> Floats:
    """The lower Cholesky factor of Λ; the constant is as good as not shrunk."""
    gram = design.T @ design
    gram[np.diag_indices_from(gram)] += np.array([1e-6] + [ridge] * (len(gram) - 1))
    return np.asarray(np.linalg.cholesky(gram), np.float64)


def _left_out_errors(design: Floats, costs: Floats) -> list[float]:
    """The mean squared error of a row that is left out, at each ridge, by one decomposition."""
    mean, centred = costs.mean(), design - design.mean(axis=0)
    if len(centred) < centred.shape[1]:  # the smaller of the two decompositions
        values, left = np.linalg.eigh(centred @ centred.T)
        values = np.maximum(values, 0)
        rotated = left * np.sqrt(values)
    else:
        values, vectors = np.linalg.eigh(centred.T @ centred)
        values, rotated = np.maximum(values, 0), centred @ vectors
    loads, squares = rotated.T @ (costs - mean), rotated**2
    errors = []
    for ridge in RIDGES:
        own = 1 / len(costs) + squares @ (1 / (values + ridge))  # what a row's cost adds to its prediction
        residual = costs - mean - rotated @ (loads / (values + ridge))
        errors.append(float(np.mean((residual / np.maximum(1 - own, 1e-9)) ** 2)))
    return errors


def _solve(factor: Floats, right: NDArray[np.floating[Any]]) -> Floats:
    from scipy.linalg import cho_solve

    solution: Floats = cho_solve((factor, True), right)
    return solution


def _resampled(design: Floats, costs: Floats, ridge: float, generator: np.random.Generator) -> Floats:
    rows = generator.integers(len(costs), size=len(costs))
    return _solve(_factor(design[rows], ridge), design[rows].T @ costs[rows])
