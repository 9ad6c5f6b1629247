"""The cost model: what it must recover, how it is kept, and what it says of its own uncertainty."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from editloop.errors import RunError
from editloop.offline import CostModel, fidelity, fit_cost_model
from editloop.offline.cost_model import Spread

GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.standard_normal((600, 6)) * np.array([1, 10, 0.1, 1, 1, 0]) + 5
NOISE = 0.05 * GENERATOR.standard_normal(600)


def fitted(costs: np.ndarray, spread: Spread = "ridge") -> CostModel:
    return fit_cost_model(FEATURES[:300], costs[:300], FEATURES[300:400], costs[300:400], spread=spread)


def held_out(model: CostModel, costs: np.ndarray) -> float:
    return fidelity(*model.predict(FEATURES[400:]), costs[400:]).r2


def test_a_linear_cost_is_recovered() -> None:
    costs = 1 + FEATURES[:, 0] + 0.1 * FEATURES[:, 1] + NOISE
    model = fitted(costs)
    assert model.settings["features"] == "linear"
    assert held_out(model, costs) > 0.98
    assert model.noise == pytest.approx(0.05, rel=0.25)


def test_a_cost_that_depends_on_two_features_together_is_found_too() -> None:
    costs = (FEATURES[:, 0] > 5).astype(float) * (FEATURES[:, 3] > 5) + (FEATURES[:, 0] < 5) * (
        FEATURES[:, 3] < 5
    )
    model = fitted(costs.astype(float))
    assert model.settings["features"].startswith("fourier")
    assert held_out(model, costs) > 0.5


def test_costs_that_nothing_explains_are_predicted_by_their_mean() -> None:
    costs = GENERATOR.random(600)
    assert abs(held_out(fitted(costs), costs)) < 0.1


@pytest.mark.parametrize("spread", ["ridge", "bootstrap"])
def test_uncertainty_falls_with_rows_and_rises_away_from_them(spread: Spread) -> None:
    costs = FEATURES[:, 0] + NOISE
    many = fitted(costs, spread)
    few = fit_cost_model(FEATURES[:30], costs[:30], FEATURES[300:400], costs[300:400], spread=spread)
    near, far = FEATURES[400:], FEATURES[400:] + 20 * FEATURES.std(axis=0)
    assert many.predict(near)[1].mean() < few.predict(near)[1].mean() / 1.5
    assert many.predict(far)[1].mean() > 2 * many.predict(near)[1].mean()
    mean, deviation = many.predict(near)
    np.testing.assert_allclose(many.pessimistic(near, 1.5), mean + 1.5 * deviation)


def test_the_uncertainty_is_that_of_the_formula() -> None:
    """Of a linear model, by hand: noise times the root of phi' (Phi' Phi + ridge)^-1 phi."""
    costs = FEATURES[:, 0] + NOISE
    model = fitted(costs)
    assert model.settings["features"] == "linear"

    def design(rows: np.ndarray) -> np.ndarray:
        scale = np.where(FEATURES[:300].std(axis=0) > 1e-6, FEATURES[:300].std(axis=0), np.inf)
        standard = (rows - FEATURES[:300].mean(axis=0)) / scale
        return np.hstack([np.ones((len(rows), 1)), standard / math.sqrt(6)])

    phi = design(FEATURES[:300])
    ridge = np.diag([1e-6, *[model.settings["ridge"]] * 6])
    row = design(FEATURES[400:401])[0]
    expected = model.noise * math.sqrt(row @ np.linalg.inv(phi.T @ phi + ridge) @ row)
    assert model.predict(FEATURES[400:401])[1][0] == pytest.approx(expected, rel=1e-6)


def test_fidelity_by_hand() -> None:
    found = fidelity(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0]), np.array([0.0, 2.0, 4.0]))
    assert found.r2 == pytest.approx(1 - (5 / 3) / (8 / 3))
    assert (found.pearson, found.spearman) == (pytest.approx(1), pytest.approx(1))
    assert found.covered == pytest.approx((1 / 3, 2 / 3, 1))
    flat = fidelity(np.zeros(3), np.zeros(3), np.array([1.0, 1.0, 1.0]))
    assert math.isnan(flat.r2) and math.isnan(flat.pearson)


@pytest.mark.parametrize("spread", ["ridge", "bootstrap"])
def test_a_saved_model_says_the_same(spread: Spread, tmp_path: Path) -> None:
    model = fitted(FEATURES[:, 0] * FEATURES[:, 3], spread)
    model.save(tmp_path / "cost_model")
    again = CostModel.load(tmp_path / "cost_model")
    for a, b in zip(model.predict(FEATURES), again.predict(FEATURES), strict=True):
        np.testing.assert_array_equal(a, b)
    assert replace(again, settings={}).noise == model.noise
    (tmp_path / "cost_model/cost_model.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match="missing or damaged"):
        CostModel.load(tmp_path / "cost_model")
    with pytest.raises(RunError, match="missing or damaged"):
        CostModel.load(tmp_path)
