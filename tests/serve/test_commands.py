"""Commands and their writer: what is acknowledged is in the store once, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from serving import run
from sqlalchemy import select

from editloop.online import Arms, Bandit, Decided, Feedback, Rerouted
from editloop.serve.loop.commands import (
    ExpireResponses,
    ForgetUser,
    RecordDecision,
    RecordReroute,
    RecordResponse,
    RemoveTexts,
    StartEpoch,
)
from editloop.serve.loop.edit_commands import RecordEdit, RecordExternal
from editloop.serve.loop.events import read_events
from editloop.serve.loop.writer import Writer
from editloop.serve.problem import Problem
from editloop.store.database import Store
from editloop.store.schema import drafts, edits, events, log_view, policies
from editloop.store.testing import Postgres


class RecordingWriter:
    """A writer, and the events that it delivered."""

    def __init__(self, url: str, folder: Path) -> None:
        self.store = Store(url)
        self.store.open()
        self.events: list[object] = []
        self.writer = Writer(
            self.store,
            folder / "spool.jsonl",
            lambda response, edit: float(response != edit),
            lambda new: self.events.extend(event for _, event in new),
            self.store.last(),
        )

    async def __aenter__(self) -> RecordingWriter:
        self.writer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.writer.stop()
        await asyncio.sleep(0)
        self.store.close()


def ask(response_id: str, arm: str = "a@1", user: str | None = "ada") -> RecordDecision:
    return RecordDecision(Decided(response_id, "s", arm, 0.5, 1), 10.0, user, "digest", '"Write."', None)


def arms(*names: str) -> StartEpoch:
    return StartEpoch(lambda _: names, (), 1.0)


def test_events_come_back_as_they_were(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            assert await write(arms("a@1", "b@2")) == Arms(1, ("a@1", "b@2"))
            await write(ask("1"))
            await write(RecordReroute("1", "b@2", 1, 11.0))
            await write(RecordResponse("1", "Hello", "stop", 12.0))
            done = await write(RecordEdit("1", "Hello!", None, None, 13.0))
            assert (done.revision, done.cost, done.policy, done.outcome) == (1, 1.0, "b@2", "edited")
            await write(ask("2"))
            assert await write(ExpireResponses(["1", "2", "3"], 14.0)) == 1
            expected = [
                Arms(1, ("a@1", "b@2")),
                Decided("1", "s", "a@1", 0.5, 1),
                Rerouted("1", "b@2"),
                Feedback("1", "edited", 1.0, 1),
                Decided("2", "s", "a@1", 0.5, 1),
                Feedback("2", "expired", None, 0),
            ]
            assert writing.events == expected
            assert list(read_events(writing.store)) == list(enumerate(expected, 1))
            assert list(read_events(writing.store, 4)) == list(enumerate(expected[4:], 5))
            tally = Bandit.replay(event for _, event in read_events(writing.store)).state.tally("s", "b@2")
            assert (tally.observed, tally.cost, tally.pending) == (1, 1.0, 0)

    run(work())


def test_a_text_takes_its_arm_with_it(url: str, tmp_path: Path) -> None:
    """Of two replicas that were asked for one response, the second to decide is the first to finish."""

    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            await write(arms("a@1", "b@2"))
            await write(ask("1"))
            assert await write(ask("1", "b@2")) == "a@1"
            await write(RecordEdit("1", "Hello!", None, None, 2.0))
            assert await write(RecordResponse("1", "Hello", "stop", 3.0, arm="b@2")) is None
            assert await write(RecordResponse("1", "Bye", "stop", 4.0, arm="a@1")) == ("Hello", "b@2")
            assert writing.events[1:] == [
                Decided("1", "s", "a@1", 0.5, 1),
                Rerouted("1", "b@2"),
                Feedback("1", "edited", 1.0, 1),
            ]
            tally = Bandit.replay(event for _, event in read_events(writing.store)).state.tally("s", "b@2")
            assert (tally.observed, tally.cost) == (1, 1.0)

    run(work())


def test_everything_is_written_once(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            await writing.writer.write(arms("a@1"))
            entries = [ask("1"), RecordReroute("1", "a@1", 1, 2.0), RecordResponse("1", "Hello", "stop", 3.0)]
            entries += [RecordEdit("1", "Hi", None, "k", 4.0), RecordEdit("1", "Hi", 1, None, 5.0)]
            for entry in entries * 10:
                await writing.writer.write(entry)  # type: ignore[arg-type]
            await asyncio.gather(
                *(writing.writer.write(RecordEdit("1", "Hi", None, None, 6.0)) for _ in range(10))
            )
            assert writing.store.last() == 4
            assert len(writing.store.read(lambda c: c.execute(select(edits)).all())) == 1

    run(work())


def test_a_repeated_request_is_rerouted_again(url: str, tmp_path: Path) -> None:
    """A kill broke off its first attempt after a reroute. The cost counts for the last arm."""

    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            await writing.writer.write(arms("a@1", "b@2"))
            entries = [ask("1"), RecordReroute("1", "b@2", 1, 2.0), RecordReroute("1", "a@1", 1, 3.0)]
            for entry in [*entries, *entries, RecordResponse("1", "Hello", "stop", 4.0)]:
                await writing.writer.write(entry)  # type: ignore[arg-type]
            done = await writing.writer.write(RecordEdit("1", "Hi", None, None, 5.0))
            assert (done.policy, writing.store.last()) == ("a@1", 5)
            state = Bandit.replay(event for _, event in read_events(writing.store)).state
            assert (state.tally("s", "a@1").observed, state.tally("s", "b@2").pending) == (1, 0)

    run(work())


def test_an_edit_may_come_before_the_response(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            await write(arms("a@1"))
            await write(ask("1"))
            first = await write(RecordEdit("1", "Hello!", None, None, 3.0))
            assert first.cost is None and not first.repeated
            assert (await write(RecordEdit("1", "Hello!", None, None, 3.0))).repeated
            await write(RecordEdit("1", None, None, None, 4.0))
            assert len(writing.events) == 2
            await write(RecordResponse("1", "Hello", "stop", 5.0))
            assert writing.events[2:] == [Feedback("1", "edited", 1.0, 1), Feedback("1", "accepted", 0.0, 2)]

    run(work())


def test_revisions_and_keys_are_held_to(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            await write(arms("a@1"))
            for response_id in ("1", "2"):
                await write(ask(response_id))
                await write(RecordResponse(response_id, "Hello", "stop", 2.0))
            assert (await write(RecordEdit("1", "x", 5, "k", 3.0))).revision == 5
            assert (await write(RecordEdit("1", "y", None, None, 4.0))).revision == 6
            assert (await write(RecordEdit("1", "x", 5, None, 5.0))).repeated
            refused = [
                (RecordEdit("1", "z", 5, None, 6.0), 409, "revision_conflict"),
                (RecordEdit("1", "z", 4, None, 6.0), 409, "revision_conflict"),
                (RecordEdit("2", "x", None, "k", 6.0), 409, "key_reused"),
                (RecordEdit("1", "z", None, "k", 6.0), 409, "key_reused"),
                (RecordEdit("3", "z", None, None, 6.0), 404, "response_not_found"),
            ]
            for entry, status, code in refused:
                with pytest.raises(Problem) as shown:
                    await write(entry)
                assert (shown.value.status, shown.value.code) == (status, code)
            assert [event.revision for event in writing.events if isinstance(event, Feedback)] == [5, 6]

    run(work())


def test_a_late_repetition_changes_nothing(url: str, tmp_path: Path) -> None:
    """Edit A, edit B, and A again by a client that got no answer: B stays the last edit."""

    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            await write(arms("a@1"))
            await write(ask("1"))
            await write(RecordResponse("1", "Hello", "stop", 2.0))
            first = await write(RecordEdit("1", "Hi Ada", None, None, 3.0))
            second = await write(RecordEdit("1", "Hi Bo", None, None, 4.0))
            again = await write(RecordEdit("1", "Hi Ada", None, None, 5.0))
            assert (first.revision, second.revision) == (1, 2)
            assert (again.revision, again.cost, again.repeated) == (1, 1.0, True)
            row = writing.store.read(lambda c: c.execute(select(log_view)).one())
            assert (row.edit, writing.store.last()) == ("Hi Bo", 4)
            # An edit with a key or a revision of its own is a new one, and goes back to the earlier wording.
            keyed = await write(RecordEdit("1", "Hi Ada", None, "key", 6.0))
            assert (keyed.revision, keyed.repeated) == (3, False)
            assert (await write(RecordEdit("1", "Hi Ada", None, "another", 6.5))).repeated
            numbered = await write(RecordEdit("1", "Hi Bo", 7, None, 7.0))
            assert (numbered.revision, numbered.repeated) == (7, False)
            assert (await write(RecordEdit("1", "Hi Ada", None, None, 8.0))).revision == 3
            row = writing.store.read(lambda c: c.execute(select(log_view)).one())
            assert row.edit == "Hi Bo"

    run(work())


def test_a_late_acceptance_is_a_repetition_however_it_is_said(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            await write(arms("a@1"))
            await write(ask("1"))
            await write(RecordResponse("1", "Hello", "stop", 2.0))
            await write(RecordEdit("1", None, None, None, 3.0))
            await write(RecordEdit("1", "Hi", None, None, 4.0))
            for late in (None, "Hello"):
                again = await write(RecordEdit("1", late, None, None, 5.0))
                assert (again.revision, again.outcome, again.repeated) == (1, "accepted", True)

    run(work())


def test_a_draft_that_was_thrown_away_is_a_revision_of_its_own(url: str, tmp_path: Path) -> None:
    """Before its text is known, after an edit, twice, and taken back by a later edit."""

    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            await write(arms("a@1"))
            await write(ask("1"))
            early = await write(RecordEdit("1", None, None, "k", 2.0, discarded=True))
            assert (early.outcome, early.cost) == ("discarded", None)
            await write(RecordResponse("1", "Hello", "stop", 3.0))
            again = await write(RecordEdit("1", None, None, None, 4.0, discarded=True))
            assert (again.revision, again.outcome, again.cost, again.repeated) == (1, "discarded", 1.0, True)
            with pytest.raises(Problem, match="another edit"):  # an acceptance has no text either
                await write(RecordEdit("1", None, None, "k", 5.0))
            with pytest.raises(Problem, match="revision 1 already"):
                await write(RecordEdit("1", None, 1, None, 5.0))
            assert (await write(RecordEdit("1", None, None, None, 6.0))).outcome == "accepted"
            assert (await write(RecordEdit("1", "Hi", None, None, 7.0))).outcome == "edited"
            row = writing.store.read(lambda c: c.execute(select(log_view)).one())
            assert (row.status, row.edit) == ("edited", "Hi")
            last = await write(RecordEdit("1", None, None, "l", 8.0, discarded=True))
            assert (last.revision, last.repeated) == (4, False)
            row = writing.store.read(lambda c: c.execute(select(log_view)).one())
            assert (row.status, row.edit, row.response) == ("discarded", None, "Hello")
            assert [each for each in writing.events if isinstance(each, Feedback)] == [
                Feedback("1", "discarded", 1.0, 1),
                Feedback("1", "accepted", 0.0, 2),
                Feedback("1", "edited", 1.0, 3),
                Feedback("1", "discarded", 1.0, 4),
            ]

    run(work())


def test_features_are_kept_with_a_decision_and_removed_with_the_texts(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            await write(arms("a@1"))
            for response_id in "12":
                asked = ask(response_id)
                await write(replace(asked, decision=asked.decision._replace(features="mine:ADw=")))
            await write(RemoveTexts(["1"], 11.0))
            kept = [each for _, each in read_events(writing.store) if isinstance(each, Decided)]
            assert [each.features for each in kept] == [None, "mine:ADw="]
            await write(ForgetUser("ada", 12.0))
            late = ask("3")  # decided at 10.0, and in a spool until now
            await write(replace(late, decision=late.decision._replace(features="mine:ADw=")))
            kept = [each for _, each in read_events(writing.store) if isinstance(each, Decided)]
            assert kept[-1].features is None

    run(work())


def test_a_refused_entry_takes_no_other_with_it(url: str, tmp_path: Path) -> None:
    class Broken:
        def apply(self, pen: object) -> None:
            raise ZeroDivisionError

    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            await writing.writer.write(arms("a@1"))
            entries = [ask("1"), Broken(), RecordEdit("9", "x", None, None, 1.0), ask("2")]
            found = await asyncio.gather(*map(writing.writer.write, entries), return_exceptions=True)  # type: ignore[arg-type]
            assert [type(each) for each in found] == [type(None), ZeroDivisionError, Problem, type(None)]
            assert len(list(read_events(writing.store))) == 3

    run(work())


def test_texts_go_and_costs_stay(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            await write(arms("a@1"))
            for response_id, user in (("1", "ada"), ("2", "bob"), ("3", "ada")):
                await write(ask(response_id, user=user))
                await write(RecordResponse(response_id, "Hello", "stop", 2.0))
            await write(RecordEdit("1", "Secret", None, "k", 3.0))
            await write(RemoveTexts(["1", "3"], 4.0))
            await write(RemoveTexts(["1", "3"], 4.0))
            rows = writing.store.read(lambda c: c.execute(select(log_view)).all())
            assert [row.id for row in rows] == ["2"]
            whole = str(
                writing.store.read(lambda c: [c.execute(select(t)).all() for t in (drafts, edits, events)])
            )
            assert "Secret" not in whole and "ada" not in whole and "bob" in whole
            costs = writing.store.read(
                lambda c: c.execute(select(events.c.cost).where(events.c.cost > 0)).all()
            )
            assert costs == [(1.0,)]
            assert writing.events[-1] == Feedback("3", "expired", None, 0)
            with pytest.raises(Problem) as shown:
                await write(RecordEdit("1", "x", None, None, 5.0))
            assert shown.value.status == 410

    run(work())


def test_texts_from_elsewhere_are_nothing_for_a_bandit(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            one = RecordExternal("e", "ada", "gpt", '"Write."', "Hello", None, "d", 1.0)
            await write(one)
            await write(one)
            assert (await write(RecordEdit("e", "Hi", None, None, 2.0))).cost == 1.0
            assert (
                writing.events == [] and writing.store.last() == 1 and list(read_events(writing.store)) == []
            )
            row = writing.store.read(lambda c: c.execute(select(log_view)).one())
            assert (row.status, row.edit, row.policy) == ("edited", "Hi", "gpt")
            with pytest.raises(Problem, match="another response has this id"):
                await write(RecordExternal("e", "ada", "gpt", '"Write."', "Other", None, "other", 1.0))

    run(work())


def test_the_log_tells_what_became_of_each(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            await write(arms("a@1"))
            for response_id in "12345":
                await write(ask(response_id))
            for response_id in "1234":
                await write(RecordResponse(response_id, "Hello", "stop", 2.0))
            await write(RecordResponse("5", None, "failed", 2.0))
            await write(RecordEdit("1", "Hi", None, None, 3.0))
            await write(RecordEdit("1", "", None, None, 3.0))
            await write(RecordEdit("2", None, None, None, 3.0))
            await write(ExpireResponses(["3"], 4.0))
            rows = writing.store.read(lambda c: c.execute(select(log_view).order_by(log_view.c.id)).all())
            shown = [(row.id, row.status, row.edit) for row in rows]
            assert shown == [
                ("1", "edited", ""),
                ("2", "accepted", "Hello"),
                ("3", "expired", None),
                ("4", "pending", None),
            ]
            assert writing.events[-1] == Feedback("3", "expired", None, 0)
            assert Feedback("5", "void", None, 0) in writing.events

    run(work())


def test_arms_change_by_epochs(url: str, tmp_path: Path) -> None:
    row = {"arm": "a@1", "name": "a", "run": "run", "time": 1.0, "metrics": "{}", "read_until": None}

    async def work() -> None:
        async with RecordingWriter(url, tmp_path) as writing:
            write = writing.writer.write
            assert await write(StartEpoch(lambda old: (*old.arms, "a@1"), (row,), 1.0)) == Arms(1, ("a@1",))
            assert await write(StartEpoch(lambda old: old.arms, (row,), 1.0)) == Arms(1, ("a@1",))
            with pytest.raises(Problem, match="no arm would be left"):
                await write(StartEpoch(lambda _: (), (), 1.0))
            assert writing.store.last() == 1
            assert len(writing.store.read(lambda c: c.execute(select(policies)).all())) == 1

    run(work())


def test_two_replicas_learn_from_each_other(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new()

    async def work() -> None:
        (tmp_path / "b").mkdir()
        async with RecordingWriter(url, tmp_path) as a, RecordingWriter(url, tmp_path / "b") as b:
            await a.writer.write(arms("a@1"))
            both = [writing.writer.write(ask(f"{i}")) for i in range(40) for writing in (a, b)]
            await asyncio.gather(*both)
            deadline = time.monotonic() + 5
            while len(a.events) < 41 or len(b.events) < 41:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert a.events == b.events == [event for _, event in read_events(a.store)]
            assert a.store.last() == 41

    run(work())
