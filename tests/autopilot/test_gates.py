"""The offline gates, each by figures that it has to stop, and by some that it has to let pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from editloop.autopilot.gates import GATES, FittedPolicy, gate_objections

NAMES = ["validation_cost", "training", "held_out_cost", "well_formed", "non_answers", "off_policy"]
COST = {"mean": 0.3, "se": 0.02, "n": 64}


def figures(**more: Any) -> dict[str, Any]:
    """What `evaluate` says of a policy whose drafts are in order, but for what is named."""
    sampled = {"cost": COST, "looping": 0.0, "unfinished": 0.0, "empty": 0.0, "non_answers": 0.0}
    weighed = {"rows": 64, "effective": 30.0, "logged": 0.3, "cost": None, "refused": "too little overlap"}
    return {"sampled": sampled | more, "off_policy": weighed}


GOOD = FittedPolicy(
    "early@2", "early", "run", {"cost": COST, "base": COST, "alarms": []}, figures(), figures()
)


def test_a_policy_that_is_in_order_passes_all_gates() -> None:
    assert list(GATES) == NAMES and gate_objections(GOOD) == {}


def test_a_policy_passes_where_nothing_was_held_out_or_an_earlier_version_evaluated() -> None:
    assert gate_objections(FittedPolicy("early@2", "early", "run", GOOD.validation)) == {}
    assert gate_objections(replace(GOOD, champion=None)) == {}
    old = {"sampled": {"cost": COST, "looping": 0.0, "unfinished": 0.0}}
    bad = figures(non_answers=1.0)
    assert gate_objections(replace(GOOD, held_out=bad, champion=old)) == {}
    assert gate_objections(replace(GOOD, held_out=old, champion=figures())) == {}
    assert gate_objections(replace(GOOD, held_out={}, champion={})) == {}


def test_costs_and_alarms_of_training_stop_a_policy() -> None:
    dear = {"mean": 0.5, "se": 0.02, "n": 64}
    bad = replace(
        GOOD,
        validation={"cost": dear, "base": COST, "alarms": ["displacement: ..."]},
        held_out=figures(cost={"mean": 0.36, "se": 0.02, "n": 64}),
    )
    against = gate_objections(bad)
    assert list(against) == ["validation_cost", "training", "held_out_cost"]
    assert against["held_out_cost"] == "its held-out drafts cost 0.360, the champion's 0.300 ± 0.028"


@pytest.mark.parametrize(
    ("name", "gate", "said"),
    [
        ("looping", "well_formed", "16 of its 64 held-out drafts end in a loop, 0 of the champion's 64"),
        ("unfinished", "well_formed", "16 of its 64 held-out drafts do not end, 0 of the champion's 64"),
        ("non_answers", "non_answers", "16 of its 64 held-out drafts are no answers, 0 of the champion's 64"),
    ],
)
def test_drafts_that_are_worse_in_another_way_than_by_cost(name: str, gate: str, said: str) -> None:
    assert gate_objections(replace(GOOD, held_out=figures(**{name: 0.25}))) == {gate: said}
    # The champion does it, too; or it is no more than a tenth, or chance.
    both = replace(GOOD, held_out=figures(**{name: 0.25}), champion=figures(**{name: 0.2}))
    assert gate_objections(both) == {}
    assert gate_objections(replace(GOOD, held_out=figures(**{name: 6 / 64}))) == {}
    few = figures(**{name: 2 / 12}, cost={**COST, "n": 12})
    assert gate_objections(replace(GOOD, held_out=few, champion=figures(cost={**COST, "n": 12}))) == {}


def test_drafts_that_read_as_the_users_own_texts_are_no_fault() -> None:
    """Letters that only ask for something look like questions back, and may be what the users want."""
    learned = figures(non_answers=0.25, edits_non_answers=0.25)
    assert gate_objections(replace(GOOD, held_out=learned)) == {}
    too_many = figures(non_answers=0.6, edits_non_answers=0.25)
    assert list(gate_objections(replace(GOOD, held_out=too_many))) == ["non_answers"]


def test_an_estimate_from_the_log_objects_by_the_whole_of_its_interval() -> None:
    def weighed(low: float, high: float) -> FittedPolicy:
        cost = {"value": (low + high) / 2, "low": low, "high": high, "n": 60}
        found = {"rows": 64, "effective": 30.0, "logged": 0.3, "cost": cost, "refused": ""}
        return replace(GOOD, held_out={**figures(), "off_policy": found})

    said = "by the log its drafts would cost 0.400 [0.310, 0.490], those that users had cost 0.300"
    assert gate_objections(weighed(0.31, 0.49)) == {"off_policy": said}
    assert gate_objections(weighed(0.29, 0.6)) == {} and gate_objections(weighed(0.1, 0.2)) == {}
