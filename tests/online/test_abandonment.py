"""What silence means: numbers by hand, and seeded gates on bandits whose users leave."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from editloop.online import Bandit, BanditConfig, Decided, Feedback
from editloop.online.abandonment import Silence, excess_share

ARMS = list("vwxyz")


def test_the_share_by_hand() -> None:
    # Of 10 finished pulls 8 expired, of the others' 39 four. Their rate is 4.5/40.
    noise = math.sqrt(10 * 0.1125 * 0.8875 * (1 + 10 / 39))
    assert excess_share(2, 8, 35, 4) == pytest.approx((8 - 10 * 0.1125 - 2 * noise) / 10)


def test_what_is_within_the_noise_or_below_the_others_does_not_count() -> None:
    assert excess_share(8, 2, 36, 4) == 0.0
    assert excess_share(9, 1, 10, 30) == 0.0
    assert excess_share(9, 0, 10, 0) == 0.0
    assert excess_share(0, 9, 0, 0) == 0.0  # nothing to compare with


def test_only_pulls_count_that_had_the_time_to_expire() -> None:
    """An arm that is new has edits and no expired pulls yet. The old ones, half of whose expire, stay."""
    silence = Silence(1000)
    for number in range(1, 41):
        (silence.expire if number % 2 else silence.observe)(number, "old" if number % 4 < 2 else "older")
    for number in range(41, 141):
        silence.observe(number, "new")
    assert silence.share("old") == silence.share("older") == 0.0
    again = Silence.from_json(json.loads(json.dumps(silence.to_json())), 1000)
    assert again.to_json() == silence.to_json()
    # Days later the new arm's pulls have had the time, and few of them expired.
    for each in (silence, again):
        each.expire(141, "new")
        assert each.share("old") == each.share("older") > 0.2
        assert each.share("new") == 0.0
    assert again.to_json() == silence.to_json()


def test_what_waits_is_bounded() -> None:
    silence = Silence(3)
    for number in (5, 4, 3, 2):
        silence.observe(number, "a")
    assert silence.to_json()["waiting"] == [[3, "a"], [4, "a"], [5, "a"]]


def test_abandoned_pulls_count_as_discarded_in_every_scope_by_its_finished_pulls() -> None:
    bandit = Bandit(["a", "b"], BanditConfig(pool=0, discard_cost=0.8))
    for scope, arm, costs in (
        ("ada", "b", [0.5] * 20),
        ("ada", "a", [0.2, None, None, None]),
        ("bob", "a", [None, None]),
    ):
        for cost in costs:
            key = str(bandit.state.decisions)
            bandit.state.apply(Decided(key, scope, arm, 1.0, 1))
            bandit.state.apply(Feedback(key, "expired" if cost is None else "edited", cost))
    share = excess_share(1, 5, 20, 0)
    assert bandit.state.abandoned_share("a") == pytest.approx(share) and 0.5 < share < 1
    pulls, _, means = bandit.beliefs("ada")
    assert pulls == pytest.approx([1 + 4 * share, 20])
    assert means == pytest.approx([(0.2 + 4 * share * 0.8) / (1 + 4 * share), 0.5])
    assert bandit.beliefs("bob")[0] == pytest.approx([2 * share, 0])
    assert bandit.beliefs("bob")[2] == pytest.approx([0.8, 0])


def test_a_scope_starts_from_what_others_abandoned() -> None:
    bandit = Bandit(["a", "b"])
    for i in range(30):
        for arm in bandit.arms:
            bandit.state.apply(Decided(f"{arm}{i}", f"user {i % 3}", arm, 1.0, 1))
            feedback = ("expired", None) if arm == "a" else ("edited", 0.4)
            bandit.state.apply(Feedback(f"{arm}{i}", *feedback))
    _, _, means = bandit.beliefs("new")
    assert means == pytest.approx([1.0, 0.4])
    assert bandit.choose("x", scope="new").arm == "b"


def rounds(leave: list[float], seed: int, count: int) -> list[str]:
    """Play with users who leave drafts of an arm with this probability; the first arm has the least cost."""
    means, generator = np.array([0.2, 0.3, 0.3, 0.3, 0.3]), np.random.default_rng(seed)
    costs = generator.beta(5 * means, 5 * (1 - means), (count, 5))
    left = generator.random((count, 5)) < leave
    bandit, played = Bandit(ARMS), []
    for t in range(count):
        arm = bandit.decide(str(t)).arm
        played.append(arm)
        index = ARMS.index(arm)
        if left[t, index]:
            bandit.expired(str(t))
        else:
            bandit.edited(str(t), float(costs[t, index]))
    return played


@pytest.mark.parametrize(("probability", "most"), [(0.8, 0.10), (1.0, 0.03)])
def test_an_arm_whose_drafts_are_left_is_given_up(probability: float, most: float) -> None:
    for seed in range(3):
        late = rounds([probability, 0, 0, 0, 0], seed, 1000)[500:]
        assert late.count("v") / len(late) <= most


def test_silence_that_is_the_same_for_all_arms_changes_little() -> None:
    shares = [rounds([0.6] * 5, seed, 600)[300:].count("v") / 300 for seed in range(8)]
    assert np.mean(shares) > 0.5  # the best arm is still the one that is played most
