"""Replicas that write at once about the same things: each command still has one effect."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import Parrot, Service, run, serving
from sqlalchemy import select
from test_commands import RecordingWriter, arms, ask

from editloop.errors import StoreError
from editloop.online import Bandit, BanditConfig, Decided, Feedback
from editloop.serve.loop.commands import (
    ExpireResponses,
    ForgetUser,
    RecordReroute,
    RecordResponse,
    RemoveTexts,
    StartEpoch,
    names_of,
)
from editloop.serve.loop.edit_commands import RecordEdit, RecordExternal
from editloop.serve.loop.events import read_events
from editloop.serve.problem import Problem
from editloop.store import reads
from editloop.store.schema import drafts, edits
from editloop.store.testing import Postgres


@pytest.fixture(autouse=True)
def _any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine nothing is given up, so that what is found does not depend on its speed."""
    monkeypatch.setattr("editloop.store.database.TIMEOUT_SECONDS", 100)
    monkeypatch.setattr("editloop.store.database.IDLE_SECONDS", 90)
    monkeypatch.setattr("editloop.serve.loop.writer.TIMEOUT_SECONDS", 100)
    monkeypatch.setattr("editloop.serve.loop.access.TIMEOUT_SECONDS", 100)


@asynccontextmanager
async def writers(postgres: Postgres, folder: Path, n: int = 2) -> AsyncIterator[list[RecordingWriter]]:
    url = postgres.new()
    async with AsyncExitStack() as opened:
        made = []
        for number in range(n):
            (folder / str(number)).mkdir()
            made.append(await opened.enter_async_context(RecordingWriter(url, folder / str(number))))
        await made[0].writer.write(arms("a@1", "b@2"))
        yield made


async def everywhere(replicas: Sequence[RecordingWriter], *commands: Any) -> list[Any]:
    """What each replica says to each command, all at the same time."""
    work = [each.writer.write(command) for command in commands for each in replicas]
    return await asyncio.gather(*work, return_exceptions=True)


async def agreed(replicas: Sequence[RecordingWriter]) -> list[object]:
    """The events that all replicas have folded, once those are the ones of the store."""
    deadline = time.monotonic() + 100
    while True:
        there = [event for _, event in read_events(replicas[0].store)]
        if all(each.events == there for each in replicas):
            return there
        assert time.monotonic() < deadline, [each.events for each in replicas]
        await asyncio.sleep(0.05)


def test_commands_of_requests_name_what_they_depend_on() -> None:
    edit = RecordEdit("1", "Hi", None, "k", 1.0)
    assert names_of([ask("1"), RecordReroute("1", "a@1", 1, 2.0), RecordResponse("1", "x", "stop", 3.0)]) == {
        "response 1"
    }
    assert names_of([edit, RecordExternal("2", None, None, "", "", None, "d", 1.0)]) == {
        "response 1",
        "response 2",
        "key k",
    }
    for rare in (arms("a@1"), ForgetUser("ada", 1.0), RemoveTexts(["1"], 1.0), ExpireResponses(["1"], 1.0)):
        assert names_of([edit, rare]) is None
    assert names_of([]) == frozenset()


def test_a_response_is_decided_and_finished_once(postgres: Postgres, tmp_path: Path) -> None:
    async def work() -> None:
        async with writers(postgres, tmp_path, 3) as replicas:
            decided = await asyncio.gather(
                *(
                    each.writer.write(ask("1", arm))
                    for each, arm in zip(replicas, ("a@1", "b@2", "a@1"), strict=True)
                )
            )
            first = replicas[0].store.read(lambda c: c.execute(select(drafts)).one()).policy
            assert sorted(map(str, decided)) == sorted(["None", first, first])
            texts = [RecordResponse("1", text, "stop", 2.0) for text in ("A", "B", "C")]
            kept = await asyncio.gather(
                *(each.writer.write(text) for each, text in zip(replicas, texts, strict=True))
            )
            (text,) = replicas[0].store.read(lambda c: list(c.scalars(select(drafts.c.response))))
            assert kept.count(None) == 1 and texts[kept.index(None)].response == text
            assert [each for each in kept if each is not None] == [(text, first)] * 2
            assert [type(each) for each in (await agreed(replicas))[1:]] == [Decided]

    run(work())


def test_edits_at_once_have_numbers_of_their_own(postgres: Postgres, tmp_path: Path) -> None:
    async def work() -> None:
        async with writers(postgres, tmp_path) as replicas:
            await replicas[0].writer.write(ask("1"))
            await replicas[0].writer.write(RecordResponse("1", "Hello", "stop", 2.0))
            commands = [RecordEdit("1", f"Edit {i}", None, f"k{i}", 3.0 + i) for i in range(20)]
            done = await everywhere(replicas, *commands)
            assert sorted(each.revision for each in done if not each.repeated) == list(range(1, 21))
            for first, second in zip(done[::2], done[1::2], strict=True):
                assert first.revision == second.revision and first.repeated != second.repeated
            rows = replicas[0].store.read(lambda c: c.execute(select(edits).order_by(edits.c.revision)).all())
            assert [row.revision for row in rows] == list(range(1, 21))
            found = await agreed(replicas)
            assert [each.revision for each in found if isinstance(each, Feedback)] == list(range(1, 21))

    run(work())


def test_a_key_that_is_used_twice_at_once_is_one_edit_and_a_refusal(
    postgres: Postgres, tmp_path: Path
) -> None:
    async def work() -> None:
        async with writers(postgres, tmp_path) as replicas:
            for number in range(20):
                ids = f"{number}a", f"{number}b"
                for response_id in ids:
                    await replicas[0].writer.write(ask(response_id))
                    await replicas[0].writer.write(RecordResponse(response_id, "Hello", "stop", 2.0))
                commands = [RecordEdit(response_id, "Hi", None, f"k{number}", 3.0) for response_id in ids]
                done = await asyncio.gather(
                    *(each.writer.write(one) for each, one in zip(replicas, commands, strict=True)),
                    return_exceptions=True,
                )
                (refused,) = [each for each in done if isinstance(each, Exception)]
                assert isinstance(refused, Problem) and refused.code == "key_reused"
            assert len(replicas[0].store.read(lambda c: c.execute(select(edits)).all())) == 20

    run(work())


def test_a_replica_edits_what_another_one_has_decided(postgres: Postgres, tmp_path: Path) -> None:
    """At once, before its own fold knows of the decision; and before the text is there."""

    async def work() -> None:
        async with writers(postgres, tmp_path) as (a, b):
            await a.writer.write(ask("1"))
            early = await b.writer.write(RecordEdit("1", "Hi", None, None, 2.0))
            assert early.cost is None
            await asyncio.gather(
                a.writer.write(RecordResponse("1", "Hello", "stop", 3.0)),
                b.writer.write(RecordEdit("1", "Hi Ada", None, "k", 4.0)),
            )
            found = await agreed([a, b])
            assert [type(each) for each in found[1:]] == [Decided, Feedback, Feedback]
            assert sorted(each.revision for each in found[2:]) == [1, 2]  # type: ignore[attr-defined]

    run(work())


def test_batches_in_opposite_orders_do_not_block_each_other(postgres: Postgres, tmp_path: Path) -> None:
    async def work() -> None:
        async with writers(postgres, tmp_path) as (a, b):
            ids = [str(number) for number in range(100)]
            for turn in range(3):
                commands = [RecordResponse(each, "x", "stop", 1.0) if turn else ask(each) for each in ids]
                found = await asyncio.gather(
                    *map(a.writer.write, commands), *map(b.writer.write, reversed(commands))
                )
                assert len(found) == 200
            assert (a.writer.down, b.writer.down) == (None, None)
            assert len(await agreed([a, b])) == 101

    run(work())


def test_an_edit_beside_a_removal_leaves_no_text(postgres: Postgres, tmp_path: Path) -> None:
    async def work() -> None:
        async with writers(postgres, tmp_path) as (a, b):
            for number in range(15):
                response_id = str(number)
                await a.writer.write(ask(response_id))
                await a.writer.write(RecordResponse(response_id, "Secret", "stop", 2.0))
                edited = b.writer.write(RecordEdit(response_id, "Secret, too", None, None, 3.0))
                removed = a.writer.write(RemoveTexts([response_id], 4.0))
                done = await asyncio.gather(edited, removed, return_exceptions=True)
                assert getattr(done[0], "status", 410) == 410
            whole = a.store.read(lambda c: [c.execute(select(t)).all() for t in (drafts, edits)])
            assert "Secret" not in str(whole)
            await agreed([a, b])

    run(work())


def test_a_decision_beside_a_removal_of_its_user_keeps_no_text(postgres: Postgres, tmp_path: Path) -> None:
    async def work() -> None:
        async with writers(postgres, tmp_path) as (a, b):
            for number in range(15):
                decided = b.writer.write(ask(str(number), user=f"ada {number}"))  # at 10.0
                forgotten = a.writer.write(ForgetUser(f"ada {number}", 11.0))
                await asyncio.gather(decided, forgotten)
                left = a.store.read(
                    lambda c: list(c.scalars(select(drafts.c.response_id).where(drafts.c.user.is_not(None))))
                )
                await a.writer.write(RemoveTexts(left, 12.0))  # those that were there when it looked
            rows = a.store.read(lambda c: c.execute(select(drafts)).all())
            assert {(row.user, row.context, row.finish) for row in rows} == {(None, None, "removed")}
            await agreed([a, b])

    run(work())


class Failing:
    """A command at fault, after an event of its own."""

    def __init__(self, response_id: str) -> None:
        self.decision = ask(response_id)
        self.names = self.decision.names

    def apply(self, appender: Any) -> None:
        self.decision.apply(appender)
        raise ZeroDivisionError


@pytest.mark.parametrize("seed", range(2))
def test_all_replicas_fold_the_same(postgres: Postgres, tmp_path: Path, seed: int) -> None:
    """Commands of all kinds on the same few responses, some at fault, so that numbers are missing."""

    async def work() -> None:
        async with writers(postgres, tmp_path, 3) as replicas:
            chance = random.Random(seed)
            tasks = []
            for number in range(250):
                response_id = f"r{chance.randrange(number + 1) // 3}"
                command = chance.choices(
                    [
                        ask(response_id, chance.choice(["a@1", "b@2"])),
                        RecordResponse(response_id, chance.choice(["x", "y"]), "stop", 2.0),
                        RecordEdit(
                            response_id, f"e{number % 4}", None, chance.choice([None, f"k{number}"]), 3.0
                        ),
                        RecordReroute(response_id, chance.choice(["a@1", "b@2"]), 1, float(number)),
                        Failing(f"f{number}"),
                        RemoveTexts([response_id], 5.0),
                        ExpireResponses([response_id], 5.0),
                        StartEpoch(lambda old: tuple(reversed(old.arms)), (), 6.0),
                    ],
                    [8, 8, 8, 1, 2, 0.3, 0.5, 0.5],
                )[0]
                tasks.append(asyncio.ensure_future(chance.choice(replicas).writer.write(command)))
                if chance.random() < 0.3:
                    await asyncio.sleep(0.002)
            done = await asyncio.gather(*tasks, return_exceptions=True)
            failures = {type(each) for each in done if isinstance(each, Exception)}
            assert failures == {Problem, ZeroDivisionError}
            found = await agreed(replicas)
            states = [Bandit.replay(each.events).to_json() for each in replicas]  # type: ignore[arg-type]
            assert states[0] == states[1] == states[2] == Bandit.replay(found).to_json()  # type: ignore[arg-type]
            assert replicas[0].store.last() > len(found)

    run(work())


class Sleeping:
    """A command during which the process stands still, as when its machine is paused."""

    names = ("response x",)

    def apply(self, appender: Any) -> None:
        time.sleep(1.5)


def test_a_replica_that_stood_still_loses_nothing(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends its transaction. The decision that was in it waits in the spool, and is written."""
    monkeypatch.setattr("editloop.store.database.IDLE_SECONDS", 1)

    async def work() -> None:
        async with writers(postgres, tmp_path) as (a, b):
            still = a.writer.write(Sleeping(), hurry=False)  # type: ignore[arg-type]
            decided = a.writer.write(ask("1"))
            await b.writer.write(ask("2"))
            with pytest.raises(StoreError, match="does not answer: terminating connection due to idle"):
                await still
            assert await decided is None
            found = await agreed([a, b])
            while len(found) < 3:
                await asyncio.sleep(0.1)
                found = await agreed([a, b])
            assert {each.response_id for each in found[1:]} == {"1", "2"}  # type: ignore[attr-defined]

    run(work())


@asynccontextmanager
async def services(url: str, folder: Path, backends: Sequence[Parrot]) -> AsyncIterator[list[Service]]:
    async with AsyncExitStack() as opened:
        yield [
            await opened.enter_async_context(
                serving(url, folder / str(number), backend=backend, arms=("a@1", "b@2") if not number else ())
            )
            for number, backend in enumerate(backends)
        ]


def test_two_replicas_that_are_asked_for_the_same_answer_the_same(postgres: Postgres, tmp_path: Path) -> None:
    """Each chooses an arm of its own. The text and the arm are those of the first one to finish."""

    async def work() -> None:
        backends = Parrot(), Parrot()
        async with services(postgres.new(), tmp_path, backends) as (a, b):
            (await b.ask(id="other")).raise_for_status()  # so the two would choose different arms
            for number in range(10):
                for each in backends:
                    each.waits = asyncio.Event()
                asked = [
                    asyncio.create_task(each.ask(id=f"r{number}", model=arm))
                    for each, arm in ((a, "a"), (b, "b"))
                ]
                while not all(each.asked and len(each.asked) > number for each in backends):
                    await asyncio.sleep(0.01)
                for each in backends:
                    each.waits.set()  # type: ignore[union-attr]
                answers = [answer.json() for answer in await asyncio.gather(*asked)]
                row = await a.loop.read(lambda c, i=f"r{number}": reads.draft(c, i))
                for answer in answers:
                    assert answer["model"] == row.policy
                    assert answer["choices"][0]["message"]["content"] == row.response
                assert row.response == f"Hello from {row.policy}"

    run(work())


def test_clocks_that_differ_change_no_fold(postgres: Postgres, tmp_path: Path, monkeypatch: Any) -> None:
    """One replica's clock is a day ahead of the other's, and jumps back."""

    async def work() -> None:
        url, real = postgres.new(), time.time
        async with services(url, tmp_path, (Parrot(), Parrot())) as (a, b):
            for number in range(12):
                monkeypatch.setattr(time, "time", lambda n=number: real() + 86_400.0 * (n % 3 - 1))
                answer = await (a, b)[number % 2].ask(id=f"r{number}")
                assert answer.status_code == 200
                assert (
                    await (a, b)[1 - number % 2].edit(f"r{number}", "Hi", key=f"k{number}")
                ).status_code == 200
            monkeypatch.setattr(time, "time", real)
            config: BanditConfig = a.loop.config
            deadline = time.monotonic() + 100
            while True:
                replay = Bandit.replay((event for _, event in read_events(a.loop.store)), config).to_json()
                if replay == a.loop.bandit.to_json() == b.loop.bandit.to_json():
                    break
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert a.loop.bandit.state.decisions == 12

    run(work())
