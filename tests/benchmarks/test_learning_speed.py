"""The benchmark of the way from an edit to a new arm: what it reads from a store and from what users saw."""

from __future__ import annotations

import json

import pytest

from benchmarks import learning_speed
from benchmarks.learning_load import Seen, read_seen
from benchmarks.learning_speed import measured
from editloop.autopilot.ledger import write_transitions
from editloop.autopilot.stages import Lineage, Stage, Transition
from editloop.errors import RunError
from editloop.store import Store, writes

S = Stage
OLD, NEW = "sft@1", "sft@2"
LINEAGE = Lineage(1, (OLD,), "base", 300.0, "runs/1")


@pytest.fixture
def store(tmp_path):
    """A store whose first policy is the champion."""
    opened = Store(str(tmp_path / "edits.db"))
    opened.open(claim=False)
    with opened.transaction() as connection:
        row = {"time": 1.0, "kind": "arms", "epoch": 1, "arms": json.dumps([OLD])}
        writes.insert_event(connection, row)
        write_transitions(connection, [Transition(OLD, None, S.ARM, 2.0)])
        write_transitions(connection, [Transition(OLD, S.ARM, S.CHAMPION, 3.0)])
    yield opened
    opened.close()


def answer(store: Store, time: float, arm: str, propensity: float | None = 1.0, edit: str = "b") -> Seen:
    """A request that is answered after 50 ms and edited after a second."""
    name = f"r{time:g}"
    with store.transaction() as connection:
        about = {"time": time, "kind": "decided", "revision": -1}
        event = {**about, "response_id": name, "scope": "", "arm": arm, "propensity": propensity}
        writes.insert_event(connection, event)
        draft = {"response_id": name, "time": time, "user": "u", "policy": arm, "request": name}
        writes.insert_draft(connection, {**draft, "context": '"Write."', "response": "a", "finish": "stop"})
        edit_row = {"response_id": name, "revision": 1, "time": time + 1, "edit": edit}
        writes.insert_edit(connection, edit_row)
    return Seen(time, 50.0, 200, arm, name)


def move(store: Store, *steps: Transition) -> None:
    with store.transaction() as connection:
        write_transitions(connection, steps)


def test_times_are_counted_from_the_edit_that_begins_the_fit(store):
    seen = [answer(store, 100.0 + i, OLD) for i in range(10)]
    seen += [answer(store, 200.0, OLD, edit="a"), answer(store, 210.0, OLD)]  # the first is accepted
    seen += [Seen(250.0, None, 0), answer(store, 260.0, OLD)]  # the edit of 261 s is the twelfth
    begun = Transition("generation-1", None, S.FITTING, 265.0, lineage=LINEAGE)
    move(store, begun)
    with pytest.raises(RunError, match="no fit"):
        measured(store, seen, 100.0, 205.0, 99)
    seen += [answer(store, 270.0 + i, OLD) for i in range(5)]
    fitted = Transition("generation-1", S.FITTING, S.FITTED, 300.0, lineage=LINEAGE)
    move(store, fitted, Transition(NEW, None, S.SHADOW, 300.0, lineage=LINEAGE))
    only = measured(store, seen, 100.0, 205.0, 12)
    assert only["seconds"] == pytest.approx({"fitting": 4.0, "fitted": 39.0, "shadow": 39.0})
    assert "did not become an arm" in learning_speed._shares(only["seconds"])
    move(store, Transition(NEW, S.SHADOW, S.CANARY, 320.0, lineage=LINEAGE))
    seen += [answer(store, 325.0, NEW, None), answer(store, 330.0, OLD)]
    move(store, Transition(NEW, S.CANARY, S.ARM, 340.0, lineage=LINEAGE))
    seen += [answer(store, 341.0, NEW, None), answer(store, 345.0, NEW, 0.5)]
    data = measured(store, seen, 100.0, 205.0, 12)
    wanted = {"canary": 59.0, "first draft": 64.05, "arm": 79.0, "first draft as an arm": 84.05}
    assert data["seconds"] == pytest.approx(only["seconds"] | wanted)
    counts = {name: (each["requests"], each["answered"]) for name, each in data["latency"].items()}
    assert counts == {"without": (11, 11), "looks": (3, 2), "fit": (5, 5), "shadow": (0, 0), "canary": (2, 2)}
    assert data["latency"]["fit"]["latency_ms"] == {"p50": 50.0, "p95": 50.0, "p99": 50.0}
    shares = learning_speed._shares(data["seconds"])
    assert "it took 84: met" in shares and "the fit with its evaluation 42%" in shares
    assert "1.00 times: met" in learning_speed._ratio(data["latency"])


def test_a_page_says_what_was_run(store):
    seen = [answer(store, 100.0 + i, OLD) for i in range(3)]
    begun = Transition("generation-1", None, S.FITTING, 110.0, lineage=LINEAGE)
    failed = Transition("generation-1", S.FITTING, S.FAILED, 112.0, reason="no room", lineage=LINEAGE)
    move(store, begun, failed)
    data = measured(store, seen, 100.0, 105.0, 3)
    settings = {"rate": 20.0, "users": 20, "kind": "strong", "edited": 0.25, "further": 60}
    given = {**settings, "flags": {"min-edits": 3}}
    page = learning_speed._page({"settings": given, "processor_share": 0.4, **data})
    assert "20 requests a second" in page and "`--min-edits 3`" in page
    assert "generation-1: fitting → failed (no room)" in page and "not measured" in page


def test_what_users_saw_is_read_as_it_was_written(tmp_path):
    seen = [Seen(1.0, 2.0, 200, "a@1", "r1"), Seen(2.0, None, 0)]
    (tmp_path / "seen.json").write_text(json.dumps({"seen": seen, "edits": {200: 3}}))
    assert read_seen(tmp_path / "seen.json") == (seen, {"200": 3})
