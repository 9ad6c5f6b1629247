"""Bandits: scopes, priors, epochs, and seeded gates on their regret."""

from __future__ import annotations

import math

import numpy as np
import pytest

from editloop.errors import BanditError, ConfigError
from editloop.online import Bandit, BanditConfig, resolve_scale

MEANS = np.array([0.21, 0.36, 0.34, 0.93, 0.49])
OTHER = np.array([0.49, 0.21, 0.34, 0.93, 0.36])
ARMS = list("vwxyz")


def feed(bandit: Bandit, scope: str, arm: str, costs: list[float]) -> None:
    """Feeds costs of an arm, whatever the algorithm would choose."""
    from editloop.online import Decided, Feedback

    for cost in costs:
        key = str(bandit.state.decisions)
        bandit.state.apply(Decided(key, scope, arm, 1.0, bandit.state.epoch))
        bandit.state.apply(Feedback(key, "edited", cost))


def test_every_arm_is_tried_once_and_then_the_best_is_played_most():
    bandit = Bandit(ARMS)
    played = []
    for t in range(200):
        arm = bandit.decide(str(t)).arm
        bandit.edited(str(t), float(MEANS[ARMS.index(arm)]))
        played.append(arm)
    assert sorted(played[:5]) == ARMS
    assert max(ARMS, key=played.count) == "v"


def test_fewer_rounds_than_arms_plays_different_arms():
    bandit = Bandit(ARMS, BanditConfig(algorithm="ucb"))
    assert [bandit.decide(str(t)).arm for t in range(3)] == ["v", "w", "x"]
    by_default = Bandit(ARMS)
    assert len({by_default.decide(str(t)).arm for t in range(3)}) == 3


def test_scopes_are_apart_when_nothing_is_pooled():
    bandit = Bandit(["a", "b"], BanditConfig(pool=0))
    feed(bandit, "ada", "a", [1.0] * 5)
    assert bandit.beliefs("ada")[0] == [5, 0]
    assert bandit.beliefs("bob")[0] == [0, 0]


def test_what_other_scopes_saw_counts_for_a_set_number_of_pulls():
    bandit = Bandit(["a", "b"], BanditConfig(pool=5))
    feed(bandit, "ada", "a", [0.2] * 8)
    feed(bandit, "bob", "a", [0.6] * 5)
    feed(bandit, "bob", "b", [0.9])
    # For bob: 5 pulls of his own at .6 and 5 of ada's mean .2; b was seen by nobody else.
    pulls, _, means = bandit.beliefs("bob")
    assert pulls == pytest.approx([10, 1])
    assert means == pytest.approx([0.4, 0.9])
    # For carol: 5 pulls at the mean of 13; the one pull of b counts for no more than it was.
    pulls, _, means = bandit.beliefs("carol")
    assert pulls == pytest.approx([5, 1])
    assert means == pytest.approx([(1.6 + 3.0) / 13, 0.9])


def test_the_learned_prior_is_strong_where_scopes_agree_and_weak_where_they_do_not():
    generator = np.random.default_rng(0)
    bandit = Bandit(["agreed", "disputed"])
    for user in range(12):
        feed(bandit, f"u{user}", "agreed", list(0.3 + 0.1 * generator.random(6)))
        feed(bandit, f"u{user}", "disputed", list((0.1 if user % 2 else 0.8) + 0.1 * generator.random(6)))
    agreed, disputed = bandit.beliefs("new")[0]
    assert agreed > 15
    assert disputed < 2


def test_a_prior_from_validation_is_capped_and_outweighed_by_what_is_seen():
    prior = {"a": 0.9, "b": 0.1}
    bandit = Bandit(["a", "b", "c"], BanditConfig(prior=prior, prior_strength=4))
    assert bandit.beliefs() == ([4, 4, 0], [4, 4, 0], [pytest.approx(0.9), pytest.approx(0.1), 0])
    feed(bandit, "", "a", [0.1] * 4)
    assert bandit.beliefs()[2][0] == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="prior_strength: Input should be less than or equal to 5: 20"):
        BanditConfig(prior_strength=20)
    with pytest.raises(ConfigError, match="finite number"):
        BanditConfig(prior={"a": math.nan})


def test_an_arm_may_join_and_leave_and_keeps_its_counts():
    bandit = Bandit(["a", "b"])
    feed(bandit, "", "a", [0.5] * 3)
    feed(bandit, "", "b", [0.5] * 3)
    bandit.set_arms(["a", "new"])
    decision = bandit.decide("next")
    assert (decision.arm, decision.epoch) == ("new", 2)
    bandit.set_arms(["a", "b"])
    assert bandit.beliefs()[0] == [3, 3]
    for bad in ([], ["a", "a"], [""]):
        with pytest.raises(ConfigError, match="distinct names"):
            bandit.set_arms(bad)


def test_a_bandit_without_arms_cannot_choose():
    with pytest.raises(BanditError, match="no arms"):
        Bandit().decide("r")


def test_a_response_is_decided_once():
    bandit = Bandit(["a"])
    bandit.decide("1")
    with pytest.raises(BanditError, match="decided before: '1'"):
        bandit.decide("1")


def test_a_draft_that_was_thrown_away_costs_what_the_configuration_says():
    for options, cost in (({}, 1.0), ({"scale": 30.0}, 30.0), ({"discard_cost": 0.7}, 0.7)):
        bandit = Bandit(["a"], BanditConfig(**options))
        bandit.decide("1")
        assert bandit.discarded("1", revision=2).cost == cost
        assert bandit.beliefs() == ([1], [1], [cost])


@pytest.mark.parametrize("bounded", [True, False])
def test_one_absurd_cost_does_not_decide_the_rounds_that_follow(bounded: bool):
    """Two arms cost .3 and .5. The tenth pull of the better one costs 19."""
    bandit, good = Bandit(["good", "bad"], BanditConfig(bounded=bounded)), 0
    played = []
    for t in range(500):
        arm = bandit.decide(str(t)).arm
        good += arm == "good"
        absurd = arm == "good" and good == 10
        bandit.edited(str(t), 19.0 if absurd else {"good": 0.3, "bad": 0.5}[arm])
        played.append(arm)
    share = played[100:].count("good") / 400
    assert share > 0.85 if bounded else share < 0.1  # unbounded is Algorithm 1 to the letter


def test_alpha_is_kept_with_the_cost_it_belongs_to():
    assert resolve_scale("levenshtein:word/response")[0] == 1.0
    scale, reason = resolve_scale("levenshtein:char/none", [float(i) for i in range(1, 102)])
    assert (scale, reason) == (96.0, "95% of 101 costs are at most this")
    bandit = Bandit(["a"], BanditConfig(cost="levenshtein:char/none", scale=scale))
    assert bandit.algorithm.alpha == pytest.approx(0.45 * 96)
    again = Bandit.from_json(bandit.to_json())
    assert (again.config.cost, again.algorithm) == ("levenshtein:char/none", bandit.algorithm)
    with pytest.raises(ConfigError, match="scale of this cost is not known"):
        resolve_scale("levenshtein:char/none")


def test_draws_follow_the_seed_and_the_response_alone():
    def played(seed: int, order: list[str]) -> dict[str, str]:
        bandit = Bandit(ARMS, BanditConfig(algorithm="uniform", seed=seed))
        return {key: bandit.decide(key).arm for key in order}

    keys = [str(i) for i in range(50)]
    assert played(0, keys) == played(0, keys[::-1])
    assert played(0, keys) != played(1, keys)
    assert len(set(played(0, keys).values())) == 5


@pytest.mark.parametrize(
    "bad", [{"scale": 0}, {"discount": 0}, {"discount": 1.1}, {"pool": -1}, {"memory": 0}, {"algorithm": "x"}]
)
def test_a_configuration_that_cannot_be_is_refused(bad):
    with pytest.raises(ConfigError):
        BanditConfig(**bad)


def regret(means: np.ndarray, seed: int, *, delay: int = 0) -> float:
    """Pseudo-regret of the default on costs Beta(5μ, 5(1−μ)) with means [rounds, arms]."""
    costs = np.random.default_rng(seed).beta(5 * means, 5 * (1 - means))
    bandit, played = Bandit(ARMS), []
    for t in range(len(means)):
        if t > delay:
            bandit.edited(str(t - delay - 1), float(costs[t - delay - 1, played[t - delay - 1]]))
        played.append(ARMS.index(bandit.decide(str(t)).arm))
    return float((means[np.arange(len(means)), played] - means.min(axis=1)).sum())


STATIONARY = np.tile(MEANS, (200, 1))
ABRUPT = np.vstack([STATIONARY[:100], np.tile(OTHER, (100, 1))])
TURN = 2 * np.pi * (np.arange(1, 201)[:, None] / 200 + np.arange(5) / 5)
SLOW = np.clip(MEANS + 0.25 * np.sin(TURN), 0.02, 0.98)


@pytest.mark.parametrize(
    ("means", "delay", "most"),
    [(STATIONARY, 0, 12), (ABRUPT, 0, 15), (SLOW, 0, 15), (STATIONARY, 20, 13)],
    ids=["stationary", "abrupt", "slow", "delay 20"],
)
def test_regret_of_the_default(means, delay, most):
    values = [regret(means, seed, delay=delay) for seed in range(40)]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert np.mean(values) - 3 * error < most
    assert np.mean(values) + 3 * error > 3  # there is something to learn


@pytest.mark.parametrize(("kinds", "most"), [(2, 3.0), (1, 1.5)])
def test_regret_by_user_with_a_learned_pool(kinds, most):
    values = []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        bandit, total = Bandit(ARMS), 0.0
        for t in range(800):
            means = MEANS if kinds == 1 or t % 2 == 0 else OTHER
            arm = ARMS.index(bandit.decide(str(t), scope=f"user {t % 20}").arm)
            bandit.edited(str(t), generator.beta(5 * means[arm], 5 * (1 - means[arm])))
            total += means[arm] - means.min()
        values.append(total / 20)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert np.mean(values) - 3 * error < most


def test_choosing_without_deciding_counts_what_is_in_flight():
    bandit = Bandit(["a", "b"], BanditConfig(algorithm="ucb"))
    first = bandit.choose("1")
    assert first.arm == "a" and "1" not in bandit.state
    assert bandit.choose("2").arm == "a"
    assert bandit.choose("2", in_flight={"a": 1}).arm == "b"
    bandit.state.apply(first)
    with pytest.raises(BanditError, match="decided before"):
        bandit.choose("1")
