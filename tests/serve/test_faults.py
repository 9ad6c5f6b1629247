"""Real failures, a few of each: what was acknowledged is stored once. `bench faults` has the large counts."""

from __future__ import annotations

import asyncio
import errno
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from serving import Parrot, Service, error, run, serving
from sqlalchemy import select

from editloop import journal
from editloop.errors import StoreError, StoreUnreachableError
from editloop.online import Bandit, Decided
from editloop.serve.loop.commands import RecordDecision, RecordResponse, StartEpoch
from editloop.serve.loop.events import read_events
from editloop.serve.loop.spool import spooled_to_json
from editloop.store.database import Store
from editloop.store.keys import create_key
from editloop.store.schema import events
from editloop.store.testing import Postgres


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 30
    while not await true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def known_again(service: Service) -> None:
    """Wait until the store is back, and the loop's state equals a replay of it.

    After a kill, PostgreSQL skips some numbers of events, which the loop has to find out.
    """

    async def up() -> bool:
        if service.loop.down is not None or service.loop.writer.spooled():
            return False
        replay = Bandit.replay((event for _, event in read_events(service.loop.store)), service.loop.config)
        return replay.to_json() == service.loop.bandit.to_json()

    await until(up)


def test_completions_go_on_while_the_database_is_down(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new()

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            before = [(await service.ask(id=f"before{i}")).json()["id"] for i in range(3)]
            await asyncio.to_thread(postgres.stop, at_once=True)
            try:
                answers = [await service.ask(id=f"down{i}", user="ada") for i in range(5)]
                assert {each.status_code for each in answers} == {200}
                assert Counter(each.json()["model"] for each in answers) == {"a@1": 2, "b@2": 3}
                streamed = await service.ask(id="stream", stream=True)
                assert "[DONE]" in streamed.text
                refused = await service.edit(before[0], "Hi")
                assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
                assert refused.json()["error"]["code"] == "store_unavailable"
                assert (await service.http.get("/readyz")).status_code == 503
                assert (await service.http.get("/healthz")).status_code == 200
                assert (await service.http.get("/v1/edits")).status_code == 503
                assert len(service.loop.writer.spooled()) == 12  # decisions and texts
            finally:
                await asyncio.to_thread(postgres.start)
            await known_again(service)
            ids = await service.loop.read(lambda c: list(c.scalars(select(events.c.response_id))))
            assert sorted(filter(None, ids)) == sorted([*before, *(f"down{i}" for i in range(5)), "stream"])
            for response_id in (before[0], "down0", "stream"):
                assert (await service.edit(response_id, "Hi")).status_code == 200
            assert service.loop.state.in_flight == {}

    run(work())


def test_a_repeated_request_waits_for_a_store_that_is_down(postgres: Postgres, tmp_path: Path) -> None:
    """It must not be refused for good: once the store is back, its response is there."""
    url = postgres.new()

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            first = {"before": await service.ask(id="before")}
            await asyncio.to_thread(postgres.stop, at_once=True)
            try:
                first["down"] = await service.ask(id="down")
                for response_id in first:
                    error(await service.ask(id=response_id), 503, "store_unavailable")
            finally:
                await asyncio.to_thread(postgres.start)
            await known_again(service)
            for response_id, answer in first.items():
                again = await service.ask(id=response_id)
                assert again.json()["choices"] == answer.json()["choices"]
            assert len(service.backend.asked) == 2

    run(work())


def test_a_server_starts_from_its_snapshot_while_the_database_is_down(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new()

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await service.edit((await service.ask()).json()["id"], "Hi")
            known, secret = service.loop.bandit.to_json(), service.loop.store.fact("edit_token_secret")
        await asyncio.to_thread(postgres.stop, at_once=True)
        try:
            async with serving(url, tmp_path, arms=(), app_options={"edit_tokens": 60.0}) as service:
                assert service.loop.bandit.to_json() == known
                answer = await service.ask(id="down")
                assert answer.status_code == 200
                # Tokens are signed by the secret of the store, which the snapshot has, too.
                tokens = service.app.state.server.tokens
                assert tokens.secret == secret and tokens.check(answer.json()["edit_token"]) == "down"
            with pytest.raises(StoreError, match="does not answer"):
                async with serving(url, tmp_path / "elsewhere", arms=()):
                    pass
            async with serving(url, tmp_path, arms=()) as service:  # and again, with a spool
                assert service.loop.state.in_flight == {"down": ("", "b@2")}
                await asyncio.to_thread(postgres.start)
                await known_again(service)
                assert service.loop.bandit.state.decisions == 2
        finally:
            if not postgres.is_running:
                await asyncio.to_thread(postgres.start)

    run(work())


def test_only_a_store_that_does_not_answer_is_done_without(tmp_path: Path) -> None:
    """The text of an error decides nothing: neither a name in it, nor the report of a damaged file."""
    folder = tmp_path / "does not answer"
    folder.mkdir()
    url = f"sqlite:///{folder}/edits.db"

    async def work() -> None:
        async with serving(url, tmp_path / "state") as service:
            await service.ask()
            await service.loop.snapshots.write(service.loop.take_snapshot())
            with pytest.raises(StoreError, match="another process serves"):
                async with serving(url, tmp_path / "state", arms=()):
                    pass
        (folder / "edits.db").write_bytes(b"no database " * 1000)
        with pytest.raises(StoreError, match="the store cannot be used: file is not a database") as shown:
            async with serving(url, tmp_path / "state", arms=()):
                pass
        assert not isinstance(shown.value, StoreUnreachableError)

    run(work())
    with pytest.raises(StoreUnreachableError, match="does not answer"):
        Store("postgresql://nobody@127.0.0.1:1/none").open()


def test_a_database_that_stands_still_is_left_behind(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editloop.serve.loop.writer.TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr("editloop.serve.loop.access.TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr("editloop.serve.loop.maintenance.MAINTENANCE_INTERVAL", 0.1)
    url = postgres.new()

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await service.ask(id="before")
            postgres.pause()
            try:
                answers = await asyncio.gather(*(service.ask(id=f"r{i}") for i in range(3)))
                assert {each.status_code for each in answers} == {200}
                assert (await service.edit("before", "x")).status_code == 503
            finally:
                postgres.resume()
            await known_again(service)
            assert service.loop.bandit.state.decisions == 4
            assert (await service.edit("before", "x")).status_code == 200

    run(work())


def test_keys_hold_while_the_database_is_down(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editloop.serve.api.authentication.REFRESH_INTERVAL", 0.02)
    url = postgres.new()

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            key = await asyncio.to_thread(create_key, service.loop.store, "app")
            await service.ask()
            await asyncio.sleep(0.1)
            assert (await service.ask()).status_code == 401
        await asyncio.to_thread(postgres.stop, at_once=True)
        try:
            async with serving(url, tmp_path, arms=()) as service:
                assert (await service.ask()).status_code == 401
                service.http.headers["Authorization"] = f"Bearer {key}"
                assert (await service.ask()).status_code == 200
            (tmp_path / "keys.json").unlink()
            async with serving(url, tmp_path, arms=()) as service:
                assert (await service.ask()).status_code == 503  # it must not be open to everybody
        finally:
            await asyncio.to_thread(postgres.start)

    run(work())


def test_what_can_be_written_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def work() -> None:
        async with serving(f"sqlite:///{tmp_path}/edits.db", tmp_path) as service:
            done = (await service.ask()).json()["id"]
            with monkeypatch.context() as broken:
                broken.setattr("editloop.serve.loop.writer.Writer._appender", full)
                broken.setattr("editloop.serve.loop.spool.append_rows", full)
                for answer in (
                    await service.ask(),
                    await service.ask(stream=True),
                    await service.edit(done, "x"),
                ):
                    assert answer.status_code == 503, answer.text
                    assert "No space left" in answer.json()["error"]["message"]
                assert service.loop.state.in_flight == {}
            await known_again(service)
            assert (await service.edit(done, "x")).json()["repeated"] is False
            assert service.loop.bandit.state.decisions == 1

    run(work())


def test_a_spool_that_was_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/edits.db"

    async def work() -> None:
        async with serving(url, tmp_path):
            pass
        decision = Decided("spooled", "", "b@2", 1.0, 1)
        row = spooled_to_json(RecordDecision(decision, 1.0, None, "d", '"Hi"', None))
        nonsense = {**row, "decision": ["other", "", "b@2", "much", 1]}
        journal.append_rows(tmp_path / "spool.jsonl", [row, row, nonsense])
        with (tmp_path / "spool.jsonl").open("a") as file:
            file.write('{"entry": "Ask", "deci')
        async with serving(url, tmp_path) as service:
            assert (await service.ask()).status_code == 200
            await known_again(service)
            assert service.loop.bandit.state.decisions >= 2
            ids = await service.loop.read(lambda c: list(c.scalars(select(events.c.response_id))))
            assert ids.count("spooled") == 1

    run(work())


def test_retries_of_a_client_that_hears_nothing_count_once(url: str, tmp_path: Path) -> None:
    """Ten attempts at each edit at once, most of them broken off by the client."""

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            ids = [(await service.ask(id=f"r{i}")).json()["id"] for i in range(10)]

            async def hurried(response_id: str) -> None:
                try:
                    async with asyncio.timeout(0.005):
                        await service.edit(response_id, f"Edit of {response_id}", key=response_id)
                except (TimeoutError, httpx.HTTPError):
                    pass

            await asyncio.gather(*(hurried(each) for each in ids * 10))
            done = await asyncio.gather(*(service.edit(each, f"Edit of {each}", key=each) for each in ids))
            assert [each.json()["revision"] for each in done] == [1] * 10
            tallies = [service.loop.bandit.state.tally("", arm) for arm in ("a@1", "b@2")]
            assert sum(tally.observed for tally in tallies) == 10
            await known_again(service)

    run(work())


def test_a_second_server_on_sqlite_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/edits.db"

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            with pytest.raises(StoreError, match="another process serves"):
                async with serving(url, tmp_path / "other"):
                    pass
            assert (await service.ask()).status_code == 200
        Store(url).open()

    run(work())


def test_a_long_spool_is_written_back_in_order(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editloop.serve.loop.writer.MAX_COMMIT_SIZE", 7)
    monkeypatch.setattr("editloop.serve.loop.writer.SPOOL_TURN_SECONDS", 0.02)

    async def work() -> None:
        async with serving(url, tmp_path):
            pass
        rows = []
        for i in range(150):
            decision = Decided(f"s{i}", "", "b@2", 1.0, 1)
            entries = (
                RecordDecision(decision, 1.0, None, "d", '"Hi"', None),
                RecordResponse(f"s{i}", "Hello", "stop", 2.0),
            )
            rows += map(spooled_to_json, entries)
        journal.append_rows(tmp_path / "spool.jsonl", rows)
        async with serving(url, tmp_path) as service:
            answers = await asyncio.gather(*(service.ask(id=f"new{i}") for i in range(9)))
            assert {each.status_code for each in answers} == {200}
            await known_again(service)
            assert service.loop.bandit.state.decisions == 159 and service.loop.state.in_flight == {}
            assert not (tmp_path / "spool.jsonl").exists()
            for response_id in ("s0", "s149", "new8"):
                assert (await service.edit(response_id, "Hi")).json()["cost"] is not None

    run(work())


def test_other_replicas_follow_the_arms(postgres: Postgres, tmp_path: Path) -> None:
    url, first, second = postgres.new(), Parrot(), Parrot()
    row = {"name": "c", "run": str(tmp_path), "time": 1.0, "metrics": "{}", "read_until": None}

    async def work() -> None:
        async with (
            serving(url, tmp_path / "a", backend=first) as a,
            serving(url, tmp_path / "b", backend=second, arms=()) as b,
        ):
            await a.loop.set_arms(StartEpoch(lambda _: ("b@2", "c@3"), (row | {"arm": "c@3"},), time.time()))

            async def known() -> bool:
                return b.loop.bandit.arms == ("b@2", "c@3") and "a@1" in second.retired

            await until(known)
            assert first.retired == second.retired == ["a@1"]
            assert (await b.ask(model="c")).json()["model"] == "c@3"

    run(work())
