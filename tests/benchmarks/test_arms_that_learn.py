"""The benchmark of arms that learn: what its arms cost, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.learners import ALGORITHMS, ENVIRONMENTS, ROUNDS, best, learns, play, run


def test_what_an_arm_costs_by_hand() -> None:
    arm = learns(0.6, 0.1, 40)
    assert arm(0) == pytest.approx(0.6) and arm(40) == pytest.approx(0.1 + 0.5 / 2.718281828)
    # The sum of a geometric series: .1 T + .5 (1 − q^T) / (1 − q), q = exp(−1/40).
    q = 2.718281828459045 ** (-1 / 40)
    assert best(ENVIRONMENTS[0]) == pytest.approx(0.1 + 0.5 * (1 - q**ROUNDS) / (1 - q) / ROUNDS)
    assert best(ENVIRONMENTS[4]) == 0.25


def test_no_algorithm_costs_less_than_the_best_arm_alone() -> None:
    assert play(ENVIRONMENTS[4], "rand-ucb", 0) > 0.25
    assert play(ENVIRONMENTS[4], "uniform", 0) == pytest.approx(0.275, abs=0.005)


def test_a_run_is_written(tmp_path: Path) -> None:
    run(tmp_path, seeds=1)
    data = json.loads((tmp_path / "learners.json").read_text())
    assert [set(each["costs"]) for each in data["results"]] == [set(ALGORITHMS)] * len(ENVIRONMENTS)
    assert "| no arm learns: .25, .3 | 0.250 |" in (tmp_path / "learners.md").read_text()
