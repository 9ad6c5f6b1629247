"""Numbers of two costs are never added up: a store knows by which cost its edits are measured."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from serving import Service, error, run, serving, sqlite
from sqlalchemy import select

from editloop.edits import register_cost
from editloop.edits.cost import DEFAULT_COST, PAPER_COST
from editloop.errors import BanditError, StoreError
from editloop.online import Bandit, BanditConfig
from editloop.serve.loop.costs import usual_cost
from editloop.serve.loop.events import read_events
from editloop.store.database import Store
from editloop.store.schema import events, facts
from editloop.store.testing import Postgres

SHARE = BanditConfig(cost=PAPER_COST, algorithm="ucb")
WORDS = BanditConfig(cost="levenshtein:word/none", scale=3.0, algorithm="ucb")


def counted(service: Service) -> dict[tuple[str, int], tuple[str, float | None]]:
    """Kind and cost of the feedback on each revision of each response."""
    rows = service.loop.store.read(lambda c: c.execute(select(events).where(events.c.revision > 0)).all())
    return {(row.response_id, row.revision): (row.kind, row.cost) for row in rows}


def is_replay(service: Service) -> bool:
    """Whether the state is that of the store's events, but for features, which are removed with the texts."""
    replay = Bandit.replay((event for _, event in read_events(service.loop.store)), service.loop.config)
    return counts(replay) == counts(service.loop.bandit)


def counts(bandit: Bandit) -> dict[str, Any]:
    state = {name: value for name, value in bandit.state.to_json().items() if name != "slopes"}
    responses = {key: response[:-1] for key, response in state["responses"].items()}
    return bandit.to_json() | {"state": state | {"responses": responses}}


async def use(service: Service) -> None:
    """Drafts of three words: one edited, one accepted, one of a user who is forgotten, one from elsewhere."""
    for response_id, user in (("a", "ada"), ("b", "ada"), ("c", "ada"), ("gone", "zoe"), ("kept", "zoe")):
        assert (await service.ask(id=response_id, user=user)).json()["choices"]
    await service.edit("a", "Hi from me")
    await service.edit("a", "Hi")
    await service.edit("b")
    await service.edit("gone", "Hi")
    await service.edit("kept")
    assert (await service.http.delete("/v1/users/zoe")).json()["removed"] == 2
    other = {"response_id": "e", "context": "Write.", "response": "One two three four", "edit": "One two"}
    assert (await service.http.post("/v1/edits", json=other)).status_code == 200


def test_a_store_is_not_counted_by_two_costs(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path, config=SHARE) as service:
            await use(service)
            before = counted(service)
        with pytest.raises(StoreError) as shown:
            async with serving(url, tmp_path, config=WORDS):
                pass
        assert str(shown.value) == (
            "the edits of this store are measured by levenshtein:word/response, not by levenshtein:word/none "
            "(use --cost levenshtein:word/response, or --reprice to measure them again)"
        )
        async with serving(url, tmp_path, config=SHARE) as service:
            assert counted(service) == before and is_replay(service)
            named = service.loop.store.read(lambda c: c.scalars(select(events.c.cost_name)).all())
            assert set(named) == {None, "levenshtein:word/response"}

    run(work())


def test_all_edits_are_counted_again_from_their_texts(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with serving(url, tmp_path, config=SHARE) as service:
            await use(service)
            assert counted(service) == {
                ("a", 1): ("edited", pytest.approx(2 / 3)),
                ("a", 2): ("edited", 1.0),
                ("b", 1): ("accepted", 0.0),
                ("gone", 1): ("edited", 1.0),
                ("kept", 1): ("accepted", 0.0),
                ("e", 1): ("external", 0.5),
            }
        async with serving(url, tmp_path, config=WORDS, reprice=True) as service:
            assert counted(service) == {
                ("a", 1): ("edited", 2.0),
                ("a", 2): ("edited", 3.0),
                ("b", 1): ("accepted", 0.0),
                ("gone", 1): ("void", None),
                ("kept", 1): ("accepted", 0.0),
                ("e", 1): ("external", 2.0),
            }
            assert is_replay(service)
            pools = [service.loop.bandit.state.pool(arm) for arm in ("a@1", "b@2")]
            assert (sum(pool.observed for pool in pools), sum(pool.cost for pool in pools)) == (3, 3.0)
            totals = (await service.http.get("/v1/overview")).json()["totals"]
            assert (totals["mean_cost"], totals["edited"], totals["accepted"]) == (1.0, 1, 2)
            named = service.loop.store.read(lambda c: c.scalars(select(events.c.cost_name)).all())
            assert set(named) == {None, WORDS.cost}
        async with serving(url, tmp_path, config=WORDS) as service:
            assert is_replay(service)
            assert (await service.edit("c", "Hello from")).json()["cost"] == 1.0

    with caplog.at_level(logging.WARNING, "editloop.serve"):
        run(work())
    shown = "4 costs were measured again, by levenshtein:word/none; no longer counted, because their"
    assert any(record.getMessage().startswith(shown) for record in caplog.records)


def test_a_snapshot_from_before_is_not_gone_on_from(url: str, tmp_path: Path) -> None:
    """Measured by one cost, by another, and by the first again: an edit without a text has lost its cost."""

    async def work() -> None:
        async with serving(url, tmp_path / "first", config=SHARE) as service:
            await use(service)
            pools = [service.loop.bandit.state.pool(arm) for arm in ("a@1", "b@2")]
            assert sum(pool.observed for pool in pools) == 4
        for config in (WORDS, SHARE):
            async with serving(url, tmp_path / "second", config=config, reprice=True):
                pass
        async with serving(url, tmp_path / "first", config=SHARE) as service:
            assert is_replay(service)
            pools = [service.loop.bandit.state.pool(arm) for arm in ("a@1", "b@2")]
            assert sum(pool.observed for pool in pools) == 3

    run(work())


def broken(responses: Sequence[str], texts: Sequence[str]) -> list[float]:
    return [-1.0 if text == "One two" else 1.0 for text in texts]


def test_a_cost_that_fails_changes_nothing(url: str, tmp_path: Path) -> None:
    register_cost("broken", broken)

    async def work() -> None:
        async with serving(url, tmp_path, config=SHARE) as service:
            await use(service)
            before = counted(service)
        with pytest.raises(BanditError, match="a cost is a finite number"):
            async with serving(url, tmp_path, config=BanditConfig(cost="broken"), reprice=True):
                pass
        async with serving(url, tmp_path, config=SHARE) as service:
            assert counted(service) == before and is_replay(service)

    run(work())


def first_version(path: Path) -> None:
    """A store as the first version left it: an edit, its cost, and a removed text in a free page."""
    store = Store(str(path))
    config = Config()
    config.set_main_option("script_location", "editloop.store:migrations")
    with store.writer.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "1")
    store.close()
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("PRAGMA secure_delete=OFF")
        old.execute("INSERT INTO facts VALUES ('salt', 'abc')")
        columns = "seq, time, kind, response_id, revision, scope, arm, propensity, epoch, cost, arms"
        for row in (
            (1, 1.0, "arms", None, None, None, None, None, 1, None, json.dumps(["a@1", "b@2"])),
            (2, 2.0, "decided", "r", -1, "", "a@1", 1.0, 1, None, None),
            (3, 3.0, "edited", "r", 1, "", "a@1", None, None, 0.5, None),
        ):
            old.execute(f"INSERT INTO events ({columns}) VALUES ({', '.join('?' * len(row))})", row)
        old.execute("INSERT INTO drafts (response_id, time, response) VALUES ('r', 2.0, 'One two')")
        old.execute("INSERT INTO edits VALUES ('r', 1, 3.0, 'One', NULL)")
        old.execute("INSERT INTO edits VALUES ('s', 1, 3.0, ?, NULL)", ("A removed text. " * 1000,))
        old.execute("DELETE FROM edits WHERE response_id = 's'")
    old.close()


def test_a_store_of_the_first_version_takes_the_cost_it_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "edits.db"
    first_version(path)
    assert b"A removed text." in path.read_bytes()

    async def work() -> None:
        async with serving(str(path), tmp_path / "state", config=SHARE) as service:
            assert counted(service) == {("r", 1): ("edited", 0.5)} and is_replay(service)
            assert service.loop.store.fact("cost") == SHARE.cost
            rows = service.loop.store.read(lambda c: c.execute(select(events)).all())
            assert [row.cost_name for row in rows] == [SHARE.cost, None, None]
        assert b"A removed text." not in path.read_bytes()
        with pytest.raises(StoreError, match=r"measured by levenshtein:word/response, not by"):
            async with serving(str(path), tmp_path / "state", config=WORDS):
                pass

    with caplog.at_level(logging.WARNING, "editloop.serve"):
        run(work())
    shown = (
        "the store does not name the cost by which its edits are measured: assuming levenshtein:word/response"
    )
    assert [r.getMessage() for r in caplog.records if r.getMessage().startswith("the store does")] == [shown]


def test_a_replica_that_counts_otherwise_writes_no_cost(postgres: Postgres, tmp_path: Path) -> None:
    """It goes on answering, and writes to its spool, until it is restarted."""
    url = postgres.new()

    async def work() -> None:
        async with serving(url, tmp_path / "a", config=SHARE) as a:
            await use(a)
            async with serving(url, tmp_path / "b", config=WORDS, arms=(), reprice=True) as b:
                refused = await a.edit("c", "Hi")
                problem: dict[str, Any] = error(refused, 503, "store_unavailable")
                assert "measured again, by levenshtein:word/none" in problem["message"]
                assert (await a.ask(id="late")).status_code == 200
                assert (await b.edit("c", "Hi")).json()["cost"] == 3.0
        async with serving(url, tmp_path / "a", config=WORDS, arms=()) as a:
            deadline = time.monotonic() + 30
            while a.loop.writer.spooled() or a.loop.down:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert (await a.edit("late", "Hello from")).json()["cost"] == 1.0
            assert is_replay(a)
            assert len(a.loop.store.read(lambda c: c.execute(select(facts)).all())) >= 3

    run(work())


def test_a_store_on_sqlite_is_open_to_tools_that_count_nothing(tmp_path: Path) -> None:
    """Keys are made by a command that does not know the cost."""
    store = Store(sqlite(tmp_path))
    store.open(claim=False)
    known = store.read(lambda c: set(c.scalars(select(facts.c.name))))
    assert known == {"salt", "edit_token_secret"}
    store.close()


def test_a_server_that_is_given_no_cost_keeps_that_of_its_store(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path / "old", config=SHARE) as service:
            await use(service)

    assert usual_cost(Store(str(tmp_path / "new.db")), tmp_path) == DEFAULT_COST
    assert not (tmp_path / "new.db").exists()
    run(work())
    store = Store(url)
    assert usual_cost(store, tmp_path / "old") == PAPER_COST
    store.close()


def test_a_store_of_the_first_version_is_measured_by_the_cost_of_that_time(tmp_path: Path) -> None:
    first_version(tmp_path / "edits.db")
    store = Store(str(tmp_path / "edits.db"))
    assert usual_cost(store, tmp_path) == PAPER_COST
    store.close()


def test_while_the_database_is_down_the_snapshot_names_the_cost(tmp_path: Path) -> None:
    down = Store("postgresql://nobody@127.0.0.1:1/none")
    assert usual_cost(down, tmp_path) == DEFAULT_COST
    saved = {"bandit": {"config": {"cost": "ter:word/edit"}}}
    (tmp_path / "snapshot.json").write_text(json.dumps(saved))
    assert usual_cost(down, tmp_path) == "ter:word/edit"
    down.close()
