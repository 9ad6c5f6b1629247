"""Pessimism in worlds with known costs: the optimum by hand, and a seeded test of what κ is worth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import pessimism
from benchmarks.pessimism import BETA, NOISE, RESPONSES, learned, make_world


def test_the_optimum_of_a_world_by_hand() -> None:
    world = make_world(3)
    policy = world.optimum(world.costs)
    np.testing.assert_allclose(policy.sum(axis=1), 1)
    ratio = np.log(policy[0, 3] / policy[0, 8])
    assert ratio == pytest.approx((world.costs[0, 8] - world.costs[0, 3]) / BETA)
    assert world.subopt(policy) == pytest.approx(0, abs=1e-12)
    uniform = np.full_like(policy, 1 / RESPONSES)
    assert world.subopt(uniform) > 0.01
    # SubOpt is β times the divergence from the optimum.
    divergence = (uniform * np.log(uniform / policy)).sum(axis=1).mean()
    assert world.subopt(uniform) == pytest.approx(BETA * divergence)


def test_pessimism_pays_where_the_log_misses_a_region_and_only_there() -> None:
    seeds = range(8)

    def gain(covered: float) -> np.ndarray:
        """What κ = 1 saves against κ = 0, world by world."""
        found = []
        for seed in seeds:
            world = make_world(seed)
            policies = learned(world, rows=200, covered=covered, noise=NOISE, kappas=(0.0, 1.0), seed=seed)
            found.append(world.expected_cost(policies[0.0]) - world.expected_cost(policies[1.0]))
        return np.array(found)

    missing, whole = gain(0.5), gain(1.0)
    assert missing.mean() > 3 * missing.std(ddof=1) / np.sqrt(len(missing)) > 0
    assert missing.mean() > 0.02
    assert abs(whole.mean()) < 0.01


def test_with_exact_costs_subopt_falls_as_the_log_grows() -> None:
    found = []
    for rows in (25, 100, 400):
        subopt = []
        for seed in range(5):
            world = make_world(seed)
            (policy,) = learned(world, rows=rows, covered=1.0, noise=0.0, kappas=(0.0,), seed=seed).values()
            subopt.append(world.subopt(policy))
        found.append(np.mean(subopt))
    assert found == sorted(found, reverse=True)
    assert found[0] > 1.5 * found[2] > 0


def test_the_benchmark_writes_what_it_measured(tmp_path: Path) -> None:
    data = pessimism.run(tmp_path, seeds=2)
    kept = json.loads((tmp_path / "pessimism.json").read_text())
    assert kept["cost"] == json.loads(json.dumps(data["cost"]))
    assert data["against_no_pessimism"]["0.5"]["0.0"][0] == 0
    assert data["optimum"] < data["cost"]["1.0"]["0.0"][0] < data["reference"]
    assert "| κ = 8 |" in (tmp_path / "pessimism.md").read_text()
    assert (tmp_path / "pessimism.png").stat().st_size > 10_000
