"""Regret balancing, by hand and on arms that improve as they are played."""

from __future__ import annotations

import math

import pytest

from editloop.online import Bandit, BanditConfig, get_algorithm
from editloop.online.algorithms.regret_balancing import (
    CONFIDENCE,
    ERROR,
    LEAST_COEFFICIENT,
    RegretBalancing,
)


def never() -> float:
    raise AssertionError("a deterministic algorithm drew a number")


def test_an_arm_without_a_pull_comes_first():
    assert RegretBalancing().choose([4, 0, 0], [4, 0, 0], [0.1, 0.0, 0.0], never) == (1, None)


def test_arms_that_cannot_be_told_apart_share_the_pulls_the_cheaper_one_first():
    assert RegretBalancing().choose([4, 4], [4, 4], [0.4, 0.3], never) == (1, None)
    assert RegretBalancing().choose([4, 5], [4, 5], [0.4, 0.3], never) == (0, None)


def test_the_potentials_by_hand():
    # s(100) = sqrt(log(2 log(100) / .1) / 100) = .2126; the least upper bound is .2 + .25 × .2126 = .2532.
    # The dear arm explains 10 (.6 − .0532 − .2532) = 2.936 √N, which is above .25; its potential is 29.4.
    reach = CONFIDENCE * math.sqrt(math.log(2 * math.log(100) / ERROR) / 100)
    d = 10 * (0.6 - reach - (0.2 + reach))
    assert reach == pytest.approx(0.0532, abs=1e-4) and d == pytest.approx(2.936, abs=1e-2)
    # So the good arm, whose coefficient is the least one, is played until .25 √N exceeds it.
    pulls = math.floor((10 * d / LEAST_COEFFICIENT) ** 2)
    algorithm = RegretBalancing()
    assert 13_000 < pulls < 14_500
    assert algorithm.choose([100, pulls], [100, 100], [0.6, 0.2], never)[0] == 1
    assert algorithm.choose([100, pulls + 1], [100, 100], [0.6, 0.2], never)[0] == 0


def test_the_scale_is_that_of_the_costs():
    for pulls in ([100, 110], [100, 118], [3, 9]):
        unit = RegretBalancing().choose(pulls, pulls, [0.6, 0.2], never)
        assert RegretBalancing(40.0).choose(pulls, pulls, [24.0, 8.0], never) == unit
    assert get_algorithm("regret-balancing", scale=2.0) == RegretBalancing(2.0)


def test_an_arm_that_gets_better_as_it_is_played_is_not_given_up():
    def share(algorithm: str) -> float:
        bandit = Bandit(["still", "learns"], BanditConfig(algorithm=algorithm, features="none"))
        played = 0
        for t in range(800):
            arm = bandit.decide(str(t)).arm
            played += arm == "learns"
            bandit.edited(str(t), 0.3 if arm == "still" else 0.05 + 0.6 * math.exp(-played / 40))
        return played / 800

    assert share("regret-balancing") > 0.75
    assert share("ucb") < 0.2
