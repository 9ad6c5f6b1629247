"""The benchmark that kills the autopilot: what it would see in a store where something is wrong."""

from __future__ import annotations

import json

import pytest

from benchmarks.autopilot_faults import broken
from editloop.autopilot.ledger import write_transitions
from editloop.autopilot.stages import Lineage, Stage, Transition
from editloop.store import Store, writes

S = Stage


@pytest.fixture
def store(tmp_path):
    opened = Store(str(tmp_path / "edits.db"))
    opened.open(claim=False)
    with opened.transaction() as connection:
        row = {"time": 1.0, "kind": "arms", "epoch": 1, "arms": json.dumps(["a@1"])}
        writes.insert_event(connection, row)
        write_transitions(connection, [Transition("a@1", None, S.ARM, 2.0)])
    yield opened
    opened.close()


def add(store: Store, **row: object) -> None:
    with store.transaction() as connection:
        writes.insert_event(connection, {"time": 9.0, **row})


def test_nothing_is_wrong_where_nothing_is(store):
    add(store, kind="decided", response_id="r1", revision=-1, scope="", arm="a@1")
    found = broken(str(store.url))
    assert found["wrong"] == [] and found["drafts"] == 1 and found["transitions"] == {"arm": 1}


def test_a_stage_that_is_taken_twice_is_seen(store):
    twice = Transition("a@1", None, S.ARM, 2.0)
    add(store, kind="stage", arm="a@1", detail=twice.to_text())
    assert "taken twice" in broken(str(store.url))["wrong"][0]


def test_an_epoch_without_its_stage_and_a_draft_that_nobody_may_see_are_seen(store):
    add(store, kind="arms", epoch=2, arms=json.dumps(["a@1"]), detail=json.dumps({"canaries": ["b@1"]}))
    add(store, kind="decided", response_id="r1", revision=-1, scope="", arm="c@1")
    wrong = broken(str(store.url))["wrong"]
    assert "the canary of epoch 2 does not follow" in wrong[0] and "answered by c@1" in wrong[1]


def test_a_policy_without_its_lineage_and_a_generation_that_is_missing_are_seen(store):
    lineage = Lineage(2, ("a@1",), "base", 1.0, "nowhere")
    with store.transaction() as connection:
        steps = [
            Transition("generation-2", None, S.FITTING, 3.0, lineage=lineage),
            Transition("generation-2", S.FITTING, S.FITTED, 4.0, lineage=lineage),
            Transition("b@1", None, S.SHADOW, 4.0, lineage=lineage),
        ]
        write_transitions(connection, steps)
    wrong = broken(str(store.url))["wrong"]
    assert wrong == ["the generations are [2]", "b@1 has no whole lineage"]
