"""The bandits benchmark: its environments, its shared costs, and oracles that must agree."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks import bandits
from benchmarks.bandit_learners import LEARNERS
from benchmarks.bandits import Setting, means, play, play_users


class Always:
    def __init__(self, arm):
        self.arm, self.seen = arm, []

    def choose(self, round):
        return self.arm

    def learn(self, round, arm, cost):
        self.seen.append((round, arm, cost))


def test_environments_by_hand():
    assert means("stationary", 3)[2] == pytest.approx([0.21, 0.36, 0.34, 0.93, 0.49])
    assert means("abrupt", 200)[99, 0] == 0.21
    assert means("abrupt", 200)[100, 0] == 0.49
    # Round 50 of 200 is a quarter turn: sin(2 pi (.25 + 0)) = 1 for the first arm.
    assert means("slow", 200)[49, 0] == pytest.approx(0.46)
    assert means("slow", 200).max() <= 0.98


def test_the_regret_of_one_arm_is_its_gap():
    assert play(Always(0), Setting("stationary"), 0).sum() == pytest.approx(0)
    assert play(Always(4), Setting("stationary"), 0).sum() == pytest.approx(200 * 0.28)
    assert play(Always(0), Setting("abrupt"), 0).sum() == pytest.approx(100 * 0.28)


def test_feedback_is_delayed_and_lost_and_the_costs_are_shared():
    first, second, lost = Always(2), Always(2), Always(2)
    play(first, Setting("stationary", rounds=60), 3)
    play(second, Setting("stationary", rounds=60, delay=7), 3)
    play(lost, Setting("stationary", rounds=60, missing=0.5), 3)
    assert len(first.seen) == 59
    assert second.seen == first.seen[:52]
    known = [seen for seen in lost.seen if seen[2] is not None]
    assert 15 < len(known) < 45
    assert set(known) <= set(first.seen)


@pytest.mark.parametrize("other", ["river, UCB1", "MABWiser, UCB1"])
def test_the_same_alpha_ties(other):
    values = {
        name: [play(LEARNERS[name](seed), Setting("stationary"), seed).sum() for seed in range(25)]
        for name in ("EditLoop, UCB1", other)
    }
    # On the same costs they differ by the order of the first five rounds alone.
    difference = np.subtract(*values.values())
    assert abs(difference.mean()) < 3 * difference.std(ddof=1) / math.sqrt(25) + 1e-9
    assert np.mean(values[other]) > 15


def test_users_of_one_kind_gain_by_sharing():
    setting = Setting("users alike", 800)
    shared, separate = (
        np.mean([play_users(options, setting, seed) for seed in range(3)]) for options in ({}, {"pool": 0.0})
    )
    assert shared < separate / 2


def test_a_run_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(bandits, "SETTINGS", [Setting("stationary"), Setting("slow")])
    monkeypatch.setattr(bandits, "USER_SETTINGS", [Setting("users alike", 800)])
    bandits.run(tmp_path, seeds=2)
    rows = json.loads((tmp_path / "bandits.json").read_text())["results"]
    assert {(row["seeds"], row["setting"]) for row in rows} == {
        (2, "stationary, T 200"),
        (2, "slow, T 200"),
        (2, "users alike, T 800"),
    }
    text = (tmp_path / "bandits.md").read_text()
    assert "| stationary, T 200 | ≤ 12 |" in text and "microseconds" in text
