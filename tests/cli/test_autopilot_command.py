"""`editloop autopilot`: status and moves on a store, and one line for each mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from calling import fails
from editloop.autopilot.ledger import PAUSED, WAITS, read_stages, write_transitions
from editloop.autopilot.stages import Stage, Transition
from editloop.store import Store, reads, writes

S = Stage


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with a champion, and a policy that was rolled back."""
    monkeypatch.chdir(tmp_path)
    opened = Store("edits.db")
    opened.open(claim=False)
    steps = [
        Transition("sft@1", None, S.ARM, 1e9),
        Transition("sft@1", S.ARM, S.CHAMPION, 1.1e9, reason="the only arm"),
        Transition("early@2", None, S.SHADOW, 1.2e9),
        Transition("early@2", S.SHADOW, S.ROLLED_BACK, 1.3e9, reason="it fails in 12 of 12 rounds"),
    ]
    with opened.transaction() as connection:
        row = {"time": 1.0, "kind": "arms", "epoch": 1, "arms": json.dumps(["sft@1"])}
        writes.insert_event(connection, row)
        place = {"name": "x", "run": "gone", "time": 1.0, "metrics": "{}", "read_until": None}
        write_transitions(connection, steps, [{"arm": "sft@1", **place}, {"arm": "early@2", **place}])
    yield opened
    opened.close()


def test_the_status_of_a_new_store_and_of_one_with_stages(editloop, tmp_path, store):
    status, shown, _ = editloop("autopilot", "status", "--store", tmp_path / "new.db")
    assert status == 0 and "No policy has a stage yet" in shown
    status, shown, _ = editloop("autopilot", "status")
    assert status == 0
    assert "champion" in shown and "early@2: shadow → rolled back (it fails in 12 of 12 rounds)" in shown
    assert all(len(line) <= 80 for line in shown.splitlines() if "@2:" not in line)


def test_the_status_says_what_the_next_fit_waits_for(editloop, store):
    assert "waits" not in editloop("autopilot", "status")[1]  # no autopilot has looked at the store
    with store.transaction() as connection:
        writes.set_fact(connection, WAITS, "1300000000 37 of 100 edits of new requests since the last fit")
    shown = editloop("autopilot", "status")[1]
    line = "The next fit waits: 37 of 100 edits of new requests since the last fit (as of "
    assert line + time.strftime("%m-%d %H:%M", time.localtime(1.3e9)) + ").\n" in shown
    with store.transaction() as connection:
        write_transitions(connection, [Transition("early@2", S.ROLLED_BACK, S.CANARY, 1.4e9, "ada")])
    assert "The next fit waits: early@2 is in the canary.\n" in editloop("autopilot", "status")[1]


def test_a_policy_is_brought_back_and_rolled_back_by_hand(editloop, store):
    status, shown, _ = editloop("autopilot", "promote", "early@2", "--reason", "it was the network")
    assert (status, shown) == (0, "early@2: rolled back → arm (it was the network)\n")
    assert json.loads(store.read(reads.last_epoch).arms) == ["sft@1", "early@2"]
    status, shown, _ = editloop("autopilot", "promote", "early@2", "--stage", "champion")
    assert shown == "sft@1: champion → arm (early@2 takes its place)\nearly@2: arm → champion\n"
    status, shown, _ = editloop("autopilot", "rollback", "early@2")
    assert shown == "early@2: champion → rolled back\n"
    assert store.read(read_stages).last("early@2").by == "somebody"


def test_a_move_that_cannot_be_is_one_line(editloop, store):
    fails(editloop("autopilot", "promote", "nobody@1"), "no such policy has a stage", "nobody@1")
    fails(editloop("autopilot", "promote", "early@2", "--stage", "king"), "no such stage", "canary")
    fails(editloop("autopilot", "rollback", "sft@1"), "no arm would be left")
    fails(editloop("autopilot", "rollback", "early@2"), "cannot become rolled back from rolled back")
    assert len(store.read(read_stages).history) == 4


def test_a_pause_is_a_fact_of_the_store(editloop, store):
    assert editloop("autopilot", "pause")[0] == 0
    assert "by the command" in store.read(lambda c: reads.fact(c, PAUSED))
    assert "paused" in editloop("autopilot", "status")[1]
    assert editloop("autopilot", "resume")[0] == 0
    assert not store.read(lambda c: reads.fact(c, PAUSED))


def test_a_wrong_start_is_one_line(editloop, store):
    fails(editloop("autopilot", "run"), "no arm whose run is still there", "--base")
    fails(editloop("autopilot", "run", "--base", "lab:email", "--fit-at", "25:00"), "HH:MM")
    fails(editloop("autopilot", "run", "--base", "lab:email", "--canary-share", "0.9"), "canary_share")
    fails(editloop("autopilot", "run", "--store", "/proc/none/edits.db", "--base", "x"), "the store")


def test_an_autopilot_ends_with_a_signal_and_gives_its_lease_back(store, tmp_path):
    command = [sys.executable, "-m", "editloop", "autopilot", "run", "--base", "lab:email"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--interval", "0.1"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not (store.read(lambda c: reads.fact(c, "autopilot-lease"))):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "run folders in edits.db.runs" in out
    assert json.loads(store.read(lambda c: reads.fact(c, "autopilot-lease")))[0] is None


def test_costs_in_the_shadow_are_predicted_only_by_a_run_that_is_there(editloop, store):
    fails(editloop("autopilot", "predict", "nobody@1", "--out", "costs.json"), "no such policy", "nobody@1")
    fails(editloop("autopilot", "predict", "early@2", "--out", "costs.json"), "gone")
