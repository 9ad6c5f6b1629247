"""The texts of a forgotten user are in no file any more: no free page, no write-ahead log, no spool."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from serving import Service, error, run, serving, sqlite
from sqlalchemy import select

from editloop import journal
from editloop.online import Decided
from editloop.serve.loop.appender import EventAppender
from editloop.serve.loop.commands import RecordDecision, RecordResponse
from editloop.serve.loop.maintenance import Maintenance
from editloop.serve.loop.spool import spooled_to_json
from editloop.store import reads
from editloop.store.database import Store
from editloop.store.schema import FORGOTTEN, drafts, edits, facts

TEXT = "Zoë's secret plan"


def copies(folder: Path, text: str = TEXT) -> int:
    """How many times a text occurs in the files below a folder, in UTF-8 or in JSON's escapes."""
    escaped = json.dumps(text)[1:-1].encode()
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return sum(content.count(text.encode()) + content.count(escaped) for content in files)


def say(arm: str, request: Mapping[str, Any]) -> str:
    said = str(request["messages"][0]["content"])
    return f"{said[: len(TEXT)]} as a draft. " * (1 + len(said) % 90)


async def write_letters(service: Service, count: int) -> None:
    """Two people's letters of many lengths, some on pages of their own, each edited three times."""
    service.backend.says = say
    for i in range(count):
        user, said = ("zoe", TEXT) if i % 2 else ("bob", "A letter that stays")
        asked = " ".join([said] * (1 + i % 7 * 20))
        done = await service.ask(asked, user=user, metadata={"note": [said]})
        for revision in range(3):
            text = f"{said} once more, {revision}. " * (1 + (i + revision) % 5 * 10)
            assert (await service.edit(done.json()["id"], text)).status_code == 200


def test_a_forgotten_text_is_in_no_file(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path / "state") as service:
            await write_letters(service, 60)
            await service.loop.snapshots.write(service.loop.take_snapshot())
            kept = copies(tmp_path, "A letter that stays")
            assert copies(tmp_path) > 1000 and kept > 1000
            gone = await service.http.delete("/v1/users/zoe")
            assert gone.json()["removed"] == 30
            assert copies(tmp_path) == 0
            for i in range(300):
                await service.ask(f"Other {i}", user="bob")
            await service.loop.snapshots.write(service.loop.take_snapshot())
            assert copies(tmp_path) == 0
            assert copies(tmp_path, "A letter that stays") > 1000

    run(work())


def test_texts_that_are_too_old_are_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editloop.serve.loop.maintenance.MAINTENANCE_INTERVAL", 0.1)

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path / "state", keep_for=2.0) as service:
            await write_letters(service, 4)
            assert copies(tmp_path) > 10
            deadline = time.monotonic() + 30
            while copies(tmp_path):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)

    run(work())


def test_who_reads_what_was_there_before_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path / "state") as service:
            await write_letters(service, 2)
            with service.loop.store.reader.connect() as reader:
                assert reader.scalar(select(drafts.c.response).limit(1))
                with monkeypatch.context() as hurried:
                    hurried.setattr("editloop.serve.loop.maintenance.TIMEOUT_SECONDS", 0.2)
                    busy = await service.http.delete("/v1/users/zoe")
                    error(busy, 503, "store_busy")
                    assert int(busy.headers["Retry-After"]) >= 1 and copies(tmp_path) > 0
                waiting = asyncio.create_task(service.http.delete("/v1/users/zoe"))
                await asyncio.sleep(0.5)
                assert not waiting.done()
            assert (await waiting).json()["removed"] == 0
            assert copies(tmp_path) == 0

    run(work())


def test_who_was_forgotten_is_known_in_the_same_transaction(url: str) -> None:
    store = Store(url)
    store.open(claim=False)
    with store.transaction() as connection:
        appender = EventAppender(connection, lambda response, edit: 0.0, {})
        appender.note_forgotten("zoe", 5.0)
        appender.note_forgotten("bob", 4.0)
        assert appender.is_forgotten("zoe", 4.5)
        assert not appender.is_forgotten("bob", 4.5)
        assert reads.fact(connection, FORGOTTEN) == "5.0"
    store.close()


def test_maintenance_goes_on_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    async def failing(_: Maintenance) -> int:
        tries.append(1)
        raise RuntimeError("unexpected")

    monkeypatch.setattr("editloop.serve.loop.maintenance.MAINTENANCE_INTERVAL", 0.02)
    monkeypatch.setattr(Maintenance, "expire", failing)

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path), asyncio.timeout(10):
            while len(tries) < 2:
                await asyncio.sleep(0.02)

    run(work())


def test_a_store_is_not_closed_while_maintenance_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()
    find = reads.overdue_decisions

    def slow(*given: Any) -> Any:
        begun.set()
        time.sleep(0.5)
        found = find(*given)
        ended.set()
        return found

    monkeypatch.setattr("editloop.serve.loop.maintenance.MAINTENANCE_INTERVAL", 0.02)
    monkeypatch.setattr(reads, "overdue_decisions", slow)

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path):
            await asyncio.to_thread(begun.wait, 10)
        assert ended.is_set()

    run(work())


def letter(response_id: str, user: str | None, when: float) -> list[dict[str, Any]]:
    """Rows of a spool: a decision with its texts, and the response."""
    ask = RecordDecision(
        Decided(response_id, "", "b@2", 1.0, 1), when, user, "d", json.dumps(TEXT), f'{{"a": "{TEXT}"}}'
    )
    return [spooled_to_json(ask), spooled_to_json(RecordResponse(response_id, f"{TEXT}!", "stop", when + 1))]


def rows_of(service: Service) -> dict[str, Any]:
    found = service.loop.store.read(lambda c: c.execute(select(drafts)).all())
    return {row.response_id: row for row in found}


def test_what_waits_in_the_spool_is_forgotten_too(url: str, tmp_path: Path) -> None:
    """It is written first, and removed with the rest; so is what a kill has left beside the spool."""

    async def work() -> None:
        async with serving(url, tmp_path):
            pass
        for i in range(300):
            journal.append_rows(tmp_path / "spool.jsonl", letter(f"{i}", "zoe", 1.0))
        (tmp_path / "spool.jsonl.rest").write_text(json.dumps(letter("x", "zoe", 1.0)))
        async with serving(url, tmp_path) as service:
            gone = await service.http.delete("/v1/users/zoe")
            assert (gone.status_code, gone.json()["removed"]) == (200, 300)
            assert copies(tmp_path) == 0 and len(rows_of(service)) == 300
            assert service.loop.bandit.state.pending == 0

    run(work())


def test_what_another_replica_spooled_before_comes_without_texts(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await service.ask(id="here", user="zoe")
            await service.http.delete("/v1/users/zoe")
            kept = service.loop.store.read(lambda c: c.execute(select(facts)).all())
            assert not any("zoe" in str(row) for row in kept)
        now = time.time()
        waited = [
            letter("old", "zoe", now - 60),
            letter("bob", "bob", now - 60),
            letter("none", None, now - 60),
        ]
        for rows in [*waited, letter("new", "zoe", now + 60)]:
            journal.append_rows(tmp_path / "spool.jsonl", rows)
        async with serving(url, tmp_path) as service:
            while service.loop.writer.spooled():
                await asyncio.sleep(0.05)
            found = rows_of(service)
            old = found["old"]
            assert (old.user, old.context, old.response, old.metadata, old.finish) == (None,) * 4 + (
                "removed",
            )
            assert [found[name].response for name in ("bob", "none", "new")] == [f"{TEXT}!"] * 3
            error(await service.edit("old", "Hi"), 410, "response_removed")
            assert (await service.edit("new", "Hi")).status_code == 200
            state = service.loop.bandit.state
            assert (state.decisions, state.pending) == (5, 2)
            assert service.loop.store.read(lambda c: len(c.execute(select(edits)).all())) == 1

    run(work())


def test_what_came_late_out_of_a_spool_is_not_kept_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editloop.serve.loop.maintenance.MAINTENANCE_INTERVAL", 0.1)
    monkeypatch.setattr("editloop.serve.loop.maintenance.FULL_SEARCH_INTERVAL", 0.5)

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path / "state", keep_for=100.0) as service:
            await asyncio.sleep(0.3)  # what is 100 s old has been looked for
            for row in letter("late", "zoe", time.time() - 1000):
                journal.append_rows(tmp_path / "state/spool.jsonl", [row])
            deadline = time.monotonic() + 30
            while not (row := rows_of(service).get("late")) or row.finish != "removed" or copies(tmp_path):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)

    run(work())
