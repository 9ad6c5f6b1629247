"""What a new arm begins with, and arms that belong to one scope."""

from __future__ import annotations

import json

import numpy as np
import pytest

from editloop.errors import BanditError
from editloop.online import Arms, Bandit, BanditConfig, Decided, Feedback, Heir, event_from_json
from editloop.online.features import encoded
from editloop.online.features.base import Features
from editloop.online.heirs import inherited
from editloop.online.slopes import PENALTY, Slopes


def feed(bandit: Bandit, scope: str, arm: str, costs: list[float]) -> None:
    for cost in costs:
        key = str(bandit.state.decisions)
        bandit.state.apply(Decided(key, scope, arm, 1.0, bandit.state.epoch))
        bandit.state.apply(Feedback(key, "edited", cost))


def test_the_evidence_of_the_parent_counts_for_less_than_both_limits():
    # 20 pulls at .4, at most 5: 20 · 5 / 25 = 4 pulls, at .4 − .1.
    assert inherited(Heir("p", 5.0, -0.1), 20.0, 8.0, 1.0) == pytest.approx((4.0, 0.3))
    assert inherited(Heir("p", 5.0, -0.9), 20.0, 8.0, 1.0) == pytest.approx((4.0, 0.0))  # no cost is below 0
    assert inherited(Heir("p", 5.0, 0.9), 20.0, 8.0, 1.0) == pytest.approx((4.0, 1.0))
    assert inherited(Heir("p", 5.0), 0.0, 0.0, 1.0) == (0.0, 0.0)
    assert inherited(Heir("p", 0.0), 20.0, 8.0, 1.0) == (0.0, 0.0)
    for known in (0.1, 1.0, 1e6):
        pulls, _ = inherited(Heir("p", 5.0), known, 0.0, 1.0)
        assert 0 < pulls < min(5.0, known)


def test_a_new_arm_begins_where_its_parent_stands_in_each_scope():
    bandit = Bandit(["a", "b"], BanditConfig(pool=0))
    feed(bandit, "ada", "a", [0.2] * 15)
    feed(bandit, "bob", "a", [0.8] * 5)
    bandit.set_arms(["a", "b", "c"], heirs={"c": Heir("a", 5.0, 0.1)})
    pulls, observed, means = bandit.beliefs("ada")
    assert pulls == observed == pytest.approx([15, 0, 15 * 5 / 20])
    assert means == pytest.approx([0.2, 0, 0.3])
    assert bandit.beliefs("bob")[0][2] == pytest.approx(2.5)
    assert bandit.beliefs("bob")[2][2] == pytest.approx(0.9)
    assert bandit.beliefs("eve")[0] == [0, 0, 0]
    feed(bandit, "ada", "c", [0.0] * 5)  # its own pulls count beside that
    pulls, _, means = bandit.beliefs("ada")
    assert pulls[2] == pytest.approx(8.75) and means[2] == pytest.approx(3.75 * 0.3 / 8.75)
    assert bandit.state.tally("ada", "c").observed == 5  # what was seen stays what was seen


def test_what_is_learned_of_the_parent_later_counts_too():
    bandit = Bandit(["a"], BanditConfig(pool=0))
    bandit.set_arms(["a", "c"], heirs={"c": Heir("a", 5.0)})
    assert bandit.beliefs()[0] == [0, 0]
    feed(bandit, "", "a", [0.6] * 5)
    assert bandit.beliefs()[0] == pytest.approx([5, 2.5])


def features(values: list[float]) -> Features:
    return Features.of("test", np.array(values))


def test_the_slopes_of_the_parent_are_those_of_so_many_of_its_costs():
    slopes = Slopes()
    assert slopes.takes(features([1.0, 0.0]))
    rng = np.random.default_rng(0)
    for _ in range(30):
        x = rng.choice([-1.0, 1.0], size=2)
        slopes.observe("a", features(x.tolist()), 0.2 * x[0], 10.0)
    own, before = slopes._places["a"], slopes._slopes.copy()
    slopes.inherit("c", "a", 10.0)  # 30 · 10 / 40 = 7.5 costs
    new = slopes._places["c"]
    assert slopes._sums[new][0] == pytest.approx(7.5)
    assert (slopes._slopes[own] == before[own]).all()
    # The regression by hand: a quarter of the information of the parent, and the penalty once.
    penalty = np.diag(slopes._penalty())
    parent = np.linalg.inv(slopes._inverse[own])
    matrix = penalty + (parent - penalty) / 4
    expected = np.linalg.solve(matrix, parent @ before[own] / 4)
    assert slopes._slopes[new] == pytest.approx(expected, abs=1e-9)
    assert slopes._inverse[new] == pytest.approx(np.linalg.inv(matrix), abs=1e-9)
    assert 0 < slopes._slopes[new][1] < before[own][1] < 0.2  # shrunk more, as by fewer costs
    assert PENALTY > 0


def test_an_arm_that_was_played_in_a_canary_keeps_what_it_has():
    slopes = Slopes()
    slopes.takes(features([1.0]))
    for arm, slope in (("a", 0.2), ("c", -0.2)):
        for x in (-1.0, 1.0) * 10:
            slopes.observe(arm, features([x]), slope * x, 10.0)
    before = slopes._slopes[slopes._places["c"]][1]
    slopes.inherit("c", "a", 20.0)
    assert before < slopes._slopes[slopes._places["c"]][1] < 0
    assert slopes._sums[slopes._places["c"]][0] == pytest.approx(30)
    slopes.inherit("c", "nobody", 20.0)
    assert slopes._sums[slopes._places["c"]][0] == pytest.approx(30)


def test_slopes_are_inherited_once_however_often_the_arm_comes_back():
    bandit = Bandit(["a"], BanditConfig())
    text = encoded(bandit.feature_map.kind, [1.0, 0.0])
    for t in range(12):
        bandit.state.apply(Decided(str(t), "", "a", 1.0, 1, text))
        bandit.state.apply(Feedback(str(t), "edited", 0.5))
    heirs = {"c": Heir("a", 4.0)}
    bandit.set_arms(["a", "c"], heirs=heirs)
    once = bandit.state.slopes.to_json()
    bandit.set_arms(["a"])
    bandit.set_arms(["a", "c"], heirs=heirs)
    assert bandit.state.slopes.to_json() == once


def test_a_snapshot_and_a_replay_agree():
    bandit = Bandit(["a"], BanditConfig())
    first = Arms(1, ("a",))
    feed(bandit, "ada", "a", [0.2] * 4)
    second = bandit.set_arms(["a", "c"], heirs={"c": Heir("a", 4.0, -0.05)}, owners={"c": "ada"})
    restored = Bandit.from_json(json.loads(json.dumps(bandit.to_json())))
    assert restored.to_json() == bandit.to_json()
    assert restored.beliefs("ada") == bandit.beliefs("ada") and restored.arms_of("bob") == ("a",)
    assert event_from_json(json.loads(json.dumps(second.to_json()))) == second
    assert event_from_json(first.to_json()) == first and first.to_json().keys() == {"event", "epoch", "arms"}


def test_an_arm_of_one_scope_is_played_nowhere_else():
    bandit = Bandit(["a"], BanditConfig(algorithm="uniform"))
    bandit.set_arms(["a", "c", "b"], owners={"c": "ada"})
    assert bandit.arms_of("ada") == ("a", "c", "b") and bandit.arms_of("") == ("a", "b")
    played = {scope: set() for scope in ("ada", "bob", "")}
    for scope, arms in played.items():
        for t in range(60):
            arms.add(bandit.decide(f"{scope}{t}", scope=scope).arm)
    assert played == {"ada": {"a", "b", "c"}, "bob": {"a", "b"}, "": {"a", "b"}}
    assert bandit.probabilities(scope="bob") == pytest.approx([0.5, 0, 0.5])
    assert bandit.probabilities(scope="ada") == pytest.approx([1 / 3] * 3)
    assert [len(each) for each in bandit.beliefs("bob")] == [2, 2, 2]


@pytest.mark.parametrize("algorithm", ["rand-ucb", "ucb", "thompson", "regret-balancing"])
def test_features_and_decisions_in_flight_belong_to_the_arms_of_the_scope(algorithm):
    bandit = Bandit(["a"], BanditConfig(algorithm=algorithm))
    bandit.set_arms(["c", "a", "b"], owners={"c": "ada"})
    text = bandit.features_of("Write to Ada.", "bob")
    for t in range(30):
        decision = bandit.choose(str(t), scope="", features=text, in_flight={"a": 1.0, "c": 5.0})
        assert decision.arm in "ab"
        bandit.state.apply(decision)
        bandit.edited(str(t), 0.1 if decision.arm == "b" else 0.6)
    assert bandit.state.tally("", "b").observed > bandit.state.tally("", "a").observed


def test_an_epoch_needs_an_arm_for_everybody():
    bandit = Bandit(["a"])
    with pytest.raises(BanditError, match="everybody"):
        bandit.set_arms(["c"], owners={"c": "ada"})
    assert bandit.arms == ("a",)


def test_the_next_epoch_drops_what_is_known_of_arms_that_are_not_in_it():
    first = Arms(3, ("a", "c"), ("n",), {"c": Heir("a", 2.0)}, {"c": "ada"})
    assert first.shared == ("a",)
    assert first.next(("a",)) == Arms(4, ("a",), ("n",))
    assert first.next(("a", "c", "n")).canaries == ()
    everybody = first.next(("a", "c"), owners={"c": ""})
    assert everybody.owners == {} and everybody.heirs == first.heirs
