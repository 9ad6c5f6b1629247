"""The benchmarks of the server: their counts are right, with hand-made figures and with real processes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import faults, serving
from benchmarks.fault_check import Tables, agrees, check, replay
from benchmarks.fault_clients import Account, KeptEdit
from benchmarks.load import Client, Plan, Seen, load
from editloop.serve.testing import stub_server

ARMS = {"seq": 1, "kind": "arms", "response_id": None, "revision": None, "arm": None, "epoch": 1}
ARMS |= {"arms": '["a@1", "b@2"]', "cost": None, "scope": None, "propensity": None}


def event(kind: str, response_id: str, revision: int, arm: str, cost: float | None = None) -> dict[str, Any]:
    row = {"kind": kind, "response_id": response_id, "revision": revision, "arm": arm, "cost": cost}
    return ARMS | {"scope": "s", "propensity": 1.0, "epoch": 1, "arms": None} | row


def draft(response_id: str, policy: str) -> dict[str, Any]:
    return {"response_id": response_id, "policy": policy, "response": "Dear Ada", "finish": "stop"}


def edit(response_id: str, text: str | None, revision: int = 1, key: str | None = None) -> dict[str, Any]:
    key = key or f"key-{response_id}"
    return {"response_id": response_id, "revision": revision, "edit": text, "key": key}


def store() -> tuple[Account, Tables]:
    """Three responses: one edited, one that another arm answered and that was accepted, one unedited."""
    account = Account()
    account.completions = {"1": ("a@1", "Dear Ada"), "2": ("b@2", "Dear Ada"), "3": ("a@1", "Dear Ada")}
    account.edits = {
        "key-1": KeptEdit("1", "Dear Bob", (1, 0.5)),
        "key-2": KeptEdit("2", None, (1, 0.0)),
        "key-3": KeptEdit("3", "never acknowledged"),
    }
    events = [
        ARMS,
        event("decided", "1", -1, "a@1"),
        event("decided", "2", -1, "a@1"),
        event("rerouted", "2", -2, "b@2"),
        event("edited", "1", 1, "a@1", 0.5),
        event("decided", "3", -1, "a@1"),
        event("accepted", "2", 1, "b@2", 0.0),
    ]
    drafts = [draft("1", "a@1"), draft("2", "b@2"), draft("3", "a@1")]
    return account, Tables(events, drafts, [edit("1", "Dear Bob"), edit("2", None)])


def counts(account: Account, tables: Tables) -> tuple[int, ...]:
    found = check(account, tables)
    names = "completions_lost", "decisions_double", "edits_lost", "edits_double"
    return tuple(found[name] for name in names)


def test_a_store_that_holds_all_that_was_acknowledged() -> None:
    account, tables = store()
    found = check(account, tables)
    assert counts(account, tables) == (0, 0, 0, 0)
    assert (found["completions"], found["edits_sent"], found["edits"], found["rerouted"]) == (3, 3, 2, 1)


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        (event("decided", "3", -1, "a@1"), (1, 0, 0, 0)),
        (event("rerouted", "2", -2, "b@2"), (1, 0, 0, 0)),  # the store takes it to be the other arm's
        (event("edited", "1", 1, "a@1", 0.5), (0, 0, 1, 0)),
        (draft("1", "a@1"), (1, 0, 0, 0)),
        (edit("2", None), (0, 0, 1, 0)),
    ],
)
def test_what_is_not_in_the_store_is_lost(left_out: dict[str, Any], expected: tuple[int, ...]) -> None:
    account, tables = store()
    kept = [[row for row in rows if row != left_out] for rows in (tables.events, tables.drafts, tables.edits)]
    assert counts(account, Tables(*kept)) == expected


@pytest.mark.parametrize(
    ("table", "row", "expected"),
    [
        ("events", event("decided", "3", -1, "a@1"), (0, 1, 0, 0)),
        ("events", event("edited", "1", 2, "a@1", 0.5), (0, 0, 0, 1)),
        ("edits", edit("1", "Dear Bob", 2, "another"), (0, 0, 0, 1)),
    ],
)
def test_what_is_there_twice_is_double(table: str, row: dict[str, Any], expected: tuple[int, ...]) -> None:
    account, tables = store()
    rows = {"events": tables.events, "drafts": tables.drafts, "edits": tables.edits}
    assert counts(account, Tables(**rows | {table: [*rows[table], row]})) == expected


def test_an_edit_with_another_text_or_cost_is_lost() -> None:
    for shown in (KeptEdit("1", "Dear Eve", (1, 0.5)), KeptEdit("1", "Dear Bob", (1, 0.25))):
        account, tables = store()
        account.edits["key-1"] = shown
        assert counts(account, tables) == (0, 0, 1, 0)
    account, tables = store()
    account.edits["key-1"] = KeptEdit("1", "Dear Bob", (1, None))  # the cost was not known yet
    assert counts(account, tables) == (0, 0, 0, 0)


def test_the_state_is_that_of_the_events() -> None:
    _, tables = store()
    assert replay(tables.events) == {"a@1": (1.0, 0.5), "b@2": (1.0, 0.0)}
    shown = {
        "data": [{"arm": "a@1", "observed": 1.0, "cost": 0.5}, {"arm": "b@2", "observed": 1.0, "cost": 0}]
    }
    assert agrees(shown, tables.events)
    assert not agrees(shown, tables.events[:-1])
    assert agrees({"data": []}, [])


def seen(latencies: list[float], failed: dict[str, int], in_time: int) -> Seen:
    planned = len(latencies) + sum(failed.values())
    return Seen(planned, latencies, in_time, [0.1] * planned, latencies[:1], [], failed)


def test_percentiles_over_turns_and_what_is_added() -> None:
    through = serving.summarise(
        [seen([10.0, 30.0], {"status 503": 1}, 2), seen([20.0], {"status 503": 1}, 0)]
    )
    direct = serving.summarise([seen([1.0, 1.0, 4.0], {}, 3)])
    assert (through["requests"], through["answered"], through["failed"]) == (5, 3, {"status 503": 2})
    assert through["in_time"] == 2 / 5
    assert through["latency_ms"] == pytest.approx({"p50": 20.0, "p90": 28.0, "p99": 29.8})
    assert [turn["p50"] for turn in through["latency_ms_by_turn"]] == [20.0, 20.0]
    assert through["edit_ms"]["p50"] == 15.0
    assert through["learned_ms"] is None
    assert serving.added(through, direct) == pytest.approx({"p50": 19.0, "p90": 24.6, "p99": 25.86})
    assert serving.added(through, serving.summarise([seen([], {"broken": 1}, 0)])) is None


def test_the_servers_own_figures() -> None:
    text = "# TYPE x\neditloop_overhead_seconds_count 4.0\neditloop_overhead_seconds_sum 0.02\n"
    assert serving.own_overhead(text) == (0.02, 4.0)
    assert serving.own_overhead("") == (0.0, 0.0)


@pytest.mark.parametrize(("limit", "found"), [(130.0, 125.0), (1000.0, 1000.0), (99.0, 93.75), (1.0, 0.0)])
def test_the_highest_rate_is_bisected(limit: float, found: float) -> None:
    tried: list[float] = []

    def sustains(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    assert serving.highest(sustains) == found
    assert len(tried) == len(set(tried))


def test_a_load_counts_all_that_was_due(tmp_path: Path) -> None:
    with stub_server(tmp_path / "log") as port:
        found = asyncio.run(load(Plan(port, rate=50, seconds=0.6, warm_up=0.2)))
        assert (found.planned, len(found.latencies), found.failed) == (30, 30, {})

        async def ask() -> None:
            client = Client(port)
            with pytest.raises(TimeoutError):  # not answered the first time, but the second time
                await client.ask("POST", "/v1/chat/completions", {"text": "[hang 1]"}, timeout=0.05)
            answer = await client.ask("POST", "/v1/chat/completions", {"text": "[hang 1]"})
            assert answer.json()["choices"][0]["message"]["content"].startswith("Dear Ada")
            client.close()

        asyncio.run(ask())
    found = asyncio.run(load(Plan(port, rate=50, seconds=0.1)))
    assert (found.planned, len(found.latencies), found.failed) == (5, 0, {"ConnectionRefusedError": 5})


def test_the_overhead_of_a_server(tmp_path: Path) -> None:
    options = {"rates": (20.0,), "seconds": 1.0, "warm_up": 0.0, "turns": 1, "sustain": 0, "litellm": False}
    data = serving.run(tmp_path, work=tmp_path / "work", **options)
    by_name = data["loads"]["20"]
    assert set(by_name) == {serving.DIRECT, serving.EDITLOOP}
    for each in by_name.values():
        assert (each["requests"], each["answered"], each["failed"]) == (20, 20, {})
    mine = by_name[serving.EDITLOOP]
    assert mine["learned_probes"] >= 1
    assert mine["own_mean_ms"] > 0
    assert mine["added"]["p50"] == mine["latency_ms"]["p50"] - by_name[serving.DIRECT]["latency_ms"]["p50"]
    assert json.loads((tmp_path / "serve.json").read_text())["loads"] == data["loads"]
    assert "| 20 | EditLoop |" in (tmp_path / "serve.md").read_text()


def test_a_server_that_is_killed_and_one_whose_models_hang(tmp_path: Path) -> None:
    options = {"kills": 2, "fills": 1, "outages": 0, "hangs": 2, "pause": 0.05}
    data = faults.run(tmp_path, work=tmp_path / "work", **options)["scenarios"]
    assert list(data) == ["server killed", "disk full", "model server hangs"]
    for each in data.values():
        if "skipped" in each:  # only root mounts a small disk
            continue
        assert each["completions"] > 0
        assert each["examples"] == []
        assert (each["completions_lost"], each["decisions_double"]) == (0, 0)
        assert (each["edits_lost"], each["edits_double"], each["acknowledgements_that_differ"]) == (0, 0, 0)
        assert each["state_equal"] and each["state_equal_after_restart"]
        assert each["unhelpful_503"] == 0
    assert data["server killed"]["restarts"] == 2
    assert data["model server hangs"]["rerouted"] == data["model server hangs"]["failures"] >= 2
    assert "server killed" in (tmp_path / "faults.md").read_text()
