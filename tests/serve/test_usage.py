"""Time and tokens by arm, and the saving against the base: by hand, and on rounds whose truth is known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Parrot, Service, error, run, serving, sqlite
from sqlalchemy import insert, select

from editloop.serve.api.usage import KnownRounds, estimate_saving
from editloop.serve.backends.base import Completion
from editloop.serve.loop.logged_text import token_count
from editloop.store import writes
from editloop.store.schema import drafts, policies


async def write(service: Service, table: Any, rows: list[dict[str, Any]]) -> None:
    def insert_all() -> None:
        with service.loop.store.writer.begin() as connection:
            connection.execute(insert(table), rows)

    await asyncio.to_thread(insert_all)


async def write_events(service: Service, rows: list[dict[str, Any]]) -> None:
    def insert_all() -> None:
        with service.loop.store.writer.begin() as connection:
            for row in rows:
                writes.insert_event(connection, row)

    await asyncio.to_thread(insert_all)


def test_figures_by_hand(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            columns = (
                "response_id",
                "time",
                "policy",
                "finish",
                "seconds",
                "prompt_tokens",
                "completion_tokens",
            )
            rows = [
                ("r1", 100.0, "a@1", "stop", 1.0, 10, 4),
                ("r2", 101.0, "a@1", "length", 2.0, 20, 6),
                ("r3", 102.0, "a@1", "stop", 9.0, None, None),
                ("r4", 103.0, "b@2", "stop", None, None, None),
                ("r5", 104.0, "a@1", "failed", 77.0, 7, 7),
                ("r6", 105.0, "gpt", "external", None, None, None),
                ("r7", 106.0, "a@1", None, None, None, None),  # under way
                ("r8", 300.0, "a@1", "stop", 5.0, 1, 1),  # after the period
            ]
            await write(service, drafts, [dict(zip(columns, row, strict=True)) for row in rows])
            answer = await service.http.get("/v1/usage", params={"since": 100, "until": 200})
            a, b = answer.json()["data"]
            assert (a["arm"], a["drafts"], a["timed"]) == ("a@1", 3, 3)
            assert a["seconds_median"] == 2.0 and a["seconds_95"] == pytest.approx(2 + 7 * 0.9)
            assert (a["prompt_tokens"], a["prompt_tokens_drafts"]) == (30, 2)
            assert (a["completion_tokens"], a["completion_tokens_drafts"]) == (10, 2)
            assert (b["arm"], b["drafts"], b["timed"], b["seconds_median"]) == ("b@2", 1, 0, None)
            assert answer.json()["cut"] is False
            error(await service.http.get("/v1/usage", params={"since": -1}), 400, "invalid_request")

    run(work())


class _Counting(Parrot):
    """Its answers come with a usage."""

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
        return Completion("Hello", "stop", {"role": "assistant", "content": "Hello"}, usage)


@pytest.mark.parametrize("stream", [False, True])
def test_a_draft_keeps_its_time_and_tokens(tmp_path: Path, stream: bool) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, backend=_Counting()) as service:
            assert (await service.ask(stream=stream)).status_code == 200
            query = select(drafts.c.seconds, drafts.c.prompt_tokens, drafts.c.completion_tokens)
            (row,) = await service.loop.read(lambda c: c.execute(query).all())
            assert 0 <= row.seconds < 10
            # A stream of this backend says nothing of tokens.
            assert row[1:] == ((None, None) if stream else (12, 3))

    run(work())


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"n": 7}, 7),
        *(({"n": bad}, None) for bad in (0, -1, True, "7", 2**40, 1.5)),
        ({}, None),
        (None, None),
    ],
)
def test_counts_of_another_server(usage: dict[str, Any] | None, expected: int | None) -> None:
    assert token_count(usage, "n") == expected


def drawn(n: int, effect: float, seed: int) -> KnownRounds:
    """Rounds of requests of two kinds: the better arm is drawn more often for the kind that costs less."""
    rng = np.random.default_rng(seed)
    found = KnownRounds([], [], [])
    for _ in range(n):
        easy = rng.random() < 0.5
        chance = 0.9 if easy else 0.3
        is_new = rng.random() < chance
        found.arms.append("sft@1" if is_new else "base@0")
        found.propensity.append(chance if is_new else 1 - chance)
        base = 0.2 if easy else 0.8
        found.cost.append(float(base - effect * is_new + 0.05 * rng.standard_normal()))
    return found


def test_the_saving_is_not_what_the_means_of_the_arms_say() -> None:
    """The new arm got the easy requests. It saves nothing, though its mean is far lower than the base's."""
    rounds = drawn(4000, 0.0, 1)
    costs, arms = np.array(rounds.cost), np.array(rounds.arms)
    assert costs[arms == "base@0"].mean() - costs[arms == "sft@1"].mean() > 0.2
    found = estimate_saving(rounds, {"base@0"})
    assert found["base"] == "base@0" and found["interval"][0] < 0 < found["interval"][1]


def test_the_interval_of_a_saving_holds_the_truth() -> None:
    """The new arm is played in 60% of the rounds and costs .1 less, so .06 a draft are saved."""
    hits = 0
    for seed in range(60):
        low, high = estimate_saving(drawn(1000, 0.1, seed), {"base@0"})["interval"]
        hits += low <= 0.06 <= high
    assert hits >= 52  # 57 on average; fewer than 52 of 60 has a chance of 2%, were the coverage 95%


def test_where_there_is_no_saving_to_tell() -> None:
    rounds = drawn(100, 0.1, 0)
    assert "has answered no request" in estimate_saving(rounds, set())["reason"]
    assert "has answered no request" in estimate_saving(KnownRounds([], [], []), {"base@0"})["reason"]
    alone = KnownRounds(["base@0"] * 3, [1.0] * 3, [0.1] * 3)
    assert estimate_saving(alone, {"base@0"})["reason"] == "only the base has answered"
    few = KnownRounds(rounds.arms[:12], rounds.propensity[:12], rounds.cost[:12])
    found = estimate_saving(few, {"base@0"})
    assert found["mean"] is None and "too little overlap" in found["reason"]


def test_the_saving_of_a_period(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            rounds = drawn(400, 0.3, 0)
            place = {"name": "base", "run": "r", "time": 1.0, "metrics": "{}"}
            await write(service, policies, [{"arm": "base@0", **place}])
            for kind, revision in (("decided", -1), ("edited", 1)):
                some = [
                    {"time": 100.0 + i, "kind": kind, "response_id": f"r{i}", "arm": arm}
                    | {
                        "revision": revision,
                        "scope": "",
                        "epoch": 1,
                        "propensity": chance,
                        "cost": max(cost, 0),
                    }
                    for i, (arm, chance, cost) in enumerate(zip(*rounds, strict=True))
                ]
                if kind == "decided":
                    some = [row | {"cost": None} for row in some]
                await write_events(service, some)
            kept = [
                {"response_id": f"r{i}", "time": 100.0 + i, "policy": arm, "finish": "stop"}
                for i, arm in enumerate(rounds.arms)
            ]
            await write(service, drafts, kept)
            found = (await service.http.get("/v1/saving", params={"since": 100, "until": 600})).json()
            assert (found["base"], found["drafts"], found["reason"]) == ("base@0", 400, None)
            assert 0.05 < found["interval"][0] < found["mean"] < found["interval"][1] < 0.3
            half = (await service.http.get("/v1/saving", params={"since": 100, "until": 300})).json()
            assert half["drafts"] == 200

    run(work())
