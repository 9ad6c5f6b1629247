"""The claims, small: what they measure is what theory says, and a page and a figure come of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.errors import WorldError
from editloop.theory.claims import contraction, rates, regret, solutions, violations, winners
from editloop.theory.claims.regret import (
    Arms,
    hard_arms,
    lai_robbins,
    least_divergence,
    minimax,
    proved_bound,
)


def page(folder: Path, name: str) -> str:
    """The page of a claim, whose JSON and figure lie beside it."""
    assert json.loads((folder / f"{name}.json").read_text())["name"] == name
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / f"{name}.md").read_text()
    assert f"by `editloop theory {name}`" in text and "nan" not in text
    return text


def test_contraction(tmp_path: Path) -> None:
    found = contraction.run(tmp_path, worlds=150)["kinds"]
    assert [each["violations"] for each in found.values()] == [0, 0, 0]
    assert found["as it was"]["tight"] == 1.0
    assert all(each["median_factor"] <= each["median_dobrushin"] + 1e-9 for each in found.values())
    assert "| a local edit |" in page(tmp_path, "contraction")


def test_solutions(tmp_path: Path) -> None:
    rows = {row["beta"]: row for row in solutions.run(tmp_path, worlds=4)["betas"]}
    assert rows[2.0]["unique_proved"] and not rows[0.5]["unique_proved"]
    assert rows[2.0]["several"] == rows[1.0]["several"] == 0
    assert rows[0.1]["several"] == rows[0.25]["several"] == rows[0.1]["several_attracting"] == 4
    assert max(row["worst_residual"] for row in rows.values()) <= 1e-10
    assert "4 of 4" in page(tmp_path, "solutions")


def test_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SIZES", (300, 1_000, 3_000, 10_000))
    found = rates.run(tmp_path, logs=30)["users"]
    for user in found.values():
        low, high = user["methods"]["dpo"]["exponent_95"]
        assert low <= -1 + 0.1 and high >= -1 - 0.1
        for name in ("dpo", "rl"):
            method = user["methods"][name]
            assert method["bias"] < 1e-9 and method["mean"] == sorted(method["mean"], reverse=True)
        assert user["methods"]["sft"]["bias"] <= user["bias_bounds"]["sft"]
    bias = [user["methods"]["sft"]["bias"] for user in found.values()]
    assert bias == sorted(bias)  # a weak user teaches SFT less
    assert "strong (γ_min 0.9" in page(tmp_path, "rates")


def test_winners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winners, "GAMMAS", (0.02, 1.0))
    monkeypatch.setattr(winners, "COVERAGES", (1.5, 10.0))
    found = winners.run(tmp_path, worlds=6)
    subopt = np.array(found["kl"])
    sft = found["methods"].index("sft")
    assert subopt[1, 1, -1].argmin() == sft  # who writes the optimum teaches by example
    assert (subopt[0, :, -1, sft] > subopt[0, :, -1].min(axis=-1)).all()
    assert "| 3,000 | sft |" in page(tmp_path, "winners")


def test_regret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regret, "ROUNDS", 400)
    monkeypatch.setattr(regret, "MOMENTS", (10, 200, 400))
    monkeypatch.setattr(regret, "HARD", (100,))
    found = regret.run(tmp_path, seeds=6)
    for instance in found["instances"].values():
        gap = max(instance["means"].values()) - min(instance["means"].values())
        for regret_ in instance["regret"].values():
            assert regret_["mean"] == sorted(regret_["mean"]) and regret_["mean"][-1] < 0.8 * 400 * gap
        assert instance["lai_robbins"] > 0
    (hardest,) = found["hardest"]
    assert all(hardest["minimax"] < mean < hardest["uniform"] for mean, _ in hardest["regret"].values())
    assert "Lai-Robbins" in page(tmp_path, "regret")


def test_violations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(violations, "SHARES", (0.0, 0.2))
    found = violations.run(tmp_path, worlds=3, checked=60)
    assert all(each["exceptions"] == 0 for each in found["bounds"].values())
    for several in found["kinds"].values():
        none, some = several
        assert none["imbalance"] < 1e-12 < some["imbalance"]
        assert none["limit"]["dpo"] < 1e-9 < some["limit"]["dpo"]
        assert some["limit"]["rl"] < 1e-12  # costs are costs
    assert "| adversarial | 0.2 |" in page(tmp_path, "violations")


def test_lower_and_upper_bounds_by_hand() -> None:
    coins = Arms(("a", "b"), np.array([0.0, 1.0]), np.array([[0.8, 0.2], [0.5, 0.5]]))
    assert coins.gaps.tolist() == pytest.approx([0.0, 0.3])
    # For coins K_inf is the divergence of Bernoulli distributions.
    kl = 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)
    assert least_divergence(coins.values, coins.shares[1], 0.2) == pytest.approx(kl, rel=1e-6)
    assert lai_robbins(coins) == pytest.approx(0.3 / kl, rel=1e-6)
    assert proved_bound(coins.gaps, math.e) == pytest.approx(8 / 0.3 + (1 + math.pi**2 / 3) * 0.3)
    assert minimax(4, 100) == 1.0 and minimax(4, 2) == 0.1
    assert hard_arms(5, 500, 0.5).gaps.tolist() == pytest.approx([0.05] * 4 + [0.0])
    with pytest.raises(WorldError, match="between 0 and the arm's"):
        least_divergence(coins.values, coins.shares[0], 0.3)


def test_the_seed_decides(tmp_path: Path) -> None:
    def run(seed: int) -> Any:
        return contraction.run(tmp_path / str(seed), seed=seed, worlds=30)["kinds"]

    assert run(1) == run(1) != run(2)
