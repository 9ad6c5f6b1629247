"""An upstream like vLLM: adapters are loaded over its API; it loses some, refuses requests, and hangs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from serving import error, run, serving, sqlite

from editloop.errors import ServeError
from editloop.serve.api.limits import Limits
from editloop.serve.backends.base import BackendUnavailableError, Chunk, ServedPolicy, UpstreamRejectedError
from editloop.serve.backends.upstream import UpstreamBackend

BASE = ServedPolicy("base@0", "base", Path("run"))
REQUEST: dict[str, Any] = {"model": "editloop", "messages": [{"role": "user", "content": "Hi"}], "top_p": 0.5}


class Vllm:
    """A model server that a test controls."""

    def __init__(self) -> None:
        self.models = {"org/base"}
        self.loads = self.unloads = 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.broken_off, self.pause = 0, 0.0
        self.status, self.text = 200, ""
        self.is_down, self.loads_adapters = False, True
        self.says = ""
        self.logprobs: Any = {"content": [0.5]}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.is_down:
            return web.Response(status=503)
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": each} for each in self.models]})
        body = await request.json()
        if request.path == "/v1/load_lora_adapter":
            if not self.loads_adapters:
                return web.Response(status=404, text="Not Found")
            if self.says:
                return web.json_response({"error": {"message": self.says, "code": 400}}, status=400)
            self.loads += 1
            assert (Path(body["lora_path"]) / "adapter_config.json").is_file()
            self.models.add(body["lora_name"])
            return web.Response(text="Success")
        if request.path == "/v1/unload_lora_adapter":
            self.unloads += 1
            self.models.discard(body["lora_name"])
            return web.Response()
        self.bodies.append(body)
        self.headers.append(request.headers)
        if body["model"] not in self.models:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        if self.text == "hang":
            try:
                await asyncio.sleep(60)
            finally:
                self.broken_off += 1
        if self.status != 200:
            return web.json_response({"error": {"message": "context too long"}}, status=self.status)
        if body["stream"]:
            return await self._stream(request)
        message = {"role": "assistant", "content": "Hello"}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        choice |= {"logprobs": self.logprobs} if body.get("logprobs") else {}
        return web.json_response({"choices": [choice], "usage": {"total_tokens": 3}})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """The text in parts that may end anywhere, even in the middle of a character."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        sent = self.text.encode()
        for start in range(0, len(sent), 7):
            await asyncio.sleep(self.pause)
            await answer.write(sent[start : start + 7])
        return answer


@asynccontextmanager
async def beside(
    vllm: Vllm, base: str | None = "org/base", timeout: float = 60.0, **options: Any
) -> AsyncIterator[UpstreamBackend]:
    """A client of the model server, which runs within the block."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", vllm.answer)
    async with TestServer(app, handler_cancellation=True) as server:
        yield UpstreamBackend(str(server.make_url("/v1")), base=base, timeout=timeout, **options)


@asynccontextmanager
async def served(
    vllm: Vllm, base: str | None = "org/base", timeout: float = 60.0, **options: Any
) -> AsyncIterator[UpstreamBackend]:
    """The same, started."""
    async with beside(vllm, base, timeout, **options) as client:
        await client.start()
        try:
            yield client
        finally:
            await client.stop()


@pytest.fixture
def sft(tmp_path: Path) -> ServedPolicy:
    """A policy that is an adapter."""
    (tmp_path / "policies" / "sft").mkdir(parents=True)
    (tmp_path / "policies" / "sft" / "adapter_config.json").touch()
    return ServedPolicy("sft@1", "sft", tmp_path)


async def collect(chunks: Any) -> list[Chunk]:
    return [chunk async for chunk in chunks]


def listed(*tokens: str) -> dict[str, Any]:
    """Tokens as the API lists them, each of −.5."""
    return {"content": [{"token": each, "logprob": -0.5, "bytes": list(each.encode())} for each in tokens]}


def test_log_probabilities_are_asked_for_and_kept_from_who_did_not_ask() -> None:
    vllm = Vllm()
    vllm.logprobs = listed("Hel", "lo", "<|end|>")

    async def work() -> None:
        async with served(vllm) as client:
            await client.prepare(BASE)
            plain = await client.complete("base@0", REQUEST, "r")
            assert "logprobs" not in vllm.bodies[-1] and plain.logprob is None
            # What a server gives unasked for is not known to be the policy's own.
            given = await client.complete("base@0", {**REQUEST, "logprobs": True}, "r")
            assert (given.logprob, given.logprobs) == (None, vllm.logprobs)
        async with served(vllm, logprobs=True) as client:
            await client.prepare(BASE)
            found = await client.complete("base@0", REQUEST, "r")
            assert vllm.bodies[-1]["logprobs"] is True
            assert (found.text, found.logprob, found.logprobs) == ("Hello", -1.5, None)
            asked = await client.complete("base@0", {**REQUEST, "logprobs": True, "top_logprobs": 2}, "r")
            assert vllm.bodies[-1]["top_logprobs"] == 2
            assert (asked.logprob, asked.logprobs) == (-1.5, vllm.logprobs)
            vllm.logprobs = None  # a server that knows none
            assert (await client.complete("base@0", REQUEST, "r")).logprob is None

    run(work())


def test_a_stream_has_its_log_probability_in_the_last_part() -> None:
    vllm = Vllm()
    parts: list[tuple[dict[str, Any], dict[str, Any] | None, str | None]] = [
        ({"role": "assistant", "content": ""}, None, None),
        ({"content": "Hel"}, listed("Hel"), None),
        ({"content": "lo"}, listed("l", "o"), None),
        ({}, listed("<|end|>"), "stop"),
    ]
    events = [
        {"choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]}
        for delta, logprobs, finish in parts
    ]
    events.append({"choices": [], "usage": {"total_tokens": 5}})
    vllm.text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"

    async def work() -> None:
        async with served(vllm, logprobs=True) as client:
            await client.prepare(BASE)
            chunks = await collect(client.stream("base@0", REQUEST, "r"))
            assert [chunk.logprob for chunk in chunks] == [None, None, None, -2.0, None]
            assert not any(chunk.logprobs for chunk in chunks) and vllm.bodies[-1]["logprobs"] is True
            chunks = await collect(client.stream("base@0", {**REQUEST, "logprobs": True}, "r"))
            assert [chunk.logprobs for chunk in chunks] == [part[1] for part in parts] + [None]

    run(work())


def test_adapters_are_loaded_once_and_again_after_they_were_lost(sft: ServedPolicy) -> None:
    vllm = Vllm()

    async def work() -> None:
        async with served(vllm) as client:
            await client.prepare(BASE)
            await client.prepare(sft)
            await client.prepare(sft)
            assert vllm.loads == 1 and "sft@1" in vllm.models
            done = await client.complete("sft@1", REQUEST, "r")
            assert (done.text, done.finish, done.usage) == ("Hello", "length", {"total_tokens": 3})
            assert vllm.bodies[-1] == REQUEST | {"model": "sft@1", "stream": False}
            await client.complete("base@0", REQUEST, "r")
            assert vllm.bodies[-1]["model"] == "org/base"
            vllm.models = {"org/base"}  # it was restarted
            with pytest.raises(BackendUnavailableError, match="missing"):
                await client.complete("sft@1", REQUEST, "r")
            await client.compare()
            assert vllm.loads == 2
            await client.complete("sft@1", REQUEST, "r")
            await client.retire("sft@1")
            assert vllm.unloads == 1
            await client.retire("base@0")
            assert vllm.unloads == 1

    run(work())


def test_a_mixture_is_played_by_its_parts(sft: ServedPolicy) -> None:
    mixture = ServedPolicy("mixture@2", "mixture", sft.run, {"sft@1": 0.5, "base@0": 0.5})
    vllm = Vllm()

    async def work() -> None:
        async with served(vllm) as client:
            await client.prepare(sft)
            await client.prepare(mixture)
            for i in 2 * list(range(12)):
                await client.complete("mixture@2", REQUEST, f"r{i}")
            part_for = [body["model"] for body in vllm.bodies]
            assert set(part_for) == {"sft@1", "org/base"} and part_for[:12] == part_for[12:]
            await client.retire("sft@1")
            assert vllm.unloads == 0  # the mixture still needs it
            await client.retire("mixture@2")
            assert vllm.unloads == 1

    run(work())


def test_a_whole_model_is_one_that_is_there(tmp_path: Path) -> None:
    whole = ServedPolicy("early@3", "early", tmp_path)
    vllm = Vllm()

    async def work() -> None:
        async with served(vllm) as client:
            with pytest.raises(
                ServeError, match=r"only adapters can be loaded while it runs: 'early@3'.*--served-model-name"
            ):
                await client.prepare(whole)
            vllm.models.add("early@3")
            await client.prepare(whole)
            done = await client.complete("early@3", REQUEST | {"logprobs": True}, "r")
            assert (done.text, done.logprobs) == ("Hello", {"content": [0.5]})

    run(work())


def test_a_stream_is_read_chunk_by_chunk(sft: ServedPolicy) -> None:
    vllm = Vllm()
    events = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"content": "Hé\u2028llo"}, "logprobs": {"content": [1.5]}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"total_tokens": 9}},
    ]
    lines = "".join(f"data: {json.dumps(each, ensure_ascii=False)}\n\n" for each in events)
    vllm.text = ": keep-alive\n\n" + lines + "data: [DONE]\n\n"

    async def work() -> None:
        async with served(vllm) as client:
            await client.prepare(sft)
            chunks = await collect(client.stream("sft@1", REQUEST, "r"))
            assert [chunk.delta.get("content") for chunk in chunks] == ["", "Hé\u2028llo", None, None]
            assert chunks[1].logprobs == {"content": [1.5]}
            assert chunks[2].finish == "stop" and chunks[3].usage == {"total_tokens": 9}
            vllm.text = 'data: {"error": {"message": "out of memory"}}\n\n'
            with pytest.raises(BackendUnavailableError, match="out of memory"):
                await collect(client.stream("sft@1", REQUEST, "r"))
            vllm.text = "data: [1]\n\n"
            with pytest.raises(BackendUnavailableError, match="not a chunk"):
                await collect(client.stream("sft@1", REQUEST, "r"))
            vllm.text = "data: nonsense\n\n"
            with pytest.raises(BackendUnavailableError, match="not a chunk"):
                await collect(client.stream("sft@1", REQUEST, "r"))

    run(work())


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, UpstreamRejectedError, "context too long"),
        (422, UpstreamRejectedError, "context too long"),
        (500, BackendUnavailableError, "500"),
        (503, BackendUnavailableError, "503"),
        (429, UpstreamRejectedError, "context too long"),
        (401, BackendUnavailableError, "401"),
        (302, BackendUnavailableError, "302"),
    ],
)
def test_what_is_refused_by_one_is_not_what_is_refused_by_all(
    sft: ServedPolicy, status: int, kind: type[Exception], words: str
) -> None:
    vllm = Vllm()
    vllm.status = status

    async def work() -> None:
        async with served(vllm) as client:
            await client.prepare(sft)
            with pytest.raises(kind, match=words):
                await client.complete("sft@1", REQUEST, "r")
            with pytest.raises(kind, match=words):
                await collect(client.stream("sft@1", REQUEST, "r"))

    run(work())


def test_an_upstream_that_hangs_is_a_timeout(sft: ServedPolicy) -> None:
    vllm = Vllm()
    vllm.text = "hang"

    async def work() -> None:
        async with served(vllm, timeout=0.1) as client:
            await client.prepare(sft)
            for answer in (
                client.complete("sft@1", REQUEST, "r"),
                collect(client.stream("sft@1", REQUEST, "r")),
            ):
                with pytest.raises(BackendUnavailableError) as shown:
                    await answer
                assert shown.value.reason == "timeout"

    run(work())


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_has_one_deadline_whatever_the_number_of_arms(tmp_path: Path, stream: bool) -> None:
    vllm = Vllm()
    vllm.text = "hang"
    arms = ("a@1", "b@2", "c@3")
    vllm.models |= {*arms}
    options = {"limits": Limits(answer_seconds=2)}

    async def work() -> None:
        async with (
            beside(vllm, timeout=2) as client,
            serving(sqlite(tmp_path), tmp_path, arms, client, options) as service,
        ):
            started = time.monotonic()
            answer = await service.ask(stream=stream)
            took = time.monotonic() - started
            error(answer, 504, "upstream_timeout")
            assert 1.9 < took < 4  # 6 if each arm had the limit to itself
            assert sorted(body["model"] for body in vllm.bodies) == [*arms]
            shown = [int(each.get("X-Request-Timeout-Ms", 0)) for each in vllm.headers]
            if stream:
                assert shown == [0, 0, 0]
            else:
                assert 950 < shown[0] <= 1000 and 400 < shown[1] <= 500 and 350 < shown[2] <= 500
                assert [f"{each / 1000:.3f}" for each in shown] == [
                    each["X-LiteLLM-Timeout"] for each in vllm.headers
                ]
            await asyncio.sleep(0.2)
            assert vllm.broken_off == 3  # the server stops generating a response that nobody waits for
            assert service.loop.bandit.state.pending == 0

    run(work())


def test_a_stream_that_has_begun_has_no_deadline(tmp_path: Path) -> None:
    vllm = Vllm()
    vllm.models |= {"a@1"}
    vllm.pause = 0.05  # after eight parts it has begun, and after 43 more it has ended
    vllm.text = 'data: {"choices": [{"delta": {"content": "Hello"}}]}\n\n' + ": \n\n" * 75
    options = {"limits": Limits(answer_seconds=1.5)}

    async def work() -> None:
        async with (
            beside(vllm) as client,
            serving(sqlite(tmp_path), tmp_path, ("a@1",), client, options) as service,
        ):
            started = time.monotonic()
            answer = await service.ask(stream=True)
            assert time.monotonic() - started > 1.5
            assert "Hello" in answer.text and answer.text.endswith("data: [DONE]\n\n")

    run(work())


def test_a_server_that_cannot_be_used_is_reported(sft: ServedPolicy) -> None:
    vllm = Vllm()
    vllm.loads_adapters = False

    async def work() -> None:
        async with served(vllm, base=None) as client:
            with pytest.raises(ServeError, match="no such base model: 'base@0'"):
                await client.prepare(BASE)
            with pytest.raises(ServeError, match=r"does not load the adapter.*enable-lora"):
                await client.prepare(sft)
        gone = UpstreamBackend("http://127.0.0.1:1/v1")
        await gone.start()
        with pytest.raises(ServeError, match="does not list its models"):
            await gone.prepare(sft)
        with pytest.raises(BackendUnavailableError, match="error"):
            await gone.complete("sft@1", REQUEST, "r")
        await gone.stop()
        with pytest.raises(BackendUnavailableError, match="closed"):
            await gone.complete("sft@1", REQUEST, "r")

    run(work())


@pytest.mark.parametrize(
    ("says", "advice"),
    [
        ("LoRA rank 32 is greater than max_lora_rank 16.", "--max-lora-rank 32 or more"),
        ("LoRA is not enabled. Use --enable-lora to enable LoRA.", "start vLLM with --enable-lora"),
        ("Loading lora sft@1 failed: No adapter found for /runs/1", "has to see the run folder"),
        ("too many adapters, max_loras is 1", "larger --max-loras"),
        ("CUDA error: already out of memory", "the model server's log"),
    ],
)
def test_why_an_adapter_is_refused_is_told_in_full(sft: ServedPolicy, says: str, advice: str) -> None:
    config = sft.run / "policies" / "sft" / "adapter_config.json"
    config.write_text(json.dumps({"r": 8, "rank_pattern": {"q_proj": 32}}))
    vllm = Vllm()
    vllm.says = f"{says} {'Much more is said. ' * 20}The end"

    async def work() -> None:
        async with served(vllm) as client:
            with pytest.raises(ServeError) as refused:
                await client.prepare(sft)
            assert vllm.says in str(refused.value) and advice in str(refused.value)

    run(work())


def test_an_adapter_that_another_replica_has_loaded_is_there(sft: ServedPolicy) -> None:
    vllm = Vllm()

    class Quicker(set[str]):
        """Names of models, one of which appears only after a first look."""

        looked = 0

        def __iter__(self) -> Any:
            self.looked += 1
            return iter(["org/base", "sft@1"] if self.looked > looked_before else ["org/base"])

    vllm.says = "The lora adapter 'sft@1' has been loaded"

    async def work() -> None:
        nonlocal looked_before
        async with served(vllm) as client:
            await asyncio.sleep(0.1)  # the first comparison, at the start
            vllm.models = Quicker()
            looked_before = 1
            await client.prepare(sft)

    looked_before = 0
    run(work())


def test_a_server_that_is_down_makes_this_one_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("editloop.serve.backends.upstream.RETRY_INTERVAL", 0.05)
    vllm = Vllm()
    vllm.models |= {"a@1", "b@2"}

    def made() -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", vllm.answer)
        return app

    async def until_ready(service: Any, status: int) -> str:
        async with asyncio.timeout(10):
            while (answer := await service.http.get("/readyz")).status_code != status:
                await asyncio.sleep(0.02)
        return str(answer.text)

    async def work() -> None:
        server = TestServer(made())
        await server.start_server()
        host, port = server.host, server.port
        client = UpstreamBackend(str(server.make_url("/v1")), base="org/base")
        async with serving(sqlite(tmp_path), tmp_path, backend=client) as service:
            assert (await service.ask()).status_code == 200
            assert (await service.http.get("/readyz")).status_code == 200
            vllm.is_down = True
            answer = await service.ask(id="r-1")
            assert "r-1" in error(answer, 502, "upstream_error")["message"]
            vllm.is_down = False
            await server.close()
            shown = [
                (await service.ask(id="r-2")).text,
                (await service.ask(id="r-3", stream=True)).text,
                await until_ready(service, 503),
                (await service.http.post("/v1/arms", json={"run": str(tmp_path)})).text,
            ]
            assert "upstream_error" in shown[0] and "r-2" in shown[0]
            assert "nobody answers at its address" in shown[2]
            assert not [each for each in shown if str(port) in each or host in each]
            assert f"{host}:{port}" in caplog.text and "r-2: a@1 could not answer" in caplog.text
            again = TestServer(made(), port=port)
            await again.start_server()
            assert json.loads(await until_ready(service, 200)) == {"status": "ok"}
            assert (await service.ask()).status_code == 200
            vllm.is_down = True
            client._compare_now.set()
            assert "status 503" in await until_ready(service, 503)
            await again.close()

    run(work())


def test_what_could_not_be_loaded_at_first_is_loaded_later(sft: ServedPolicy) -> None:
    vllm = Vllm()
    vllm.is_down = True

    async def work() -> None:
        async with served(vllm) as client:
            for policy in (BASE, sft):
                with pytest.raises(ServeError, match="does not list"):
                    await client.prepare(policy)
            vllm.is_down = False
            await client.compare()
            assert vllm.loads == 1
            assert (await client.complete("base@0", REQUEST, "r")).text == "Hello"
            assert (await client.complete("sft@1", REQUEST, "r")).text == "Hello"

    run(work())


def test_a_proxy_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    vllm = Vllm()

    async def work() -> None:
        async with served(vllm) as client:
            await client.prepare(BASE)
        far = UpstreamBackend("http://models.example/v1")
        await far.start()
        with pytest.raises(ServeError, match="nobody answers at its address"):
            await far.prepare(BASE)
        await far.stop()
        assert "127.0.0.1" in caplog.text  # the proxy's

    run(work())
