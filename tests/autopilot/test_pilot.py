"""The autopilot on a store: it is started again at any point, and skips or repeats nothing."""

from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path

import pytest
from piloted import CHAMPION, Bench, FakeFitter, begin_shadow

from editloop.autopilot.assignment import is_in_canary, user_key
from editloop.autopilot.fitter import FitResult
from editloop.autopilot.generation import as_evidence
from editloop.autopilot.lease import LEASE, Lease
from editloop.autopilot.ledger import PAUSED, write_transitions
from editloop.autopilot.pilot import Autopilot
from editloop.autopilot.stages import Stage, Transition
from editloop.errors import AutopilotError, StoreUnreachableError
from editloop.policy import RunFolder, arm_name
from editloop.serve.testing import make_run
from editloop.store import reads, writes

S = Stage


def test_a_store_without_edits_gets_a_champion_and_nothing_else(bench):
    assert [each.stage for each in bench.pilot.step()] == [S.ARM]
    assert [each.stage for each in bench.pilot.step()] == [S.CHAMPION]
    assert bench.pilot.step() == [] and bench.pilot.step() == []
    assert bench.stages().champion == CHAMPION and bench.fitter.started == []


def test_accepted_drafts_alone_are_no_reason_to_fit(bench):
    bench.rounds(50, CHAMPION, "a b", "a b")
    for _ in range(5):
        bench.pilot.step()
    assert bench.fitter.started == []


def test_edits_begin_a_fit_which_a_restart_goes_on_with(bench):
    bench.rounds(25, CHAMPION, "a b", "a c")
    for _ in range(3):
        bench.pilot.step()
    assert bench.fitter.started == [str((bench.folder / "runs" / "generation-1").resolve())]
    begun = bench.stages().last("generation-1")
    assert begun.stage is S.FITTING and begun.lineage.parents == (CHAMPION,)
    assert begun.lineage.until == bench.now and begun.reason == "25 new edits"
    for _ in range(2):  # killed twice
        bench.restart()
        bench.pilot.step()
        bench.pilot.step()
        assert bench.fitter.started == [begun.lineage.run]
    assert [each.stage for each in bench.stages().history] == [S.ARM, S.CHAMPION, S.FITTING]


def test_a_fit_begins_at_the_base_unless_the_champion_is_asked_for(bench):
    bench.rounds(25, CHAMPION, "a b", "a c")
    for _ in range(3):
        bench.pilot.step()
    assert bench.stages().last("generation-1").lineage.start == "base" and bench.fitter.starts == [None]


def test_a_fit_begins_at_the_champion_that_it_had_also_after_a_restart(tmp_path):
    run = make_run(tmp_path / "run", ("sft",))
    arm, other = arm_name(RunFolder(run), "sft"), "early@22222222"
    bench = Bench(tmp_path, f"sqlite:///{tmp_path}/edits.db", arm, str(run))
    bench.config = bench.config.model_copy(update={"start": "champion"})
    bench.pilot = bench.new()
    bench.rounds(25, arm, "a b", "a c")
    for _ in range(3):
        bench.pilot.step()
    assert bench.stages().last("generation-1").lineage.start == arm
    assert bench.fitter.starts == [run / "sft"]
    with bench.store.transaction() as connection:
        row = {"arm": other, "name": "early", "run": "gone", "time": bench.now, "metrics": "{}"}
        steps = [(other, None, S.ARM), (arm, S.CHAMPION, S.ARM), (other, S.ARM, S.CHAMPION)]
        write_transitions(connection, [Transition(*step, bench.now) for step in steps], [row])
    bench.restart()
    bench.pilot.step()
    assert bench.stages().champion == other
    assert bench.fitter.starts == [run / "sft"]  # those of the new process
    bench.store.close()


def test_a_fit_that_fails_or_takes_too_long_is_noted_and_waits_for_new_edits(bench):
    bench.rounds(25, CHAMPION, "a b", "a c")
    for _ in range(3):
        bench.pilot.step()
    bench.fitter.result = FitResult(Path("nowhere"), "the loss is not a number")
    (failed,) = bench.pilot.step()
    assert failed.stage is S.FAILED and "not a number" in failed.reason
    assert bench.pilot.step() == []  # the same edits once more would fail once more
    bench.rounds(25, CHAMPION, "a b", "a c")
    assert bench.pilot.step()[0].subject == "generation-2"
    bench.now += 300 * 60  # the machine was down: that is no time of the fit
    assert bench.pilot.step() == []
    bench.pilot._fit_began -= 300 * 60
    (failed,) = bench.pilot.step()
    assert failed.reason.startswith("its minutes are over") and bench.fitter.stopped == 1
    assert failed.lineage.minutes == pytest.approx(300, abs=1)


def test_the_rows_of_a_failed_fit_do_not_stay(bench):
    bench.rounds(25, CHAMPION, "a b", "a c")
    for _ in range(3):
        bench.pilot.step()
    kept = Path(bench.fitter.started[0]) / ".work" / "log.jsonl"
    kept.parent.mkdir(parents=True)
    kept.write_text("a text of a user")
    bench.fitter.result = FitResult(kept.parent.parent, "out of memory")
    bench.pilot.step()
    assert not kept.exists()


def test_what_came_of_a_fit_is_not_lost_if_it_cannot_be_written_at_once(bench, monkeypatch):
    bench.rounds(25, CHAMPION, "a b", "a c")
    for _ in range(3):
        bench.pilot.step()
    bench.fitter.result = FitResult(Path("nowhere"), "out of memory")
    write = bench.pilot._write
    monkeypatch.setattr(bench.pilot, "_write", lambda *_: (_ for _ in ()).throw(StoreUnreachableError("no")))
    with pytest.raises(StoreUnreachableError):
        bench.pilot.step()
    monkeypatch.setattr(bench.pilot, "_write", write)
    assert bench.pilot.step()[0].stage is S.FAILED
    assert len(bench.fitter.started) == 1


def test_a_lease_that_is_lost_stops_the_fit_while_a_step_takes_its_time(bench):
    config = bench.config.model_copy(update={"lease": 0.3})
    pilot = Autopilot(bench.store, config, bench.fitter, bench.folder, lease=Lease(bench.store, seconds=9))
    ended, waits = threading.Event(), threading.Event()

    def step() -> None:
        pilot._had_lease = pilot._lease.take()
        waits.wait(10)

    pilot.step = step
    running = threading.Thread(target=pilot.run, args=(ended.wait,))
    running.start()
    until = time.monotonic() + 10
    while time.monotonic() < until and not pilot._had_lease:
        time.sleep(0.01)
    assert bench.fitter.stopped == 0
    with bench.store.transaction() as connection:
        writes.set_fact(connection, LEASE, json.dumps(["another", 1]))
    while time.monotonic() < until and not bench.fitter.stopped:
        time.sleep(0.01)
    assert bench.fitter.stopped == 1 and not pilot._had_lease
    ended.set()
    waits.set()
    running.join(10)
    bench.store.open(claim=False)


def test_a_run_that_cannot_be_read_is_a_failed_fit(bench):
    bench.rounds(25, CHAMPION, "a b", "a c")
    for _ in range(3):
        bench.pilot.step()
    bench.fitter.result = FitResult(bench.folder / "empty")
    (failed,) = bench.pilot.step()
    assert failed.stage is S.FAILED


def test_two_autopilots_do_not_both_act(bench):
    lease = Lease(bench.store, seconds=1000.0)
    other = Autopilot(bench.store, bench.config, FakeFitter(), bench.folder, lease=lease)
    assert len(bench.pilot.step()) == 1
    assert other.step() == []
    assert len(bench.pilot.step()) == 1


def test_an_autopilot_that_is_paused_does_nothing(bench):
    with bench.store.transaction() as connection:
        writes.set_fact(connection, PAUSED, "now")
    assert bench.pilot.step() == []
    with bench.store.transaction() as connection:
        writes.set_fact(connection, PAUSED, "")
    assert len(bench.pilot.step()) == 1


def shadow_drafts(bench, first: int) -> None:
    """Drafts of the policy in the shadow, which need no edit, and of the champion, for rounds from one on."""
    with bench.store.transaction() as connection:
        for i in range(first, bench.n + 1):
            for arm, text in (("early@22222222", "a c"), (CHAMPION, "a b")):
                row = {"response_id": f"r{i}", "arm": arm, "time": bench.now, "response": text}
                writes.insert_shadow(connection, {**row, "finish": "stop"})


def test_a_policy_goes_from_the_shadow_to_the_arms_with_its_evidence(bench):
    begin_shadow(bench, "early@22222222")
    first = bench.n + 1
    bench.rounds(20, CHAMPION, "a b", "a c")
    shadow_drafts(bench, first)
    (moved,) = bench.pilot.step()
    assert moved.stage is S.CANARY and moved.evidence["shadow"]["mean"] == pytest.approx(-0.5)
    canary = moved.subject
    epoch = bench.store.read(reads.last_epoch)
    assert json.loads(epoch.arms) == [CHAMPION] and json.loads(epoch.detail) == {"canaries": [canary]}
    drawn = f"{canary}#{moved.evidence['draw']}"
    chosen = [i for i in range(10) if is_in_canary(drawn, user_key("salt", f"u{i}"), 0.2)]
    assert len(chosen) >= 2
    for _ in range(120):
        better = (bench.n + 1) % 10 in chosen
        bench.rounds(1, canary if better else CHAMPION, "a c" if better else "a b", "a c")
    (moved,) = bench.pilot.step()
    assert moved.stage is S.ARM and moved.evidence["canary"]["mean"] == pytest.approx(-0.5)
    assert json.loads(bench.store.read(reads.last_epoch).arms) == [CHAMPION, canary]
    # All pairs say −.5, and all costs of the champion are .5: only the bias is uncertain.
    (parent, pulls, change) = json.loads(bench.store.read(reads.last_epoch).detail)["heirs"][canary]
    assert (parent, change) == (CHAMPION, pytest.approx(-0.5)) and 0 < pulls < 0.1


def test_a_policy_waits_in_the_shadow_for_what_its_cost_model_says(bench):
    answers = [None, [{"early@22222222": 0.4, CHAMPION: 0.3}] * 30]

    class FakeScorer:
        def predict(self, shadow, run):
            assert (shadow.subject, run) == ("early@22222222", bench.folder)
            return answers.pop(0)

        def stop(self):
            answers.append("stopped")

    begin_shadow(bench, "early@22222222", run=str(bench.folder))
    bench.pilot = Autopilot(
        bench.store, bench.config, bench.fitter, bench.folder, lease=bench.pilot._lease, scorer=FakeScorer()
    )
    bench.rounds(19, CHAMPION, "a b", "a c")
    shadow_drafts(bench, 1)
    assert bench.pilot.step() == [] and len(answers) == 2  # too few drafts to ask
    bench.rounds(1, CHAMPION, "a b", "a c")
    shadow_drafts(bench, 20)
    assert bench.pilot.step() == []
    (moved,) = bench.pilot.step()
    assert moved.stage is S.REJECTED and "by the cost model" in moved.reason
    assert moved.evidence["cost model"]["rounds"] == 30 and moved.evidence["shadow"]["rounds"] == 20
    bench.pilot.run(lambda seconds: True)
    assert answers == ["stopped"]
    bench.store.open(claim=False)


def test_a_stage_is_written_with_its_epoch_or_not_at_all(bench):
    begin_shadow(bench, "early@22222222")
    before = bench.store.last()
    with bench.store.transaction() as connection, pytest.raises(AutopilotError, match="no arm would be left"):
        write_transitions(connection, [Transition(CHAMPION, S.CHAMPION, S.RETIRED, bench.now, by="somebody")])
    with bench.store.transaction() as connection, pytest.raises(AutopilotError, match="cannot become"):
        write_transitions(connection, [Transition("early@22222222", S.SHADOW, S.CHAMPION, bench.now)])
    assert bench.store.last() == before


def test_a_store_that_goes_away_is_waited_for(bench, monkeypatch, caplog):
    looks, step = [], bench.pilot.step

    def failing() -> list:
        looks.append(1)
        if len(looks) < 3:
            raise StoreUnreachableError("the store does not answer")
        return step()

    monkeypatch.setattr(bench.pilot, "step", failing)
    bench.pilot.run(lambda seconds: len(looks) == 4)
    assert caplog.text.count("the store does not answer") == 2
    bench.store.open(claim=False)
    assert bench.stages().champion == CHAMPION  # the third and the fourth look took their steps
    assert bench.fitter.stopped == 1


def test_a_store_of_a_newer_version_ends_it(bench):
    with bench.store.transaction() as connection:
        row = {"time": 1.0, "kind": "stage", "arm": "x@1", "detail": '{"stage": "unheard-of"}'}
        writes.insert_event(connection, row)
    with pytest.raises(AutopilotError, match="a transition cannot be read"):
        bench.pilot.step()


def test_users_who_were_forgotten_leave_the_next_fit(bench):
    bench.rounds(25, CHAMPION, "a b", "a c", users=1)
    with bench.store.transaction() as connection:
        writes.remove_texts(connection, [f"r{i}" for i in range(1, 26)])
    for _ in range(4):
        bench.pilot.step()
    assert bench.fitter.started == []  # nothing is left to learn from


def test_a_clock_that_jumps_back_leaves_the_order(bench):
    begin_shadow(bench, "early@22222222")
    bench.now -= 1e6
    with bench.store.transaction() as connection:
        steps = bench.stages().moved_by_hand("early@22222222", S.ARM, bench.now, "somebody")
        write_transitions(connection, steps)
    bench.pilot.step()
    assert [each.stage for each in bench.stages().history][:4] == [S.ARM, S.CHAMPION, S.SHADOW, S.ARM]


def test_users_texts_are_no_evidence():
    sampled = {"cost": math.nan, "n": 4, "examples": [{"edit": "Dear Ada"}]}
    found = as_evidence({"held out": {"sampled": sampled, "costs": (0.5, 0.25)}})
    assert found == {"held out": {"sampled": {"cost": None, "n": 4}, "costs": [0.5, 0.25]}}
