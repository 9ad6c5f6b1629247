"""The cost model f̂(x, y) of Eq. 5, its uncertainty u(x, y), and the pessimistic cost f̄ = f̂ + κ u.

The model is a ridge regression in closed form on features of a continuation in its context (see
`editloop.policy.batch_features`). A cost is rarely linear in these features, because it depends on whether
the response suits its context. So there are product features beside them, each a random Fourier feature of
the context (Rahimi and Recht 2007) times a random direction of all features. In expectation over the random
numbers, the inner product of two rows' products is a Gaussian kernel of the contexts times the inner product
of the features: a regression whose weights vary smoothly with the context. How smoothly, and how strong the
ridge is, is chosen by the leave-one-out error, for which there is a closed form, too.

This module knows features and costs only: no text, no language model, no loss.
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

__all__ = ["CostModel", "fit_cost_model"]

Floats = NDArray[np.float64]

PRODUCTS = 1024
"""Number of random product features."""

SMOOTHNESS = (0.25, 0.5, 1.0)
"""Length scales of the kernel that are tried, in units of the root mean square distance of two contexts."""

MOST_ROWS = 20_000
"""Limit on the rows that a model is fitted on; the regression needs 2 GB for this many."""

RIDGES = tuple(float(ridge) for ridge in np.logspace(-3, 4, 15))
"""Strengths of the ridge that are tried, ascending."""


class _Basis(NamedTuple):
    """The map from standardised features to the columns that a cost model is linear in.

    Attributes:
        directions: Frequencies of the Fourier features of the context [C, D]; D = 0 for a linear model.
        phases: Phases of the Fourier features [D].
        mixed: Directions of all features, by which they are multiplied [F, D].
    """

    directions: Floats
    phases: Floats
    mixed: Floats

    def of(self, standard: Floats) -> Floats:
        """The design matrix [n, P]: a constant, the features, the products; each kind of about unit norm."""
        # The factor √(2/D) makes the mean over the D products an estimate of the kernel of two contexts times
        # the inner product of the features.
        n, width = standard.shape
        waves = np.cos(standard[:, : len(self.directions)] @ self.directions + self.phases)
        products = math.sqrt(2 / max(len(self.phases), 1)) * waves * (standard @ self.mixed)
        return np.hstack([np.ones((n, 1)), standard / math.sqrt(width), products])


@dataclass(frozen=True)
class CostModel:
    """A fitted cost model.

    Attributes:
        centre: Mean of the features, which is subtracted [F].
        scale: Standard deviation of the features, by which they are divided; infinite where a feature is
            constant, so that it becomes 0 [F].
        directions: Frequencies of the Fourier features of the context [C, D]; D = 0 for a linear model.
        phases: Phases of the Fourier features [D].
        mixed: Directions of all features, by which the Fourier features are multiplied [F, D].
        weights: Weights of the columns of the design [P], P = 1 + F + D (constant, features, products).
        factor: Lower Cholesky factor of Λ = ΦᵀΦ + ridge [P, P].
        noise: Root mean square leave-one-out error, the unit of u.
        heads: Weights of the bootstrap regressions [H, P]; H = 0 for a single regression.
        settings: The chosen settings, for people.
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
        """The predicted cost f̂ and its uncertainty u.

        Args:
            features: Features of n continuations [n, F].

        Returns:
            f̂ [n] and u [n], in the unit of the cost. u is noise · √(φᵀ Λ⁻¹ φ); with bootstrap regressions,
            f̂ and u are the mean and the standard deviation of their predictions.
        """
        from scipy.linalg import solve_triangular

        design = self._design(np.asarray(features, np.float64))
        if len(self.heads):
            found = design @ self.heads.T
            return found.mean(axis=1), found.std(axis=1, ddof=1)
        # φᵀ Λ⁻¹ φ = |L⁻¹ φ|² with Λ = L Lᵀ: one triangular solve, and never negative.
        spread = (solve_triangular(self.factor, design.T, lower=True) ** 2).sum(axis=0)
        return design @ self.weights, self.noise * np.sqrt(spread)

    def pessimistic(self, features: NDArray[np.floating[Any]], kappa: float) -> Floats:
        """The pessimistic cost f̄ = f̂ + κ u [n], an upper bound on the cost for a large enough κ.

        Args:
            features: As for `predict` [n, F].
            kappa: κ ≥ 0.
        """
        mean, spread = self.predict(features)
        return mean + kappa * spread

    def _design(self, features: Floats) -> Floats:
        basis = _Basis(self.directions, self.phases, self.mixed)
        return basis.of((features - self.centre) / self.scale)

    def save(self, folder: Path) -> None:
        """Write `cost_model.safetensors` and `cost_model.json` into a folder.

        Raises:
            RunError: They cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {key: value for key, value in vars(self).items() if isinstance(value, np.ndarray)}
        with atomic_file(folder / "cost_model.safetensors", RunError) as unfinished:
            save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, unfinished)
        content = {"noise": self.noise, "settings": dict(self.settings)}
        write_json(folder / "cost_model.json", content, RunError)

    @classmethod
    def load(cls, folder: Path) -> CostModel:
        """Read the model that `save` wrote.

        Raises:
            RunError: The folder has no cost model, or it is damaged.
        """
        try:
            content = json.loads((folder / "cost_model.json").read_text(encoding="utf-8"))
            arrays = load_file(folder / "cost_model.safetensors")
            return cls(noise=float(content["noise"]), settings=content["settings"], **arrays)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RunError(
                "the cost model is missing or damaged",
                seen=str(folder),
                do="fit again with a method that needs a cost model",
            ) from error


def fit_cost_model(
    features: NDArray[np.floating[Any]],
    costs: Floats,
    *,
    context: int = 0,
    heads: int = 0,
    seed: int = 0,
) -> CostModel:
    """Fit a cost model by least squares (Eq. 5); the leave-one-out error chooses its smoothness and ridge.

    There may be fewer rows than features, constant features, and costs that are all equal: the ridge keeps Λ
    regular, and costs that the features do not explain are predicted by their mean. With a single row, its
    cost stands for the error, which cannot be estimated. If there are more than `MOST_ROWS` rows, this many
    are sampled.

    Args:
        features: Features of the responses [n, F].
        costs: Cost Δ(y, y') of each [n].
        context: How many of the features depend on the context alone, which come first; 0 lets the Fourier
            features depend on all of them.
        heads: Number of bootstrap regressions, at least 2, whose mean and spread are f̂ and u; 0 for a single
            regression.
        seed: The seed of the random features and the bootstrap.

    Raises:
        ConfigError: There are no rows, a number is not finite, or `heads` is 1.
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
    # All random numbers come from one generator, in a fixed order: the same seed gives the same model.
    generator = np.random.default_rng(seed)
    if len(y) > MOST_ROWS:
        taken = generator.choice(len(y), MOST_ROWS, replace=False)
        x, y = x[taken], y[taken]
    centre, scale = x.mean(axis=0), x.std(axis=0)
    # A constant feature varies by rounding only. Divided by its tiny standard deviation, the rounding would
    # become noise as large as any signal; divided by infinity, the feature is 0.
    scale = np.where(scale > 1e-6 * np.maximum(1.0, np.abs(centre)), scale, np.inf)
    standard = (x - centre) / scale
    basis = _bases(np.isfinite(scale), context or x.shape[1], generator)
    errors = {name: _left_out_errors(each.of(standard), y) for name, each in basis.items()}
    name = min(errors, key=lambda each: min(errors[each]))
    alike = np.flatnonzero(np.array(errors[name]) <= min(errors[name]) * (1 + 1e-6))
    # With few rows the error may be the same for many ridges; a weaker one would let predictions vary more.
    ridge = RIDGES[alike[-1]]
    design = basis[name].of(standard)
    factor = _factor(design, ridge)
    weights = _solve(factor, design.T @ y)
    resampled = [_resampled(design, y, ridge, generator) for _ in range(heads)]
    settings = {"features": name, "ridge": ridge, "heads": heads, "rows": len(y)}
    noise = math.sqrt(min(errors[name])) if len(y) > 1 else abs(float(y[0]))
    bootstrap = np.array(resampled).reshape(heads, design.shape[1])
    return CostModel(centre, scale, *basis[name], weights, factor, noise, bootstrap, settings)


def _bases(informative: NDArray[np.bool_], width: int, generator: np.random.Generator) -> dict[str, _Basis]:
    """The maps that are tried: a linear one, and one with products for each length scale.

    Args:
        informative: Which of the features are not constant [F].
        width: How many of them depend on the context alone, C; they come first.
        generator: For the random directions.
    """
    # Fourier features with frequencies from a normal distribution of variance 1/s² approximate a Gaussian
    # kernel of length scale s. In k standardised features the mean square distance of two rows is 2k, so
    # dividing by its root makes SMOOTHNESS a multiple of the typical distance, whatever the number of
    # features. Constant features are 0 and add no distance, so they are not counted.
    count, features = max(int(informative[:width].sum()), 1), len(informative)
    unit = generator.standard_normal((width, PRODUCTS)) / math.sqrt(2 * count)
    phases = generator.uniform(0, 2 * math.pi, PRODUCTS)
    mixed = generator.standard_normal((features, PRODUCTS)) / math.sqrt(features)
    found = {"linear": _Basis(np.empty((width, 0)), np.empty(0), np.empty((features, 0)))}
    return found | {f"products {s:g}": _Basis(unit / s, phases, mixed) for s in SMOOTHNESS}


def _factor(design: Floats, ridge: float) -> Floats:
    """The lower Cholesky factor of Λ = ΦᵀΦ + ridge; the intercept is hardly shrunk."""
    # The intercept should not be shrunk to 0 at all. The 1e-6 only keeps Λ positive definite where rounding
    # would make it singular.
    gram = design.T @ design
    gram[np.diag_indices_from(gram)] += np.array([1e-6] + [ridge] * (len(gram) - 1))
    return np.asarray(np.linalg.cholesky(gram), np.float64)


def _left_out_errors(design: Floats, costs: Floats) -> list[float]:
    """The mean square leave-one-out error at each ridge of `RIDGES`.

    Args:
        design: Columns of n rows, the first of them constant [n, P].
        costs: The costs [n].
    """
    # No refits are needed. The fit is linear in the costs: ŷ = S y, with S_ii the leverage of row i. Leaving
    # row i out gives the same fit as replacing y_i by the prediction p_i of the fit without it: the row then
    # adds no error, so the other rows decide alone. By linearity, p_i = ŷ_i + S_ii (p_i − y_i), hence
    # y_i − p_i = (y_i − ŷ_i)/(1 − S_ii).
    #
    # With an intercept that is not shrunk, S = 11ᵀ/n + X (XᵀX + ridge)⁻¹ Xᵀ, where X has the centred columns.
    # Write X = U √V Wᵀ and R = U √V = X W. Then S_ii = 1/n + Σ_j R_ij²/(v_j + ridge), so one eigenvalue
    # decomposition serves all ridges: that of X Xᵀ = U V Uᵀ or of XᵀX = W V Wᵀ, whichever is smaller.
    mean, centred = costs.mean(), design - design.mean(axis=0)
    if len(centred) < centred.shape[1]:
        values, left = np.linalg.eigh(centred @ centred.T)
        values = np.maximum(values, 0)  # rounding makes eigenvalues of 0 slightly negative
        rotated = left * np.sqrt(values)
    else:
        values, vectors = np.linalg.eigh(centred.T @ centred)
        values, rotated = np.maximum(values, 0), centred @ vectors
    loads, squares = rotated.T @ (costs - mean), rotated**2
    errors = []
    for ridge in RIDGES:
        leverage = 1 / len(costs) + squares @ (1 / (values + ridge))
        residual = costs - mean - rotated @ (loads / (values + ridge))
        # A leverage of 1, as of a single row, means that only this row decides its prediction.
        errors.append(float(np.mean((residual / np.maximum(1 - leverage, 1e-9)) ** 2)))
    return errors


def _solve(factor: Floats, right: NDArray[np.floating[Any]]) -> Floats:
    from scipy.linalg import cho_solve

    solution: Floats = cho_solve((factor, True), right)
    return solution


def _resampled(design: Floats, costs: Floats, ridge: float, generator: np.random.Generator) -> Floats:
    """The weights [P] of a regression on a bootstrap sample of the rows, with the ridge of all rows."""
    rows = generator.integers(len(costs), size=len(costs))
    return _solve(_factor(design[rows], ridge), design[rows].T @ costs[rows])
