"""What other rules would have cost: oracles by hand, replays, and logs that cannot tell."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from editloop.edits import Record
from editloop.errors import BanditError, ConfigError
from editloop.online import ALGORITHMS, Bandit, BanditConfig
from editloop.online.counterfactual import estimate_rules

WORDS = "one two three four five six seven eight nine ten"
SHARES = {"a@1": 2, "b@2": 5}
"""Words of ten that the users replace."""


def record(i: int, arm: str, propensity: float | None = 0.5, **more: Any) -> Record:
    edit = " ".join(["new"] * SHARES[arm] + WORDS.split()[SHARES[arm] :])
    row = {"id": str(i), "context": f"Write {i}.", "response": WORDS, "edit": edit, "policy": arm}
    return Record(**{**row, "propensity": propensity, "user": f"u{i % 3}", **more})


@pytest.fixture
def tossed() -> list[Record]:
    """300 decisions by a fair coin."""
    rng = random.Random(0)
    return [record(i, rng.choice(["a@1", "b@2"])) for i in range(300)]


def test_one_arm_costs_what_its_own_rows_cost(tossed: list[Record]) -> None:
    found = estimate_rules(tossed, ["fixed:a", "fixed:b@2", "uniform"])
    assert found.arms == ("a@1", "b@2") and found.rows == 300 and not found.refused
    assert found.rules["fixed:a"]["snips"].value == pytest.approx(0.2)
    assert found.rules["fixed:b@2"]["dr"].value == pytest.approx(0.5)
    share = sum(each.policy == "a@1" for each in tossed) / 300
    assert found.rules["fixed:a"]["ips"].value == pytest.approx(0.2 * share / 0.5)
    assert found.rules["uniform"]["ips"].value == pytest.approx(found.logged)
    assert found.logged == pytest.approx(0.2 * share + 0.5 * (1 - share))
    assert found.rules["fixed:a"]["dr"].effective == pytest.approx(300 * share)
    json.dumps(found.to_json(), allow_nan=False)


def test_an_algorithm_learns_from_the_rows_before(tossed: list[Record]) -> None:
    """UCB with little exploration plays the first arm, then the second, then always the cheaper one."""
    found = estimate_rules(tossed, ["ucb"], config=BanditConfig(alpha=0.01))
    assert found.rules["ucb"]["dr"].value == pytest.approx(0.2, abs=0.01)
    by_default = estimate_rules(tossed)
    assert list(by_default.rules) == ["fixed:a@1", "fixed:b@2", "uniform", "rand-ucb"]
    assert by_default.rules["rand-ucb"]["dr"].value < by_default.logged


def test_what_is_thrown_away_costs_one_and_what_is_silent_is_left_out(tossed: list[Record]) -> None:
    more = [
        record(1000, "a@1", edit=None, status="discarded"),
        record(1001, "a@1", edit=None),
        record(1002, "a@1", edit=None, status="expired"),
        record(1003, "a@1", propensity=None),
        record(1004, "b@2", policy=None),
        record(1005, "a@1", edit=WORDS),
    ]
    found = estimate_rules([*tossed, *more], ["fixed:a"])
    assert found.rows == 302
    assert found.dropped == {"pending": 1, "expired": 1, "without policy or propensity": 2}
    n = sum(each.policy == "a@1" for each in tossed)
    assert found.rules["fixed:a"]["snips"].value == pytest.approx((0.2 * n + 1 + 0) / (n + 2))


def test_rows_count_in_the_order_of_their_times(tossed: list[Record]) -> None:
    dated = [each.model_copy(update={"time": None}) for each in tossed]
    dated = [Record(**{**each.model_dump(), "time": 1.7e9 + i}) for i, each in enumerate(dated)]
    in_order, backwards = (estimate_rules(rows, ["rand-ucb"]) for rows in (dated, dated[::-1]))
    assert in_order.rules["rand-ucb"]["ips"].value == pytest.approx(backwards.rules["rand-ucb"]["ips"].value)


def test_features_predict_where_they_help() -> None:
    rng, rows = random.Random(1), []
    for i in range(400):
        letter = rng.random() < 0.5
        cheap = rng.choice(["a@1", "b@2"])
        cost = 2 if (cheap == "a@1") == letter else 8
        edit = " ".join(["new"] * cost + WORDS.split()[cost:])
        rows.append(record(i, cheap, context="A letter." if letter else "A report.", edit=edit))
    found = estimate_rules(rows, ["fixed:a", "rand-ucb"])
    assert found.predicted_by == "features of the requests"
    assert found.rules["fixed:a"]["dr"].value == pytest.approx(0.5, abs=0.03)
    assert found.rules["rand-ucb"]["dr"].value < 0.4
    assert found.rules["fixed:a"]["dr"].error < 0.6 * found.rules["fixed:a"]["ips"].error
    plain = estimate_rules(rows, ["fixed:a"], config=BanditConfig(features="none"))
    assert plain.predicted_by == "the arms' means"


def test_rules_without_overlap_are_told(tossed: list[Record]) -> None:
    rare = [record(1000 + i, "b@2", propensity=0.01) for i in range(3)]
    often = [each.model_copy(update={"propensity": 0.99}) for each in tossed if each.policy == "a@1"]
    rows = often + rare
    found = estimate_rules(rows, ["fixed:a", "fixed:b"])
    assert list(found.rules) == ["fixed:a"]
    assert found.refused["fixed:b"].startswith("too little overlap of the rule with the log: 3.0 effective")
    with pytest.raises(BanditError, match="fixed:b: too little overlap"):
        estimate_rules(rows, ["fixed:b"])


@pytest.mark.parametrize("rule", ["fixed:c", "ucb:a", "fixed:"])
def test_a_rule_that_is_none_is_an_error(rule: str, tossed: list[Record]) -> None:
    with pytest.raises(BanditError, match="fixed:ARM with an arm of the log"):
        estimate_rules(tossed, [rule])


def test_an_unknown_algorithm_is_an_error(tossed: list[Record]) -> None:
    with pytest.raises(ConfigError, match="unknown algorithm"):
        estimate_rules(tossed, ["nonsense"])


def test_a_log_of_a_deterministic_algorithm_cannot_tell(tossed: list[Record]) -> None:
    rows = [each.model_copy(update={"propensity": None}) for each in tossed]
    with pytest.raises(BanditError, match="no row has a policy, a propensity and an edit: '300 without"):
        estimate_rules(rows)


# The probabilities of all arms


@pytest.mark.parametrize("name", ALGORITHMS.built_in)
def test_the_probabilities_are_those_of_the_decisions(name: str) -> None:
    bandit, rng = Bandit(["a", "b", "c"], BanditConfig(algorithm=name)), random.Random(2)
    for i in range(60):
        found = bandit.probabilities(scope=str(i % 2))
        assert math.isclose(sum(found), 1.0)
        decision = bandit.decide(str(i), scope=str(i % 2))
        chosen = found["abc".index(decision.arm)]
        assert chosen == pytest.approx(1.0 if decision.propensity is None else decision.propensity)
        bandit.edited(str(i), rng.random() * {"a": 0.3, "b": 0.5, "c": 0.9}[decision.arm])


class Dishonest:
    """An algorithm that says another probability than that with which it plays."""

    name = "dishonest"

    def choose(self, pulls: Any, observed: Any, means: Any, uniform: Any) -> tuple[int, float]:
        return int(uniform() * 3), 0.1


def test_propensities_that_do_not_sum_to_one_are_an_error() -> None:
    bandit = Bandit(["a", "b", "c"])
    bandit.algorithm = Dishonest()
    with pytest.raises(BanditError, match="do not sum to 1: 'dishonest'"):
        bandit.probabilities()
