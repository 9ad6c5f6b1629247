"""The cost model: what it recovers, how it is saved, and its uncertainty."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from editloop.errors import ConfigError, RunError
from editloop.offline import CostModel, fidelity, fit_cost_model
from editloop.offline.cost_model.ridge import RIDGES, _left_out_errors

GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.standard_normal((600, 6)) * np.array([1, 10, 0.1, 1, 1, 0]) + 5
NOISE = 0.05 * GENERATOR.standard_normal(600)


def fitted(costs: np.ndarray, heads: int = 0) -> CostModel:
    return fit_cost_model(FEATURES[:300], costs[:300], heads=heads)


def held_out(model: CostModel, costs: np.ndarray) -> float:
    return fidelity(*model.predict(FEATURES[400:]), costs[400:]).r2


def test_a_linear_cost_is_recovered() -> None:
    costs = 1 + FEATURES[:, 0] + 0.1 * FEATURES[:, 1] + NOISE
    model = fitted(costs)
    assert model.settings["features"] == "linear"
    assert held_out(model, costs) > 0.98
    assert model.noise == pytest.approx(0.05, rel=0.25)


@pytest.mark.parametrize("context", [0, 2])
def test_what_a_response_should_be_may_depend_on_the_context(context: int) -> None:
    """The sign of one feature's weight follows another's; the first two are the context's."""
    costs = np.sign(FEATURES[:, 0] - 5) * (FEATURES[:, 3] - 5)
    model = fit_cost_model(FEATURES[:300], costs[:300], context=context)
    assert model.settings["features"].startswith("products")
    assert model.directions.shape == (context or 6, 1024)
    linear = np.hstack([np.ones((600, 1)), FEATURES])
    weights = np.linalg.lstsq(linear[:300], costs[:300], rcond=None)[0]
    assert fidelity(linear[400:] @ weights, NOISE[400:], costs[400:]).r2 < 0.1
    assert held_out(model, costs) > 0.6


@pytest.mark.parametrize("width", [3, 60])
def test_the_error_of_a_row_left_out_is_that_of_a_fit_without_it(width: int) -> None:
    design = np.hstack([np.ones((30, 1)), np.random.default_rng(1).standard_normal((30, width))])
    costs = FEATURES[:30, 0] * FEATURES[:30, 4]
    found = _left_out_errors(design, costs)
    for ridge, error in zip(RIDGES, found, strict=True):
        by_hand = []
        for i in range(30):
            rest = np.arange(30) != i
            # The constant is not shrunk.
            gram = design[rest].T @ design[rest] + np.diag([0] + [ridge] * width)
            weights = np.linalg.solve(gram, design[rest].T @ costs[rest])
            by_hand.append((design[i] @ weights - costs[i]) ** 2)
        assert error == pytest.approx(np.mean(by_hand), rel=1e-6)


def test_costs_that_nothing_explains_are_predicted_by_their_mean() -> None:
    costs = GENERATOR.random(600)
    assert abs(held_out(fitted(costs), costs)) < 0.1


@pytest.mark.parametrize("heads", [0, 20])
def test_uncertainty_falls_with_rows_and_rises_away_from_them(heads: int) -> None:
    costs = FEATURES[:, 0] + NOISE
    many = fitted(costs, heads)
    few = fit_cost_model(FEATURES[:30], costs[:30], heads=heads)
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


@pytest.mark.parametrize("heads", [0, 20])
def test_a_saved_model_says_the_same(heads: int, tmp_path: Path) -> None:
    model = fitted(FEATURES[:, 0] * FEATURES[:, 3], heads)
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


@pytest.mark.parametrize("heads", [0, 20])
def test_costs_that_are_all_equal_are_known(heads: int) -> None:
    model = fit_cost_model(FEATURES[:50], np.full(50, 0.3), heads=heads)
    mean, deviation = model.predict(FEATURES[400:])
    np.testing.assert_allclose(mean, 0.3, atol=1e-6)
    np.testing.assert_allclose(deviation, 0, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_rows_are_predicted_by_about_their_mean(rows: int) -> None:
    costs = np.linspace(0, 1, rows)
    mean, deviation = fit_cost_model(FEATURES[:rows], costs).predict(FEATURES[400:])
    assert np.isfinite(deviation).all()
    assert rows == 1 or (deviation > 0).all()
    assert (mean > costs.mean() - 1.5).all() and (mean < costs.mean() + 1.5).all()


def test_features_that_repeat_each_other_leave_the_model_regular() -> None:
    """ΦᵀΦ is singular; the ridge makes Λ regular."""
    column = FEATURES[:, :1]
    model = fit_cost_model(np.hstack([column] * 5 + [np.ones((600, 2))])[:300], column[:300, 0])
    mean, deviation = model.predict(np.hstack([column] * 5 + [np.ones((600, 2))])[400:])
    assert fidelity(mean, deviation, column[400:, 0]).r2 > 0.99
    assert np.isfinite(deviation).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    costs = FEATURES[:20, 0].copy()
    costs[3] = bad
    with pytest.raises(ConfigError, match="a cost is not finite: '1 of 20'"):
        fit_cost_model(FEATURES[:20], costs)
    features = FEATURES[:20].copy()
    features[2, :2] = bad
    with pytest.raises(ConfigError, match="a feature is not finite: '2 of 120'"):
        fit_cost_model(features, FEATURES[:20, 0])
    with pytest.raises(ConfigError, match="needs rows"):
        fit_cost_model(FEATURES[:0], FEATURES[:0, 0])


def test_a_single_row_is_not_certain() -> None:
    mean, deviation = fit_cost_model(FEATURES[:1], np.array([0.4])).predict(FEATURES[400:])
    np.testing.assert_allclose(mean, 0.4, atol=1e-3)
    assert (deviation > 0.1).all()


def test_a_feature_of_large_mean_takes_no_other_away() -> None:
    features = GENERATOR.standard_normal((200, 3)) * 0.5 + np.array([0, 0, 1e6])
    model = fit_cost_model(features[:150], features[:150, 0])
    assert fidelity(*model.predict(features[150:]), features[150:, 0]).r2 > 0.99


def test_many_rows_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editloop.offline.cost_model.ridge.MOST_ROWS", 120)
    costs = 1 + FEATURES[:, 0]
    model = fitted(costs)
    assert model.settings["rows"] == 120
    assert held_out(model, costs) > 0.98


def test_one_regression_is_no_bootstrap() -> None:
    with pytest.raises(ConfigError, match="no spread"):
        fitted(FEATURES[:, 0], heads=1)
