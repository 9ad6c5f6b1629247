"""The bandits benchmark: its environments, its shared costs, and oracles that must agree."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks import bandits
from benchmarks.bandit_learners import DEFAULT, LEARNERS, NO_FEATURES
from benchmarks.bandit_settings import PATIENCE, Setting, means, world
from benchmarks.bandits import check_goals, page, play, play_users


class Always:
    def __init__(self, arm):
        self.arm, self.seen = arm, []

    def choose(self, round, context):
        return self.arm

    def learn(self, round, arm, cost):
        self.seen.append((round, arm, cost))


def regret(learner, setting, seed):
    return play(learner, setting, seed)[0].sum()


def test_environments_by_hand():
    assert means("stationary", 3)[2] == pytest.approx([0.21, 0.36, 0.34, 0.93, 0.49])
    assert means("abrupt", 200)[99, 0] == 0.21
    assert means("abrupt", 200)[100, 0] == 0.49
    # Round 50 of 200 is a quarter turn: sin(2 pi (.25 + 0)) = 1 for the first arm.
    assert means("slow", 200)[49, 0] == pytest.approx(0.46)
    assert means("slow", 200).max() <= 0.98


def test_the_regret_of_one_arm_is_its_gap():
    assert regret(Always(0), Setting("stationary"), 0) == pytest.approx(0)
    assert regret(Always(4), Setting("stationary"), 0) == pytest.approx(200 * 0.28)
    assert regret(Always(0), Setting("abrupt"), 0) == pytest.approx(100 * 0.28)
    # Left in 8 of 10 cases, at cost 1, and else .2: .84 in all, beside .3.
    assert regret(Always(0), Setting("abandoned", rounds=100), 0) == pytest.approx(100 * 0.54)
    assert regret(Always(1), Setting("always abandoned", rounds=100), 0) == pytest.approx(0)
    # The last arm is second best for each of the four kinds of requests.
    assert regret(Always(4), Setting("context", rounds=100), 0) == pytest.approx(100 * 0.16)


def test_costs_have_the_means_that_are_said():
    for environment in ("stationary", "gap .1", "context", "context is noise", "outliers"):
        found = world(Setting(environment, rounds=4000), 0)
        expected = found.mean.mean(axis=0) + (0.001 * 19.6 if environment == "outliers" else 0)
        assert found.costs.mean(axis=0) == pytest.approx(expected, abs=0.03)
    assert set(np.unique(world(Setting("gap .1", rounds=50), 0).costs)) == {0.0, 1.0}
    assert world(Setting("outliers", rounds=4000), 0).costs.max() == 20.0
    left = world(Setting("abandoned", rounds=4000), 0).left
    assert left[:, 0].mean() == pytest.approx(0.8, abs=0.03) and not left[:, 1:].any()


def test_the_words_of_a_request_name_its_kind():
    found = world(Setting("context", rounds=50), 0)
    for context, mean in zip(found.contexts, found.mean, strict=True):
        assert len(context.split()) == 8
        assert context.split()[0].startswith(f"kind{int(mean.argmin())}word")
    assert set(world(Setting("stationary"), 0).contexts) == {""}


def test_feedback_is_delayed_and_lost_and_the_costs_are_shared():
    first, second, lost = Always(2), Always(2), Always(2)
    play(first, Setting("stationary", rounds=60), 3)
    play(second, Setting("stationary", rounds=60, delay=7), 3)
    play(lost, Setting("stationary", rounds=160, missing=0.5), 3)
    assert len(first.seen) == 59
    assert second.seen == first.seen[:52]
    known = [seen for seen in lost.seen if seen[2] is not None]
    expired = [seen for seen in lost.seen if seen[2] is None]
    assert 50 < len(known) < 110
    assert 30 < len(expired) < 80 and all(seen[0] < 160 - PATIENCE - 1 for seen in expired)


@pytest.mark.parametrize("name", ["VW, squarecb", "ε-greedy, .1", "explore 50, then commit"])
def test_others_find_the_best_arm(name):
    uniform = 600 * (means("stationary", 1)[0].mean() - 0.21)
    assert regret(LEARNERS[name](0), Setting("stationary", rounds=600), 0) < 0.7 * uniform


def test_who_commits_learns_no_more():
    learner = LEARNERS["explore 50, then commit"](0)
    for t in range(60):
        learner.learn(t, learner.choose(t, ""), 0.5)
    assert learner.pulls.sum() == 50


def test_features_help_where_requests_differ():
    setting = Setting("context", rounds=1000)
    with_, without = (regret(LEARNERS[name](0), setting, 0) for name in (DEFAULT, NO_FEATURES))
    assert with_ < 0.6 * without


@pytest.mark.parametrize("other", ["river, UCB1", "MABWiser, UCB1"])
def test_the_same_alpha_ties(other):
    values = {
        name: [regret(LEARNERS[name](seed), Setting("stationary"), seed) for seed in range(25)]
        for name in ("Algorithm 1, UCB1", other)
    }
    # On the same costs they differ by the order of the first five rounds alone.
    difference = np.subtract(*values.values())
    assert abs(difference.mean()) < 3 * difference.std(ddof=1) / math.sqrt(25) + 1e-9
    assert np.mean(values[other]) > 15


def test_users_gain_by_what_is_known_of_the_others():
    for environment in ("users alike", "two kinds of users"):
        setting = Setting(environment, 800)
        known, alone = (
            np.mean([play_users(options, setting, seed) for seed in range(3)])
            for options in ({}, {"pool": 0.0, "features": "none"})
        )
        assert known < 0.6 * alone


def test_goals_compare_figures_of_two_settings():
    def played(learner, setting, mean, **more):
        figures = {"mean": mean, "se": 0.1, "p95": mean, "p99": 2 * mean, "first": None}
        return {"learner": learner, "setting": setting.name, **figures, **more}

    gap = Setting("gap .1", rounds=10_000)
    results = [
        played(DEFAULT, Setting("outliers"), 11.0),
        played(DEFAULT, Setting("stationary"), 10.0),
        played(DEFAULT, gap, 60.0),
        played("Algorithm 1, α .71", gap, 120.0),
        played(DEFAULT, Setting("abandoned", rounds=1500), 9.0, first=0.2),
    ]
    goals = {goal["text"]: goal for goal in check_goals(results, {})}
    assert goals["stationary, T 200: mean"]["value"] == 10.0
    assert goals["outliers, T 200: over the same without outliers"]["value"] == pytest.approx(1.1)
    assert goals["gap .1, T 10,000: 99th percentile over the mean of α = .71"]["value"] == 1.0
    assert goals["abandoned, T 1,500: share of the arm from round 500 on"]["value"] == 0.2
    text = page({"results": results, "goals": list(goals.values()), "microseconds": {}})
    assert "| stationary, T 200: mean | ≤ 12 | 10.00 | met |" in text
    assert "| abandoned, T 1,500: share of the arm from round 500 on | ≤ 0.1 | 0.20 | missed |" in text
    assert "abrupt, T 200: mean" not in text  # it was not played


def test_a_run_is_written(tmp_path, monkeypatch):
    sections = {"200 rounds": (Setting("stationary"), Setting("slow"))}
    monkeypatch.setattr(
        bandits, "SECTIONS", bandits.SECTIONS | dict.fromkeys(bandits.SECTIONS, ()) | sections
    )
    monkeypatch.setattr(bandits, "USER_SETTINGS", [Setting("users alike", 800)])
    monkeypatch.setattr(bandits, "_microseconds", lambda make: 10.0)
    names = (DEFAULT, NO_FEATURES, "Algorithm 1, α .45", "Algorithm 1, α .71", "VW, squarecb")
    monkeypatch.setattr(bandits, "LEARNERS", {name: LEARNERS[name] for name in names})
    bandits.run(tmp_path, seeds=2, work=tmp_path / "work")
    monkeypatch.setattr(bandits, "_job", None)  # the second time, nothing is played
    bandits.run(tmp_path, seeds=2, work=tmp_path / "work")
    rows = json.loads((tmp_path / "bandits.json").read_text())["results"]
    assert {(row["seeds"], row["setting"]) for row in rows} == {
        (2, "stationary, T 200"),
        (2, "slow, T 200"),
        (2, "users alike, T 800"),
    }
    text = (tmp_path / "bandits.md").read_text()
    assert "| stationary, T 200: mean | ≤ 12 |" in text and "microseconds" in text
