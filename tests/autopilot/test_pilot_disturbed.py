"""What disturbs the autopilot: a full disk, clocks that jump, a base that has changed, users who go."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import pytest
from piloted import CHAMPION, Bench, begin_shadow
from sqlalchemy import update

from editloop.autopilot.fitter import FitResult
from editloop.autopilot.ledger import NOTICED, WAITS, write_transitions
from editloop.autopilot.look import look, steady_times
from editloop.autopilot.stages import Stage, Transition
from editloop.autopilot.triggers import minutes_spent
from editloop.errors import StoreUnreachableError
from editloop.store import reads, writes
from editloop.store.schema import policies
from small_run import make_run

S = Stage
NEW = "early@22222222"


def begin_fit(bench: Bench) -> None:
    bench.rounds(25, CHAMPION, "a b", "a c")
    for _ in range(3):
        bench.pilot.step()
    assert bench.stages().of("generation-1") is S.FITTING


def shadow_drafts(bench: Bench, first: int) -> None:
    """Drafts that nobody saw, of both policies, for the rounds from a number on."""
    with bench.store.transaction() as connection:
        for i in range(first, bench.n + 1):
            for arm, text in ((NEW, "a c"), (CHAMPION, "a b")):
                row = {"response_id": f"r{i}", "arm": arm, "time": bench.now, "response": text}
                writes.insert_shadow(connection, {**row, "finish": "stop"})


def begin_canary(bench: Bench) -> None:
    begin_shadow(bench, NEW)
    terms = {"champion": CHAMPION, "share": 0.5, "unit": "request", "rounds": 100, "draw": 0}
    with bench.store.transaction() as connection:
        write_transitions(connection, [Transition(NEW, S.SHADOW, S.CANARY, bench.now, evidence=terms)])


# A full disk


@pytest.fixture
def small(tmp_path):
    """As `bench`, in a SQLite file."""
    made = Bench(tmp_path, f"sqlite:///{tmp_path}/edits.db")
    yield made
    made.store.close()


def limit_pages(bench: Bench, pages: int) -> None:
    """Let SQLite's file grow to so many pages at most; beyond, SQLite says what it says on a full disk."""
    with bench.store.writer.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")


def test_what_came_of_a_fit_waits_for_room_on_the_disk(small, caplog):
    begin_fit(small)
    limit_pages(small, 1)
    small.fitter.result = FitResult(Path("nowhere"), "out of memory " * 10_000)
    looks = []

    def is_ending(_: float) -> bool:
        looks.append(1)
        return len(looks) > 3

    small.pilot.run(is_ending)
    assert caplog.text.count("database or disk is full") == 3 == len(caplog.records)
    assert "Traceback" not in caplog.text
    small.store.open(claim=False)  # its new connection knows no limit
    assert small.stages().of("generation-1") is S.FITTING
    (failed,) = small.pilot.step()
    assert failed.stage is S.FAILED and failed.reason.startswith("out of memory")
    assert len(small.fitter.started) == 1


def test_of_several_transitions_none_is_written_where_the_last_one_has_no_room(small):
    begin_canary(small)
    with small.store.transaction() as connection:
        write_transitions(connection, [Transition(NEW, S.CANARY, S.ARM, small.now)])
    limit_pages(small, 1)
    before, epoch = small.store.last(), small.store.read(reads.last_epoch).seq
    steps = small.stages().moved_by_hand(NEW, S.CHAMPION, small.now, "ada", "better " * 20_000)
    assert len(steps) == 2
    with (
        pytest.raises(StoreUnreachableError, match="database or disk is full"),
        small.store.transaction() as connection,
    ):
        write_transitions(connection, steps)
    assert small.store.last() == before and small.store.read(reads.last_epoch).seq == epoch
    assert small.stages().champion == CHAMPION
    limit_pages(small, 1_000_000)
    with small.store.transaction() as connection:
        write_transitions(connection, steps)
    assert small.stages().champion == NEW and small.stages().of(CHAMPION) is S.ARM


def test_no_notice_is_sent_again_and_again_while_nothing_can_be_written(bench, monkeypatch):
    sent, set_fact = [], bench.pilot._set_fact
    monkeypatch.setattr(bench.pilot._notices, "send", lambda each: sent.append(each.stage))

    def full(*_: str) -> None:
        raise StoreUnreachableError("the store does not answer: database or disk is full")

    monkeypatch.setattr(bench.pilot, "_set_fact", full)
    for _ in range(3):
        with pytest.raises(StoreUnreachableError):
            bench.pilot.step()
    assert sent == [S.ARM]
    monkeypatch.setattr(bench.pilot, "_set_fact", set_fact)
    bench.pilot.step()
    assert sent == [S.ARM, S.CHAMPION]
    assert int(bench.store.read(lambda c: reads.fact(c, NOTICED))) == bench.store.last()


# Clocks


def test_times_follow_the_numbers_whatever_the_clocks_say():
    times = steady_times([(3, 50.0), (1, 10.0), (2, 100.0), (5, 101.0), (4, 50.0)])
    assert list(times) == [1, 2, 3, 4, 5] and (times[1], times[2], times[5]) == (10.0, 100.0, 101.0)
    assert 100.0 < times[3] < times[4] < 100.001
    now = time.time()
    late = steady_times([(1, now), (2, now - 3600), (3, now - 3600)])
    assert late[1] < late[2] < late[3]  # a microsecond is more than the grain of today's times


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_shadow_is_neither_skipped_nor_stuck_when_the_clock_jumps(bench, jump):
    begin_shadow(bench, NEW)
    bench.rounds(10, CHAMPION, "a b", "a c")
    shadow_drafts(bench, 1)
    assert bench.pilot.step() == []
    bench.now += jump
    assert bench.pilot.step() == []
    bench.rounds(9, CHAMPION, "a b", "a c")
    shadow_drafts(bench, 11)
    assert bench.pilot.step() == []
    bench.rounds(1, CHAMPION, "a b", "a c")
    shadow_drafts(bench, 20)
    (moved,) = bench.pilot.step()
    assert moved.stage is S.CANARY and moved.evidence["shadow"]["rounds"] == 20


def test_drafts_of_an_earlier_shadow_do_not_count_for_a_later_one(bench):
    begin_shadow(bench, NEW)
    bench.rounds(15, CHAMPION, "a b", "a c")
    shadow_drafts(bench, 1)
    for before, stage in ((S.SHADOW, S.REJECTED), (S.REJECTED, S.SHADOW)):
        with bench.store.transaction() as connection:
            write_transitions(connection, [Transition(NEW, before, stage, bench.now, "ada")])
        bench.now += 1
    bench.rounds(15, CHAMPION, "a b", "a c")
    shadow_drafts(bench, 16)
    assert bench.pilot.step() == [] and bench.stages().of(NEW) is S.SHADOW


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_canary_that_fails_is_rolled_back_at_once_when_the_clock_jumps(bench, jump):
    begin_canary(bench)
    bench.now += jump
    bench.rounds(20, CHAMPION, "a b", "a c")
    assert bench.pilot.step() == [] and bench.stages().of(NEW) is S.CANARY
    bench.rounds(12, NEW, "a b", "a c", by=CHAMPION)
    (moved,) = bench.pilot.step()
    assert moved.stage is S.ROLLED_BACK and "fails in 12 of 12 rounds" in moved.reason


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_the_minutes_and_the_next_fit_survive_a_clock_that_jumps(bench, jump):
    begin_fit(bench)
    bench.pilot._fit_began -= 600
    bench.fitter.result = FitResult(Path("nowhere"), "out of memory")
    bench.pilot.step()
    bench.now += jump
    assert minutes_spent(bench.stages(), bench.now) == pytest.approx(10, abs=0.1)
    assert bench.pilot.step() == []
    bench.rounds(25, CHAMPION, "a b", "a c")
    (begun,) = bench.pilot.step()
    assert begun.subject == "generation-2" and begun.lineage.until == bench.now
    assert math.isclose(minutes_spent(bench.stages(), bench.now + 2 * 86_400), 0.0)


# A base that has changed


@pytest.fixture
def runs(bench):
    """The run folder of the champion, and one that was just fitted."""
    champion, new = make_run(bench.folder / "champion"), make_run(bench.folder / "new")
    with bench.store.transaction() as connection:
        place = {"run": str(champion.path), "name": "sft"}
        connection.execute(update(policies).where(policies.c.arm == CHAMPION).values(place))
    return champion, new


def change_base(run, **changes) -> None:
    manifest = run.manifest()
    base = manifest.base.model_copy(update=changes)
    run.write_manifest(manifest.model_copy(update={"base": base}))


def test_a_policy_of_a_base_that_has_changed_ends_as_failed(bench, runs):
    begin_fit(bench)
    change_base(runs[1], fingerprint="f" * 16)
    bench.fitter.result = FitResult(runs[1].path)
    (failed,) = bench.pilot.step()
    assert failed.stage is S.FAILED
    assert failed.reason.startswith("the base has changed since the champion was fitted on it: '")
    assert "\n" not in failed.reason and bench.stages().subjects == [CHAMPION, "generation-1"]


@pytest.mark.parametrize("changed", [False, True])
def test_the_base_of_the_champion_or_one_of_another_name_is_no_error(bench, runs, changed):
    begin_fit(bench)
    if changed:  # somebody gave the autopilot another base
        other = bench.folder / "other"
        shutil.copytree(bench.folder / "base", other)
        change_base(runs[1], fingerprint="f" * 16, name=str(other))
    bench.fitter.result = FitResult(runs[1].path)
    assert [each.stage for each in bench.pilot.step()] == [S.FITTED, S.SHADOW]


# Nothing to learn from, and what a fit waits for


def waits(bench: Bench) -> str:
    for _ in range(3):
        bench.pilot.step()
    since, _, line = (bench.store.read(lambda c: reads.fact(c, WAITS)) or "").partition(" ")
    assert float(since) <= bench.now
    return line


def test_without_edits_nothing_is_fitted_and_the_store_says_why(bench):
    assert waits(bench) == "0 of 20 edits of new requests"
    bench.rounds(50, CHAMPION, "a b", "a b")
    assert waits(bench) == "0 of 20 edits of new requests"
    bench.rounds(7, CHAMPION, "a b", "a c")
    assert waits(bench) == "7 of 20 edits of new requests"
    assert bench.fitter.started == []


def test_all_users_who_are_forgotten_between_two_fits_leave_nothing_to_fit(bench):
    begin_fit(bench)
    bench.fitter.result = FitResult(Path("nowhere"), "out of memory")
    bench.pilot.step()
    bench.rounds(4, CHAMPION, "a b", "a c")
    assert waits(bench) == "4 of 5 edits of new requests since the last fit"
    with bench.store.transaction() as connection:
        writes.remove_texts(connection, [f"r{i}" for i in range(1, bench.n + 1)])
    bench.rounds(3, CHAMPION, "a b", "a c")
    assert waits(bench) == "3 of 5 edits of new requests since the last fit"
    assert len(bench.fitter.started) == 1


def test_a_store_without_arms_says_that_there_is_no_champion(bench):
    with bench.store.transaction() as connection:
        row = {"time": 2.0, "kind": "arms", "epoch": 2, "arms": "[]"}
        writes.insert_event(connection, row)
    assert waits(bench) == "there is no champion yet"


def test_what_users_make_of_drafts_is_read_with_the_rounds(bench):
    bench.rounds(3, CHAMPION, "Here is a letter.", "Could you please send your address?")
    bench.rounds(2, CHAMPION, "Here is a letter.", "Here is another letter.")
    watch = bench.store.read(lambda c: look(c, bench.now)).watch
    assert [each.wants_none for each in watch.rounds] == [True] * 3 + [False] * 2
    assert not any(each.non_answer for each in watch.rounds)
    bench.rounds(1, CHAMPION, "Here is a letter.", "Here is a letter.")
    assert bench.store.read(lambda c: look(c, bench.now)).watch.rounds[-1].wants_none is None
