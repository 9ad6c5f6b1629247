"""Randomised UCB: probabilities by hand, and that the logged ones are those with which arms are played."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest

from editloop.errors import ConfigError
from editloop.online import Bandit, BanditConfig, RandUCB
from editloop.online.algorithms.base import drawn
from editloop.online.algorithms.rand_ucb import FLOOR, FLOOR_PULLS, LEAST, LEVELS
from editloop.online.events import event_from_json

ARMS = list("vwxyz")


def test_the_probabilities_by_hand() -> None:
    # log 10 = 2.3026; the widths are sqrt(2.3026/8) = .5365 and sqrt(2.3026/2) = 1.0730. The second arm is
    # best where .4 - 1.0730 z < .2 - .5365 z, for z > .3728. Of ten z from .865 to 1 times .4, that holds for
    # z/.4 > .932: .94, .955, .97, .985 and 1.
    found = RandUCB(0.4).probabilities([8, 2], [8, 2], [0.2, 0.4])
    assert found == pytest.approx([0.5 * (1 - FLOOR) + FLOOR / 2, 0.5 * (1 - FLOOR) + FLOOR / 2])
    # With a smaller alpha no level prefers the second arm, which then has its part of the floor alone.
    found = RandUCB(0.3).probabilities([8, 2], [8, 2], [0.2, 0.4])
    assert found == pytest.approx([1 - FLOOR / 2, FLOOR / 2])


def test_the_floor_falls_with_the_root_of_the_pulls() -> None:
    found = RandUCB().probabilities([700, 100], [700, 100], [0.1, 0.9])
    assert found[1] == pytest.approx(FLOOR / 2 * math.sqrt(200 / 800))


def test_arms_without_a_pull_share_the_probability() -> None:
    found = RandUCB().probabilities([5, 0, 0], [5, 0, 0], [0.0, 0.0, 0.0])
    assert found == pytest.approx([0.02 / 3, 0.98 / 2 + 0.02 / 3, 0.98 / 2 + 0.02 / 3])
    assert RandUCB().probabilities([3], [3], [0.4]) == pytest.approx([1.0])
    assert RandUCB().probabilities([3, 0], [0, 0], [0.4, 0.0]) == pytest.approx([0.01, 0.99])


def test_an_arm_is_drawn_by_its_probability() -> None:
    shares = [0.25, 0.0, 0.75]
    assert [drawn(shares, u)[0] for u in (0.0, 0.249, 0.25, 0.999)] == [0, 0, 2, 2]
    assert drawn([0.5, 0.4999999, 0.0], 0.9999999999) == (1, 0.4999999)  # rounding left a gap


def test_logged_propensities_are_calibrated() -> None:
    """Over 10^5 decisions an arm is played as often as its logged probabilities say, within 3 errors."""
    means = np.array([0.21, 0.36, 0.34, 0.93, 0.49])
    played: dict[tuple[int, float], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for seed in range(250):
        generator = np.random.default_rng(seed)
        costs = generator.beta(5 * means, 5 * (1 - means), (400, 5))
        bandit = Bandit(ARMS, BanditConfig(algorithm="rand-ucb", seed=seed))
        for t in range(400):
            assert isinstance(bandit.algorithm, RandUCB)
            probabilities = bandit.algorithm.probabilities(*bandit.beliefs())
            decision = bandit.decide(str(t))
            index = ARMS.index(decision.arm)
            assert decision.propensity == probabilities[index]
            bandit.edited(str(t), float(costs[t, index]))
            for arm, probability in enumerate(probabilities):
                # In bins of the probability: the small ones matter most for weights of 1/probability.
                cell = played[arm, min(math.floor(-math.log2(max(probability, 1e-9))), 8)]
                cell[0] += arm == index
                cell[1] += probability
                cell[2] += probability * (1 - probability)
    for count, expected, variance in played.values():
        assert abs(count - expected) <= 3.5 * math.sqrt(variance) + 1  # some 40 cells
    by_arm = np.array(
        [[sum(c[k] for (a, _), c in played.items() if a == arm) for k in range(3)] for arm in range(5)]
    )
    assert (np.abs(by_arm[:, 0] - by_arm[:, 1]) <= 3 * np.sqrt(by_arm[:, 2])).all()


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="alpha is a finite number"):
        RandUCB(math.nan)
    assert RandUCB.for_costs(10.0) == RandUCB(4.5) and RandUCB.for_costs(10.0, alpha=2.0) == RandUCB(2.0)


def test_a_probability_is_never_above_1():
    """Rounding would be enough for a log that cannot be read again."""
    algorithm = RandUCB(0.45)
    for n in range(1, 20_000):
        assert algorithm.probabilities([n], [n], [0.3]) == [1.0]
        both = algorithm.probabilities([n, 2 * n], [n, 2 * n], [0.3, 0.31])
        assert max(both) < 1.0 and sum(both) == pytest.approx(1.0, abs=1e-12)


def test_what_one_arm_logs_can_be_read_again():
    bandit = Bandit(["sft"])
    for t in range(600):
        decision = bandit.decide(str(t))
        bandit.edited(str(t), 0.3)
        assert event_from_json(decision.to_json()) == decision


@pytest.mark.parametrize("seed", range(20))
def test_halves_find_what_each_level_finds(seed: int):
    rng = np.random.default_rng(seed)
    algorithm = RandUCB(0.45)
    pulls = rng.integers(1, 60, 6).astype(float).tolist()
    means = rng.uniform(0.2, 0.5, 6).tolist()
    total, log_t = sum(pulls), math.log(sum(pulls))
    floor = FLOOR * min(1.0, math.sqrt(FLOOR_PULLS / total))
    expected = np.full(6, floor / 6)
    for level in range(1, LEVELS + 1):
        z = algorithm.alpha * (LEAST + (1 - LEAST) * level / LEVELS)
        bounds = [mean - z * math.sqrt(log_t / n) for mean, n in zip(means, pulls, strict=True)]
        expected[int(np.argmin(bounds))] += (1 - floor) / LEVELS
    assert algorithm.probabilities(pulls, pulls, means) == pytest.approx(expected.tolist())
