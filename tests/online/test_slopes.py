"""What features say about costs: the ridge regression, the weight, and choices that follow from both."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from editloop.errors import BanditError
from editloop.online import Bandit, BanditConfig, Decided, Feedback
from editloop.online.features import FEATURES, Features, encoded
from editloop.online.slopes import INTERCEPT_PENALTY, PENALTY, SPREAD_SHARE, Slopes


def mine(*values: float) -> Features:
    return Features.of("mine", values)


def _observed(size: int, costs: int, seed: int = 0) -> tuple[Slopes, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    xs, left = rng.normal(size=(costs, size)), rng.normal(size=costs)
    slopes = Slopes()
    assert slopes.takes(mine(*xs[0]))
    for i, (x, r) in enumerate(zip(xs, left, strict=True)):
        slopes.observe("a", mine(*x), float(r), i + 1)
    return slopes, xs, left


def _solved(xs: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The regression's matrix and its solution, computed at once."""
    whole = np.hstack([np.ones((len(xs), 1)), xs])
    penalty = np.diag([INTERCEPT_PENALTY] + [PENALTY] * xs.shape[1])
    matrix = whole.T @ whole + penalty
    return matrix, np.linalg.solve(matrix, whole.T @ left)


@pytest.mark.parametrize("costs", [1, 7, 20_000])
def test_updates_one_by_one_give_the_ridge_regression(costs: int):
    slopes, xs, left = _observed(5, costs)
    matrix, solution = _solved(xs, left)
    x = np.arange(5.0)
    moved, spread = slopes.adjust(["a", "never"], mine(*x))
    assert moved[1] == spread[1] == 0.0
    w = slopes.weight
    assert moved[0] == pytest.approx(w * (x - xs.mean(axis=0)) @ solution[1:], rel=1e-6, abs=1e-9)
    one = np.concatenate(([1.0], x))
    expected = SPREAD_SHARE * w * (one @ np.linalg.solve(matrix, one) - 1 / costs)
    assert spread[0] == pytest.approx(max(expected, 0.0), rel=1e-6, abs=1e-9)


def test_features_that_are_0_are_as_if_they_were_not_there():
    """Of a request, only those that are not 0 take part in a choice; the zeros must change nothing."""
    rng = np.random.default_rng(4)
    slopes, xs = Slopes(), np.where(rng.random((40, 12)) < 0.3, rng.normal(size=(40, 12)), 0.0)
    left = rng.normal(size=40)
    assert slopes.takes(mine(*xs[0]))
    for i, (x, r) in enumerate(zip(xs, left, strict=True)):
        slopes.observe("a", mine(*x), float(r), i + 1)
    matrix, solution = _solved(xs, left)
    for x in (xs[0], np.zeros(12), np.ones(12)):
        (moved,), (spread,) = slopes.adjust(["a"], mine(*x))
        one = np.concatenate(([1.0], x))
        assert moved == pytest.approx(slopes.weight * (x - xs.mean(axis=0)) @ solution[1:], rel=1e-9)
        expected = SPREAD_SHARE * slopes.weight * (one @ np.linalg.solve(matrix, one) - 1 / 40)
        assert spread == pytest.approx(max(expected, 0.0), rel=1e-6, abs=1e-12)


def test_the_weight_by_hand():
    """Ten costs make the noise known; from the eleventh on, predictions are compared."""
    slopes = Slopes()
    slopes.takes(mine(1.0))
    for i in range(11):
        slopes.observe("a", mine(1.0 if i % 2 else -1.0), 0.5 if i % 2 else -0.5, 1e9)
    assert slopes.log_odds == 0.0  # the first cost has nothing to compare with, then ten for the noise
    moved, spread = slopes.adjust(["a"], mine(1.0))
    featured = moved[0] / slopes.weight
    leverage = spread[0] / slopes.weight / SPREAD_SHARE + 1 / 11
    slopes.observe("a", mine(1.0), 0.5, 1e9)
    expected = (0.25 - (0.5 - featured) ** 2 / (1 + leverage)) / 0.25 - math.log(1 + leverage)
    assert slopes.log_odds == pytest.approx(expected / 2)
    assert slopes.weight == pytest.approx(1 / (1 + math.exp(-expected / 2)))


def test_features_that_explain_nothing_lose_their_weight_and_those_that_do_gain_it():
    rng = np.random.default_rng(1)
    useless, useful = Slopes(), Slopes()
    for slopes in (useless, useful):
        slopes.takes(mine(*range(8)))
    for i in range(400):
        x = rng.normal(size=8) / math.sqrt(8)
        useless.observe("a", mine(*x), float(rng.normal()) * 0.2, i + 1)
        useful.observe("a", mine(*x), 0.5 * x[0] + float(rng.normal()) * 0.2, i + 1)
    assert useless.weight < 0.05
    assert useful.weight > 0.99


def test_costs_that_are_all_equal_tell_nothing():
    slopes = Slopes()
    slopes.takes(mine(1.0, 2.0))
    for i in range(50):
        slopes.observe("a", mine(1.0, float(i % 3)), 0.0, i + 1)
    assert slopes.log_odds == 0.0


def test_a_revision_counts_as_if_the_cost_had_come_at_once():
    first, second = Slopes(), Slopes()
    x = mine(1.0, -1.0)
    for slopes, cost in ((first, 0.25), (second, 1.0)):
        slopes.takes(x)
        slopes.observe("a", x, cost, 1)
    first.revise("a", x, 0.75)
    first.revise("never played", x, 0.75)
    for one, other in zip(first.adjust(["a"], mine(-1, 1)), second.adjust(["a"], mine(-1, 1)), strict=True):
        assert one == pytest.approx(other, rel=1e-12)


def test_slopes_survive_json_exactly():
    slopes, _, _ = _observed(3, 40)
    again = Slopes.from_json(json.loads(json.dumps(slopes.to_json())))
    assert again.to_json() == slopes.to_json()
    again.observe("a", mine(1, 1, 1), 0.3, 41)
    slopes.observe("a", mine(1, 1, 1), 0.3, 41)
    assert again.to_json() == slopes.to_json()


# In a bandit


class Kind:
    """One feature: whether the request is a letter."""

    kind = "letter"

    def __call__(self, context: object, user: str) -> list[float]:
        return [1.0 if "letter" in str(context) else -1.0]


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> BanditConfig:
    monkeypatch.setitem(FEATURES.registered, "letter", Kind)
    return BanditConfig(features="letter", algorithm="ucb", alpha=0.1)


def test_the_bandit_plays_another_arm_for_other_requests(letters: BanditConfig):
    bandit = Bandit(["a", "b"], letters)
    rng = np.random.default_rng(2)
    late = []
    for i in range(300):
        context = "a letter" if rng.random() < 0.5 else "a report"
        decision = bandit.decide(str(i), context=context)
        best = "a" if "letter" in context else "b"
        bandit.edited(str(i), 0.2 if decision.arm == best else 0.5)
        late.append(decision.arm == best)
    assert sum(late[-100:]) >= 98
    assert bandit.state.slopes.weight > 0.99


def test_the_bandit_plays_another_arm_for_other_users():
    """Two users who prefer different arms, without a word of what they ask."""
    bandit = Bandit(["a", "b"], BanditConfig(algorithm="ucb", alpha=0.1))
    rng, late = np.random.default_rng(3), []
    for i in range(300):
        user = "ada" if rng.random() < 0.5 else "bob"
        decision = bandit.decide(str(i), user=user)
        best = "a" if user == "ada" else "b"
        bandit.edited(str(i), 0.2 if decision.arm == best else 0.5)
        late.append(decision.arm == best)
    assert sum(late[-100:]) >= 98
    assert bandit.state.slopes.kind == "hashed-320"


def test_without_a_context_the_means_decide(letters: BanditConfig):
    bandit, plain = Bandit(["a", "b"], letters), Bandit(["a", "b"], letters)
    for i in range(40):
        assert bandit.decide(str(i)).arm == plain.decide(str(i)).arm
        for each in (bandit, plain):
            each.edited(str(i), 0.1 * (i % 4))
    assert bandit.state.slopes.size == 0


def test_a_replay_of_the_kept_features_gives_the_same_state(letters: BanditConfig):
    bandit = Bandit(["a", "b"], letters)
    events = [bandit.set_arms(["a", "b"])]
    for i in range(60):
        events.append(bandit.decide(str(i), scope=str(i % 3), context="a letter" if i % 2 else "a report"))
        events.append(bandit.edited(str(i), (i % 5) / 5))
    events.append(bandit.edited("59", 1.0, revision=1))
    again = Bandit.replay(events, letters)
    assert again.state.to_json() | {"epoch": 0} == bandit.state.to_json() | {"epoch": 0}


def test_features_of_another_kind_count_without_them(letters: BanditConfig):
    """Of an earlier feature map, for example, whose decisions are in the same store."""
    bandit = Bandit(["a"], letters)
    letter, other = encoded("letter", [1.0]), encoded("other", [1.0, 2.0])
    for i, features in enumerate((other, letter, encoded("letter", [1.0, 2.0]), "spoiled:!!")):
        bandit.state.apply(Decided(str(i), "", "a", None, 1, features))
        bandit.state.apply(Feedback(str(i), "edited", 0.4))
    assert bandit.state.tally("", "a").observed == 4
    assert bandit.state.skipped == {"other features": 2, "unreadable features": 1}
    assert (bandit.state.slopes.kind, bandit.state.slopes.size) == ("letter", 1)
    beliefs = bandit.beliefs()
    assert bandit.choose("next", features=other).arm == "a"
    assert bandit.beliefs() == beliefs


def test_a_snapshot_of_another_feature_map_keeps_its_counts(
    letters: BanditConfig, monkeypatch: pytest.MonkeyPatch
):
    bandit = Bandit(["a"], letters)
    bandit.decide("1", context="a letter")
    bandit.edited("1", 0.4)
    snapshot = bandit.to_json()
    assert Bandit.from_json(snapshot).state.slopes.kind == "letter"
    monkeypatch.setattr(Kind, "kind", "letter-2")
    later = Bandit.from_json(snapshot)
    assert (later.state.slopes.kind, later.state.slopes.size) == ("letter-2", 0)
    assert later.state.tally("", "a").cost == 0.4


def test_a_feature_map_that_returns_nan_is_an_error_before_the_decision(
    letters: BanditConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Kind, "__call__", lambda self, context, user: [math.nan])
    bandit = Bandit(["a"], letters)
    with pytest.raises(BanditError, match="finite"):
        bandit.decide("1", context="Write.")
    assert bandit.state.decisions == 0
