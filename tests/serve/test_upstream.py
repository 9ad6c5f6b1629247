"""An upstream in vLLM's manner: adapters loaded over its API, what it loses, what it refuses, what hangs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import run

from editloop.errors import ServeError
from editloop.serve.backend import Chunk, Refused, Served, Unanswered
from editloop.serve.upstream import Upstream

BASE = Served("base@0", "base", Path("run"))
SFT = Served("sft@1", "sft", Path("run"))
REQUEST: dict[str, Any] = {"model": "editloop", "messages": [{"role": "user", "content": "Hi"}], "top_p": 0.5}


class Vllm:
    """A model server in a test's hands."""

    def __init__(self) -> None:
        self.models = {"org/base"}
        self.loads = self.unloads = 0
        self.bodies: list[dict[str, Any]] = []
        self.status, self.text = 200, ""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": each} for each in self.models]})
        body = json.loads(request.content)
        if path == "/v1/load_lora_adapter":
            self.loads += 1
            assert body["lora_path"] == str(Path("run/policies/sft").resolve())
            self.models.add(body["lora_name"])
            return httpx.Response(200, text="Success")
        if path == "/v1/unload_lora_adapter":
            self.unloads += 1
            self.models.discard(body["lora_name"])
            return httpx.Response(200)
        self.bodies.append(body)
        if body["model"] not in self.models:
            return httpx.Response(404, json={"error": {"message": "no such model"}})
        if self.text == "hang":
            raise httpx.ReadTimeout("no sign of life")
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "context too long"}})
        if body["stream"]:
            return httpx.Response(200, text=self.text, headers={"Content-Type": "text/event-stream"})
        message = {"role": "assistant", "content": "Hello"}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        return httpx.Response(200, json={"choices": [choice], "usage": {"total_tokens": 3}})


@pytest.fixture
def vllm() -> Iterator[Vllm]:
    yield Vllm()


def upstream(vllm: Vllm) -> Upstream:
    return Upstream("http://models/v1", base="org/base", transport=httpx.MockTransport(vllm))


async def collect(chunks: Any) -> list[Chunk]:
    return [chunk async for chunk in chunks]


def test_adapters_are_loaded_once_and_again_after_they_were_lost(vllm: Vllm) -> None:
    async def work() -> None:
        client = upstream(vllm)
        await client.start()
        await client.prepare(BASE)
        await client.prepare(SFT)
        await client.prepare(SFT)
        assert vllm.loads == 1 and "sft@1" in vllm.models
        done = await client.complete("sft@1", REQUEST, "r")
        assert (done.text, done.finish, done.usage) == ("Hello", "length", {"total_tokens": 3})
        assert vllm.bodies[-1] == REQUEST | {"model": "sft@1", "stream": False}
        await client.complete("base@0", REQUEST, "r")
        assert vllm.bodies[-1]["model"] == "org/base"
        vllm.models = {"org/base"}  # it was restarted
        with pytest.raises(Unanswered, match="missing"):
            await client.complete("sft@1", REQUEST, "r")
        await client.compare()
        assert vllm.loads == 2
        await client.complete("sft@1", REQUEST, "r")
        await client.retire("sft@1")
        assert vllm.unloads == 1
        await client.retire("base@0")
        assert vllm.unloads == 1
        await client.stop()

    run(work())


def test_a_stream_is_read_chunk_by_chunk(vllm: Vllm) -> None:
    events = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"content": "Hé\u2028llo"}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"total_tokens": 9}},
    ]
    lines = "".join(f"data: {json.dumps(each, ensure_ascii=False)}\n\n" for each in events)
    vllm.text = ": keep-alive\n\n" + lines + "data: [DONE]\n\n"

    async def work() -> None:
        client = upstream(vllm)
        await client.prepare(SFT)
        chunks = await collect(client.stream("sft@1", REQUEST, "r"))
        assert [chunk.delta.get("content") for chunk in chunks] == ["", "Hé\u2028llo", None, None]
        assert chunks[2].finish == "stop" and chunks[3].usage == {"total_tokens": 9}
        vllm.text = 'data: {"error": {"message": "out of memory"}}\n\n'
        with pytest.raises(Unanswered, match="out of memory"):
            await collect(client.stream("sft@1", REQUEST, "r"))
        vllm.text = "data: nonsense\n\n"
        with pytest.raises(Unanswered, match="not a chunk"):
            await collect(client.stream("sft@1", REQUEST, "r"))

    run(work())


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, Refused, "context too long"),
        (422, Refused, "context too long"),
        (500, Unanswered, "500"),
        (503, Unanswered, "503"),
        (429, Unanswered, "429"),
        (401, Unanswered, "401"),
    ],
)
def test_what_is_refused_by_one_is_not_what_is_refused_by_all(
    vllm: Vllm, status: int, kind: type[Exception], words: str
) -> None:
    vllm.status = status

    async def work() -> None:
        client = upstream(vllm)
        await client.prepare(SFT)
        with pytest.raises(kind, match=words):
            await client.complete("sft@1", REQUEST, "r")
        with pytest.raises(kind, match=words):
            await collect(client.stream("sft@1", REQUEST, "r"))

    run(work())


def test_an_upstream_that_hangs_is_a_timeout(vllm: Vllm) -> None:
    vllm.text = "hang"

    async def work() -> None:
        client = upstream(vllm)
        await client.prepare(SFT)
        for answer in (client.complete("sft@1", REQUEST, "r"), collect(client.stream("sft@1", REQUEST, "r"))):
            with pytest.raises(Unanswered) as told:
                await answer
            assert told.value.reason == "timeout"

    run(work())


def test_a_server_that_cannot_be_used_is_told() -> None:
    def refuses(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "other"}]})
        return httpx.Response(404, text="Not Found")

    async def work() -> None:
        client = Upstream("http://models/v1", transport=httpx.MockTransport(refuses))
        with pytest.raises(ServeError, match="no such base: 'base@0'"):
            await client.prepare(BASE)
        with pytest.raises(ServeError, match=r"does not load the adapter.*enable-lora"):
            await client.prepare(SFT)
        gone = Upstream("http://127.0.0.1:1/v1")
        with pytest.raises(ServeError, match="does not list its models"):
            await gone.prepare(SFT)
        await gone.stop()

    asyncio.run(work())


def test_what_could_not_be_loaded_at_first_is_loaded_later(vllm: Vllm) -> None:
    down = True

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503) if down else vllm(request)

    async def work() -> None:
        nonlocal down
        client = Upstream("http://models/v1", base="org/base", transport=httpx.MockTransport(answer))
        for policy in (BASE, SFT):
            with pytest.raises(ServeError, match="does not list"):
                await client.prepare(policy)
        down = False
        await client.compare()
        assert vllm.loads == 1
        assert (await client.complete("base@0", REQUEST, "r")).text == "Hello"
        assert (await client.complete("sft@1", REQUEST, "r")).text == "Hello"

    run(work())
