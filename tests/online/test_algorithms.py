"""Algorithms: choices by hand-computed indices."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from editloop.errors import ConfigError
from editloop.online import (
    KLUCB,
    UCB,
    Bandit,
    BanditConfig,
    Fixed,
    LinTS,
    SquareCB,
    Thompson,
    Uniform,
    get_algorithm,
)
from editloop.online.algorithms import ALGORITHMS
from plug_in import install_plug_in


def never() -> float:
    raise AssertionError("a deterministic algorithm drew a number")


def test_ucb_takes_the_least_mean_less_its_bonus():
    # log 10 = 2.3026. Indices at alpha .5: .2 - .5 sqrt(2.3026/8) = -.0682; .4 - .5 sqrt(2.3026/2) = -.1365.
    assert UCB(0.5).choose([8, 2], [8, 2], [0.2, 0.4], never) == (1, None)
    # At alpha .4: .2 - .2146 = -.0146; .4 - .4292 = -.0292. At .3: .2 - .1610 = .0390; .4 - .3219 = .0781.
    assert UCB(0.4).choose([8, 2], [8, 2], [0.2, 0.4], never)[0] == 1
    assert UCB(0.3).choose([8, 2], [8, 2], [0.2, 0.4], never)[0] == 0


def test_alpha_carries_the_unit_of_the_cost():
    pulls, means = [8, 2], [0.2, 0.4]
    for alpha in (0.3, 0.5):
        unit = UCB(alpha).choose(pulls, pulls, means, never)
        assert UCB(150 * alpha).choose(pulls, pulls, [150 * m for m in means], never) == unit


@pytest.mark.parametrize("algorithm", [UCB(), KLUCB()])
def test_an_arm_without_a_pull_comes_first(algorithm):
    assert algorithm.choose([5, 0, 0], [5, 0, 0], [0.0, 0.0, 0.0], never) == (1, None)


def test_a_pull_in_flight_counts_in_n():
    # Equal arms: the one with a pull in flight has the smaller bonus.
    assert UCB().choose([3, 2], [2, 2], [0.3, 0.3], never)[0] == 1
    assert UCB().choose([2, 3], [2, 2], [0.3, 0.3], never)[0] == 0


def test_kl_ucb_takes_the_least_plausible_mean():
    # kl(.2, 0.02116) = log(10) / 8 and kl(.4, 0.01062) = log(10) / 2, Bernoulli.
    for p, q, n in ((0.2, 0.02116, 8), (0.4, 0.01062, 2)):
        kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        assert kl == pytest.approx(math.log(10) / n, abs=1e-3)
    chosen = KLUCB().choose([8, 2], [8, 2], [0.2, 0.4], never)[0]
    assert chosen == 1
    assert KLUCB(scale=10).choose([8, 2], [8, 2], [2.0, 4.0], never)[0] == chosen


def test_kl_ucb_takes_costs_of_zero_and_above_the_scale():
    assert KLUCB().choose([5, 5], [5, 5], [0.0, 7.0], never)[0] == 0


def test_thompson_knows_its_propensities():
    # Beta(1, 1) against Beta(2, 1): P(U < V) with density 2v of V is the mean of V, 2/3.
    first, second = Thompson().probabilities([0, 1], [0.0, 1.0])
    assert first == pytest.approx(2 / 3, abs=2e-3)
    assert first + second == pytest.approx(1)
    equal = Thompson().probabilities([7, 7, 7], [0.3, 0.3, 0.3])
    assert equal == pytest.approx([1 / 3] * 3)


def test_thompson_agrees_with_sampling():
    generator = random.Random(0)
    observed, means = [3.5, 40, 1000], [0.5, 0.32, 0.35]
    expected = Thompson().probabilities(observed, means)
    wins = [0, 0, 0]
    for _ in range(20_000):
        draws = [
            generator.betavariate(1 + n * m, 1 + n * (1 - m)) for n, m in zip(observed, means, strict=True)
        ]
        wins[draws.index(min(draws))] += 1
    for p, count in zip(expected, wins, strict=True):
        assert abs(count / 20_000 - p) < 4 * math.sqrt(p * (1 - p) / 20_000) + 2e-3


def test_thompson_counts_a_small_cost_as_a_fraction():
    # A Beta that takes .01 for a success would sit at 1/1002; fractions keep it at .01.
    many = Thompson().probabilities([1000, 1000], [0.01, 0.0])
    assert many[1] > 0.99


def test_thompson_and_uniform_draw_what_they_say():
    draws = iter([0.0, 0.34, 0.99999])
    for expected in (0, 1, 2):
        assert Uniform().choose([1, 1, 1], [1, 1, 1], [0, 0, 0], lambda: next(draws)) == (expected, 1 / 3)
    chosen, propensity = Thompson().choose([1, 1], [0, 1], [0.0, 1.0], lambda: 0.999)
    assert (chosen, propensity) == (1, pytest.approx(1 / 3, abs=2e-3))


def test_algorithms_by_name():
    assert get_algorithm("ucb", alpha=2.0) == UCB(2.0)
    assert get_algorithm("fixed", arm=1).choose([0, 0], [0, 0], [0, 0], never) == (1, None)
    with pytest.raises(ConfigError, match="unknown algorithm: 'ucb2'"):
        get_algorithm("ucb2")
    with pytest.raises(ConfigError, match="does not take these options"):
        get_algorithm("uniform", alpha=1.0)
    with pytest.raises(ConfigError, match="no such arm: 2"):
        Fixed(2).choose([0, 0], [0, 0], [0, 0], never)
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="alpha is a finite number"):
            UCB(bad)
    with pytest.raises(ConfigError, match="scale of a cost"):
        Thompson(0.0)


def test_an_algorithm_is_made_for_the_scale_of_a_cost():
    made = {name: ALGORITHMS.get(name).for_costs(10.0) for name in ALGORITHMS.built_in}
    assert all(name == algorithm.name for name, algorithm in made.items())
    assert made["ucb"] == UCB(4.5) and made["kl-ucb"] == KLUCB(10.0) and made["thompson"] == Thompson(10.0)
    assert made["uniform"] == Uniform() and made["fixed"] == Fixed()
    assert ALGORITHMS.get("ucb").for_costs(10.0, alpha=2.0) == UCB(2.0)


GREEDY = """
class Greedy:
    name = "greedy"

    @classmethod
    def for_costs(cls, scale, *, alpha=None):
        return cls()

    def choose(self, pulls, observed, means, uniform):
        return min(range(len(means)), key=lambda arm: means[arm] if observed[arm] else 0.0), 1.0
"""


def test_an_algorithm_from_another_package_is_played(tmp_path, monkeypatch):
    install_plug_in(tmp_path, monkeypatch, "editloop.bandits", GREEDY, greedy="Greedy")
    bandit = Bandit(["a", "b"], BanditConfig(algorithm="greedy"))
    assert bandit.decide("1").arm == "a"
    bandit.edited("1", 0.5)
    assert bandit.decide("2").arm == "b"
    assert Bandit.from_json(bandit.to_json()).algorithm.name == "greedy"
    with pytest.raises(ConfigError, match=r"unknown algorithm: 'exp3' \(use one of ucb, .*, greedy\)"):
        BanditConfig(algorithm="exp3")


def test_the_algorithm_in_the_guide_is_played():
    guide = (Path(__file__).parents[2] / "docs/online.md").read_text(encoding="utf-8")
    names = {}
    exec(guide.split("```python\n")[2].split("```")[0], names)
    bandit = names["bandit"]
    assert bandit.decide("1").arm == "sft"
    bandit.edited("1", 0.5)
    assert bandit.decide("2").arm == "dpo"


# Inverse-gap weighting


def test_square_cb_by_hand():
    """K = 3 and γ = 20 √25: gaps of .1 and .3 have the probabilities 1/13 and 1/33."""
    found = SquareCB().probabilities([10, 10, 5], [10, 10, 5], [0.3, 0.2, 0.5])
    assert found == pytest.approx([1 / 13, 1 - 1 / 13 - 1 / 33, 1 / 33])
    in_cents = SquareCB(scale=100).probabilities([10, 10, 5], [10, 10, 5], [30, 20, 50])
    assert in_cents == pytest.approx(found)
    assert SquareCB().probabilities([3, 0, 0], [3, 0, 0], [0.1, 0.0, 0.0]) == [0.0, 0.5, 0.5]


# Normal posteriors


def test_lin_ts_of_two_arms_is_the_probability_of_a_difference_of_normals():
    """N(.2, .25²/4) below N(.4, .25²/16): the difference has the deviation .25 √(1/4 + 1/16)."""
    expected = 0.5 * (1 + math.erf(0.2 / (0.25 * math.sqrt(5 / 16)) / math.sqrt(2)))
    found = LinTS().probabilities([4, 16], [4, 16], [0.2, 0.4])
    assert found[0] == pytest.approx(0.99 * expected + 0.005, abs=1e-3)
    assert found.sum() == pytest.approx(1.0)
    assert LinTS().probabilities([3, 0], [3, 0], [0.1, 0.0]).tolist() == [0.0, 1.0]


def test_lin_ts_agrees_with_draws_from_the_posteriors():
    pulls, means = [20, 30, 10, 5, 8], [0.2, 0.25, 0.3, 0.1, 0.5]
    draws = np.random.default_rng(0).normal(size=(200_000, 5)) * 0.25 / np.sqrt(pulls) + means
    share = np.bincount(draws.argmin(axis=1), minlength=5) / len(draws)
    assert LinTS().probabilities(pulls, pulls, means) == pytest.approx(0.99 * share + 0.002, abs=0.01)


# All of them


@pytest.mark.parametrize("name", ALGORITHMS.built_in)
def test_the_frequencies_are_those_of_the_logged_propensities(name: str):
    """Over 10^5 decisions, an arm is played as often as its propensity says, within 3 standard errors.

    The arms' numbers change from decision to decision. Decisions are compared in groups of a like propensity.
    """
    rng = np.random.default_rng(7)
    algorithm = ALGORITHMS.get(name).for_costs(1.0)
    states = [(rng.integers(1, 60, 4).tolist(), rng.uniform(0.1, 0.6, 4).tolist()) for _ in range(50)]
    played: Counter[tuple[int, int]] = Counter()
    said: dict[tuple[int, int], float | None] = {}
    for i, uniform in enumerate(rng.random(100_000)):
        pulls, means = states[i % 50]
        arm, propensity = algorithm.choose(pulls, pulls, means, lambda u=uniform: u)
        played[i % 50, arm] += 1
        said[i % 50, arm] = propensity
    drawn = [key for key, propensity in said.items() if propensity is not None]
    if not drawn:  # it says that it does not draw, and plays one arm for one state
        assert len(said) == 50
        return
    assert len(drawn) == len(said)
    for low in np.arange(0.0, 1.0, 0.1):
        group = [key for key in drawn if low < said[key] <= low + 0.1]
        expected = sum(2000 * said[key] for key in group)
        error = math.sqrt(sum(2000 * said[key] * (1 - said[key]) for key in group))
        assert abs(sum(played[key] for key in group) - expected) <= 3 * error + 1e-6
