"""`n`: each choice is a response of its own, with an identity, a decision and a propensity of its own."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from serving import Parrot, error, run, serving, sqlite
from sqlalchemy import select

from editloop.online import Bandit, BanditConfig
from editloop.serve.backends.base import BackendUnavailableError, Chunk, Completion
from editloop.store.schema import events


def test_each_choice_is_learned_from_by_its_own_id(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            answer = await service.ask(n=4, user="ada")
            body = answer.json()
            ids = [choice["response_id"] for choice in body["choices"]]
            assert len(set(ids)) == 4 and [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
            assert body["id"] == body["system_fingerprint"] == ids[0]
            assert answer.headers["X-EditLoop-Response-Id"] == ids[0]
            # As of requests that arrive together: each arm is chosen with those in flight in mind.
            arms = [choice["policy"] for choice in body["choices"]]
            assert sorted(arms) == ["a@1", "a@1", "b@2", "b@2"]
            for choice in body["choices"]:
                assert choice["message"]["content"] == f"Hello from {choice['policy']}"
            edited = await service.edit(ids[2], f"Hello from {arms[2]}!")
            assert edited.json()["policy"] == arms[2] and edited.json()["cost"] > 0
            assert (await service.edit(ids[3])).json()["cost"] == 0
            assert all("n" not in request for _, request in service.backend.asked)

    run(work())


def test_the_propensity_of_each_choice_is_that_of_its_draw(tmp_path: Path) -> None:
    config = BanditConfig()

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, config=config) as service:
            for _ in range(3):
                first = (await service.ask(n=8)).json()["choices"]
                await service.edit(first[0]["response_id"], "another text")
            query = select(events).where(events.c.kind == "decided").order_by(events.c.seq)
            rows = await service.loop.read(lambda c: c.execute(query).all())
            assert len(rows) == 24 and {row.arm for row in rows} == {"a@1", "b@2"}
            # What a bandit with the same first event gives for the first request, one draw after the other.
            alone = Bandit(("a@1", "b@2"), config)
            in_flight: Counter[str] = Counter()
            for row in rows[:8]:
                expected = alone.choose(
                    row.response_id, scope=row.scope, features=row.features, in_flight=in_flight
                )
                assert (row.arm, row.propensity) == (expected.arm, expected.propensity)
                assert 0 < row.propensity <= 1
                in_flight[row.arm] += 1

    run(work())


def test_streams_of_choices_come_as_they_are_generated(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            answer = await service.ask(n=3, stream=True, stream_options={"include_usage": True})
            lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
            assert lines[-1] == "[DONE]"
            chunks = [json.loads(line) for line in lines[:-1]]
            assert {chunk["id"] for chunk in chunks} == {answer.headers["X-EditLoop-Response-Id"]}
            assert {chunk["system_fingerprint"] for chunk in chunks} == {chunks[0]["id"]}
            parts: dict[int, str] = {}
            ids: dict[int, str] = {}
            for chunk in chunks[:-1]:
                (choice,) = chunk["choices"]
                parts[choice["index"]] = parts.get(choice["index"], "") + choice["delta"].get("content", "")
                assert ids.setdefault(choice["index"], choice["response_id"]) == choice["response_id"]
            assert chunks[-1]["choices"] == [] and len(set(ids.values())) == 3
            for index, response_id in ids.items():
                done = (await service.edit(response_id)).json()
                assert done["status"] == "accepted" and parts[index] == f"Hello from {done['policy']} "

    run(work())


class Uneven(Parrot):
    """A backend in which one choice fails when the others are complete, or have begun."""

    def __init__(self) -> None:
        super().__init__()
        self.began = 0

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        self.began += 1
        if self.began == 3:
            await asyncio.sleep(0.05)
            raise BackendUnavailableError("error")
        return await super().complete(arm, request, response_id)

    async def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        self.began += 1
        number = self.began
        yield Chunk({"content": "One "})
        await asyncio.sleep(0.05)
        if number == 3:
            raise BackendUnavailableError("error")
        yield Chunk({"content": "two"})
        await asyncio.sleep(1)
        yield Chunk({}, "stop")


@pytest.mark.parametrize("stream", [False, True])
def test_if_one_choice_fails_no_edit_of_any_is_expected(tmp_path: Path, stream: bool) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, arms=("a@1",), backend=Uneven()) as service:
            answer = await service.ask(n=4, stream=stream)
            if stream:
                assert "could not answer" in answer.text.strip().split("\n\n")[-1]
            else:
                error(answer, 502, "upstream_error")
            async with asyncio.timeout(10):
                while service.loop.bandit.state.pending:
                    await asyncio.sleep(0.01)
            assert service.loop.bandit.state.decisions == 4

    run(work())


def test_choices_of_a_stream_that_cannot_begin_are_given_up(tmp_path: Path) -> None:
    class Late(Parrot):
        async def stream(self, arm: str, request: Any, response_id: str) -> AsyncIterator[Chunk]:
            if response_id == "mine-1":
                await asyncio.sleep(0.05)
                raise BackendUnavailableError("error")
            yield Chunk({"content": "One"})
            yield Chunk({}, "stop")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, arms=("a@1",), backend=Late()) as service:
            error(await service.ask(n=3, stream=True, id="mine"), 502, "upstream_error")
            assert service.loop.bandit.state.pending == 0
            # Their identities are free again: the first one has ended, and is not being answered for ever.
            error(await service.ask(id="mine"), 409, "response_failed")

    run(work())


def test_a_request_that_is_repeated_gets_the_same_choices(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            first, again = [(await service.ask(n=3, id="mine")).json()["choices"] for _ in range(2)]
            assert [choice["response_id"] for choice in first] == ["mine", "mine-1", "mine-2"]
            assert [each["message"] for each in first] == [each["message"] for each in again]
            assert service.loop.bandit.state.decisions == 3

    run(work())


def test_each_choice_has_a_seed_of_its_own(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for seed in (7, -(2**63), 2**63 - 1):
                service.backend.asked.clear()
                await service.ask(n=3, seed=seed)
                seeds = {request["seed"] for _, request in service.backend.asked}
                assert len(seeds) == 3 and seed in seeds
                assert all(-(2**63) <= each < 2**63 for each in seeds)

    run(work())


def test_a_number_of_choices_that_cannot_be_is_one_error(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for n, shown in ((0, "greater than or equal to 1"), (9, "at most 8 choices"), (1.5, "integer")):
                found = error(await service.ask(n=n), 400, "invalid_request")
                assert found["param"] == "n" and shown in found["message"]
            assert service.backend.asked == []

    run(work())
