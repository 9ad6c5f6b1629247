"""The store as a log: what was served can be read, also for a period, and the log names its store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from serving import Service, run, serving

from editloop.edits import locate, read_log
from editloop.errors import ConfigError, LogError, LogFormatError
from editloop.store import DatabaseLog


async def fill(service: Service, n: int) -> None:
    for i in range(n):
        response_id = (await service.ask(f"Letter {i}", user="ada", id=f"r{i}")).json()["id"]
        if i % 2:
            await service.edit(response_id, f"Edit {i}")


def test_a_store_is_read_as_a_log(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await fill(service, 4)
            chat = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Hi"}]
            await service.http.post(
                "/v1/edits", json={"context": chat, "response": "a", "edit": "b", "response_id": "chat"}
            )
            log = read_log(url)
            assert [record.id for record in log] == ["r0", "r1", "r2", "r3", "chat"]
            assert [record.status for record in log][:2] == ["pending", "edited"]
            assert log.records[1].edit == "Edit 1" and log.records[1].user == "ada"
            assert len(log.records[4].context) == 2
            assert log.report.format == "database" and log.report.bad_rows == 0
            assert isinstance(log.report.path, DatabaseLog) and log.report.path.until is not None
            again = read_log(log.report.path)
            assert again.report.sha256 == log.report.sha256
            await service.ask("One more", id="more")
            assert read_log(log.report.path).report.sha256 == log.report.sha256
            assert len(read_log(url)) == len(log) + 1
            middle = log.records[2].time
            assert middle is not None
            mark = "&" if "?" in url else "?"
            assert len(read_log(f"{url}{mark}since={middle.timestamp() - 1e-3}&until={time.time()}")) == 4
            assert log.report.path.salt() == service.loop.store.fact("salt")

    run(work())


def test_revisions_before_the_last_are_read_too(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await fill(service, 2)
            await service.ask("Twice", id="twice", metadata={"page": 3})
            for text in ("First", "Second", "Last"):
                await service.edit("twice", text)
            found = {record.id: record.metadata for record in read_log(url)}
            assert found == {"r0": {}, "r1": {}, "twice": {"page": 3, "revisions": ["First", "Second"]}}

    run(work())


def test_an_address_does_not_tell_its_password() -> None:
    log = locate("postgresql://ada:secret@db.example:5432/edits?until=5&sslmode=require")
    assert isinstance(log, DatabaseLog)
    assert "secret" not in str(log) and "secret" not in repr(log)
    assert str(log) == "postgresql://ada:***@db.example:5432/edits?sslmode=require&until=5.0"
    assert (log.name, log.stem, log.until, log.since) == ("edits", "edits", 5.0, None)
    dated = locate("sqlite:///a.db?since=2026-01-31")
    assert isinstance(dated, DatabaseLog) and dated.since == 1769817600.0
    assert locate("a.jsonl") == Path("a.jsonl")


def test_what_is_no_log_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no such log"):
        read_log(f"sqlite:///{tmp_path}/none.db")
    (tmp_path / "other.db").touch()
    with pytest.raises(LogFormatError, match="the database has no log"):
        read_log(f"sqlite:///{tmp_path}/other.db")
    (tmp_path / "text.db").write_text("no database at all, " * 99)
    with pytest.raises(LogError, match="not a database"):
        read_log(f"sqlite:///{tmp_path}/text.db")
    with pytest.raises(LogError, match="cannot be read"):
        read_log("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(ConfigError, match="no such kind"):
        read_log("mysql://x/y")
    with pytest.raises(ConfigError, match="not a time"):
        read_log("sqlite:///a.db?since=yesterday")
