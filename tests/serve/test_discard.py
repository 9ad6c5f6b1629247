"""Drafts that users threw away: from the client to the log, the figures, the bandit and a repricing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from serving import run, serving
from sqlalchemy import select

from editloop.edits import read_log
from editloop.online import BanditConfig
from editloop.store.schema import events

WORDS = "levenshtein:word/none"


def test_a_draft_is_thrown_away(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path, arms=("a@1",)) as service:
            for i in range(3):
                await service.ask(f"Write {i}.", id=f"r{i}")
            sent = {"response_id": "r0", "discarded": True}
            first = (await service.http.post("/v1/edits", json=sent)).json()
            assert (first["status"], first["cost"], first["revision"]) == ("discarded", 1.0, 1)
            assert (await service.http.post("/v1/edits", json=sent)).json()["repeated"]
            await service.edit("r1", "Hello from Ada")
            outcome = {"response_id": "r1", "discarded": True, "key": "k"}
            assert (await service.http.post("/v1/edits", json=outcome)).json()["revision"] == 2
            await service.edit("r2")
            found = (await service.http.get("/v1/edits", params={"status": "discarded"})).json()["data"]
            assert [(each["id"], each["edit"], each["cost"]) for each in found] == [
                ("r1", None, 1.0),
                ("r0", None, 1.0),
            ]
            shown = (await service.http.get("/v1/edits/r1")).json()["revisions"]
            assert [(each["edit"], each["discarded"], each["changes"]) for each in shown] == [
                ("Hello from Ada", False, "1 replaced, 0 deleted, 0 inserted of 3 words"),
                (None, True, None),
            ]
            totals = (await service.http.get("/v1/overview")).json()["totals"]
            assert (totals["discarded"], totals["accepted"], totals["edited"]) == (2, 1, 0)
            assert totals["mean_cost"] == pytest.approx(2 / 3)
            tally = service.loop.bandit.state.pool("a@1")
            assert (tally.observed, tally.cost) == (3, 2.0)
            lines = (await service.http.get("/v1/edits", params={"format": "ndjson"})).text
            path = tmp_path / "log.jsonl"
            path.write_text(lines, encoding="utf-8")
            log = read_log(path)
            statuses = {record.id: (record.status, record.edit) for record in log}
            assert statuses["r0"] == statuses["r1"] == ("discarded", None)
            assert statuses["r2"] == ("accepted", "Hello from a@1")

    run(work())


def test_a_text_from_elsewhere_is_thrown_away(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            sent = {"response_id": "x", "context": "Write.", "response": "One two.", "discarded": True}
            for repeated in (False, True):
                answer = (await service.http.post("/v1/edits", json=sent)).json()
                assert (answer["status"], answer["repeated"]) == ("discarded", repeated)
            totals = (await service.http.get("/v1/overview")).json()["totals"]
            assert (totals["external"], totals["discarded"]) == (1, 0)  # no arm wrote it

    run(work())


def test_the_price_is_a_setting_and_stays_when_edits_are_measured_again(url: str, tmp_path: Path) -> None:
    def config(cost: str, price: float | None) -> BanditConfig:
        return BanditConfig(cost=cost, scale=5.0, discard_cost=price)

    async def work() -> None:
        async with serving(url, tmp_path, config=config(WORDS, None)) as service:
            for i, user in enumerate(("ada", "zoe", "ada")):
                await service.ask(id=f"r{i}", user=user)
            for i in range(2):
                sent = await service.http.post("/v1/edits", json={"response_id": f"r{i}", "discarded": True})
                assert sent.json()["cost"] == 5.0
            await service.http.delete("/v1/users/zoe")
        async with serving(
            url, tmp_path, config=config("levenshtein:word/response", 2.0), reprice=True
        ) as service:
            rows = service.loop.store.read(lambda c: c.execute(select(events)).all())
            costs = [(row.response_id, row.cost) for row in rows if row.kind == "discarded"]
            assert costs == [("r0", 2.0), ("r1", 2.0)]  # without its text, too

    run(work())


def test_what_a_request_says_is_kept_with_the_decision(url: str, tmp_path: Path) -> None:
    """Also if parts of it are no text; and the client that names an arm gives no propensity."""

    async def work() -> None:
        async with serving(url, tmp_path, config=BanditConfig(algorithm="rand-ucb")) as service:
            await service.ask("Write a letter.", id="r0")
            parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": "data:,"}}]
            picture = {"model": "editloop", "id": "r1", "messages": [{"role": "user", "content": parts}]}
            assert (await service.http.post("/v1/chat/completions", json=picture)).status_code == 200
            named = {"model": "a@1", "id": "r2", "messages": [{"role": "user", "content": "Hi"}]}
            assert (await service.http.post("/v1/chat/completions", json=named)).status_code == 200
            for i in range(3):
                await service.edit(f"r{i}", "Hi")
            rows = service.loop.store.read(lambda c: c.execute(select(events)).all())
            decided = {row.response_id: row for row in rows if row.kind == "decided"}
            assert all(row.features.startswith("hashed-320:") for row in decided.values())
            assert decided["r0"].features != decided["r1"].features
            assert decided["r0"].propensity == 0.5 and decided["r2"].propensity is None
            assert service.loop.bandit.state.slopes.kind == "hashed-320"

    run(work())


class Broken:
    """A feature map that fails."""

    kind = "broken"

    def __call__(self, context: object, user: str) -> list[float]:
        raise ZeroDivisionError


def test_a_feature_map_that_fails_stops_no_answer(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from editloop.online.features import FEATURES

    monkeypatch.setitem(FEATURES.registered, "broken", Broken)

    async def work() -> None:
        async with serving(url, tmp_path, config=BanditConfig(features="broken")) as service:
            answer = await service.ask(id="r")
            assert answer.status_code == 200, answer.text
            body = json.loads(answer.text)
            assert body["id"] == "r"

    run(work())
    assert "features of a request cannot be computed" in caplog.text
