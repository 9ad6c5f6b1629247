"""The store as a log: what was served can be read, also for a period, and the log names its store."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serving import Parrot, Service, run, serving, sqlite

from editloop.edits import locate, read_log
from editloop.errors import ConfigError, LogError, LogFormatError
from editloop.offline.logging_policies import LoggedPolicy, log_policies
from editloop.policy.catalog import find_policies
from editloop.serve.backends.base import BackendUnavailableError, Chunk, Completion
from editloop.serve.loop.commands import StartEpoch
from editloop.serve.testing import make_run
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


def test_the_log_probability_of_what_was_generated_is_in_the_log(url: str, tmp_path: Path) -> None:
    class Sure(Parrot):
        """Knows how likely its texts are; its streams end with it."""

        finish = "stop"

        async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
            found = await super().complete(arm, request, response_id)
            return replace(found, logprob=-2.5, finish=self.finish)

        async def stream(
            self, arm: str, request: Mapping[str, Any], response_id: str
        ) -> AsyncIterator[Chunk]:
            async for chunk in super().stream(arm, request, response_id):
                yield replace(chunk, logprob=-3.5) if chunk.finish else chunk

    backend = Sure()

    async def work() -> None:
        redact = {"redact": lambda text: text.replace("secret", "***")}
        async with serving(url, tmp_path, backend=backend, app_options=redact) as service:
            await service.ask("Letter", id="whole", user="ada")
            await service.ask("Letter", id="stream", stream=True)
            backend.says = lambda arm, request: "a secret"
            await service.ask("Letter", id="redacted")
            await service.ask("Letter", id="redacted-stream", stream=True)
            backend.says, backend.finish = lambda arm, request: "a text that would", "length"
            await service.ask("Letter", id="cut")
            assert (await service.http.get("/v1/edits/cut")).json()["logprob"] == -2.5
            backend.finish = "stop"
            backend.fails = {"a@1": BackendUnavailableError("error")}
            backend.says = lambda arm, request: f"by {arm}"
            await service.ask("Letter", id="rerouted")
            shown = await service.http.get("/v1/edits/whole")
            assert shown.json()["logprob"] == -2.5
            log = read_log(url)
            found = {record.id: record.logprob for record in log}
            assert found == {
                "whole": -2.5,
                "stream": -3.5,
                "redacted": None,
                "redacted-stream": None,
                "cut": None,  # the store knows that of its beginning
                "rerouted": -2.5,
            }
            assert {record.id: record.policy for record in log}["rerouted"] == "b@2"
            lines = (await service.http.get("/v1/edits?format=ndjson")).text.splitlines()
            assert {row["id"]: row.get("logprob") for row in map(json.loads, lines)} == found
            await service.http.delete("/v1/users/ada")  # it is taken from the text, and goes with it
            assert (await service.http.get("/v1/edits/whole")).json()["logprob"] is None

    run(work())


def test_a_log_of_a_server_knows_its_policies(tmp_path: Path) -> None:
    folder, url = make_run(tmp_path / "run", ("sft",)), sqlite(tmp_path)
    (served,) = find_policies(folder)

    async def work() -> None:
        async with serving(url, tmp_path, arms=()) as service:
            row = {"arm": served.arm, "name": "sft", "run": str(folder), "time": 1.0, "metrics": "{}"}
            await service.loop.set_arms(StartEpoch(lambda _: (served.arm,), (row,), time.time()))
            await fill(service, 2)

    run(work())
    assert log_policies(read_log(url)) == {served.arm: LoggedPolicy(str(folder), "sft")}
    assert log_policies([]) == {}
    assert set(log_policies(None, [folder])) == {"base@00000000", served.arm}


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
