"""Policies behind any OpenAI-compatible server, vLLM with LoRA adapters in particular.

An arm's name is its model name there. A server that loads adapters over its API is told to; its list of
models is compared with what is played every while, and what it lost (by a restart, say) is loaded again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from editloop.errors import ServeError
from editloop.serve.backend import (
    Chunk,
    Completion,
    Refused,
    Served,
    Unanswered,
    freed,
    seconds_left,
)

__all__ = ["Upstream"]

log = logging.getLogger("editloop.serve")

COMPARE_EVERY = 30.0

KEEP_ALIVE = 1.5
"""Seconds for which an idle connection is kept: less than servers do (uvicorn's 5, gunicorn's 2)."""

FAILS = (aiohttp.ClientError, TimeoutError)
"""What a server that cannot be reached, or does not answer, raises."""


class Upstream:
    """A client of a model server.

    Args:
        base_url: Up to and with `/v1`.
        key: Its bearer key.
        base: What the base is called there.
        timeout: Most seconds between two signs of life.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        base: str | None = None,
        timeout: float = 120.0,
    ) -> None:
        self._url = base_url.rstrip("/") + "/"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = aiohttp.ClientTimeout(total=None, connect=min(5.0, timeout), sock_read=timeout)
        self._session: aiohttp.ClientSession | None = None
        self._base = base
        self._policies: dict[str, Served] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Backend.start`: the server need not be up yet."""
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=self._timeout,
            proxy=_proxy(self._url),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._task = asyncio.create_task(self._keep_comparing())

    async def stop(self) -> None:
        """See `Backend.stop`."""
        if self._task is not None:
            self._task.cancel()
        if self._session is not None:
            await self._session.close()

    def _ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None or self._session.closed:
            raise aiohttp.ClientConnectionError("the connection to the model server is closed")
        url = self._url + path
        return self._session.request(method, url, json=body, headers=headers, allow_redirects=False)

    async def prepare(self, policy: Served) -> None:
        """See `Backend.prepare`: an adapter that is not in the server's list is loaded there."""
        self._policies[policy.arm] = policy  # what cannot be loaded now is tried again
        models = await self._models()
        for part in policy.parts():
            await self._load(part, models)

    async def retire(self, arm: str) -> None:
        """See `Backend.retire`."""
        policy = self._policies.pop(arm, None)
        for part in freed(self._policies, policy) if policy is not None else ():
            if part.name != "base":
                with suppress(*FAILS):
                    async with self._ask("POST", "unload_lora_adapter", {"lora_name": part.arm}):
                        pass

    async def _models(self) -> set[str]:
        try:
            async with self._ask("GET", "models") as answer:
                if answer.status != 200:
                    raise ValueError(f"status {answer.status}")
                return {str(each["id"]) for each in json.loads(await answer.read())["data"]}
        except (*FAILS, ValueError, KeyError, TypeError) as error:
            raise ServeError(
                "the model server does not list its models", seen=_told(error), do="check --upstream"
            ) from error

    def _called(self, policy: Served) -> str:
        """What a policy is called there."""
        return self._base or policy.arm if policy.name == "base" else policy.arm

    async def _load(self, policy: Served, models: set[str]) -> None:
        name = self._called(policy)
        if name in models:
            return
        if policy.name == "base":
            raise ServeError("the model server has no such base", seen=name, do="name it by --upstream-base")
        folder = policy.run / "policies" / policy.name
        if not (folder / "adapter_config.json").is_file():
            raise ServeError(
                "the model server has not this model, which is no adapter",
                seen=name,
                do="start one with --served-model-name, behind a router if there are several",
            )
        try:
            body = {"lora_name": policy.arm, "lora_path": str(folder.resolve())}
            async with self._ask("POST", "load_lora_adapter", body) as answer:
                status, text = answer.status, (await answer.read()).decode(errors="replace")
        except FAILS as error:
            raise ServeError("the model server does not answer", seen=_told(error)) from error
        if status >= 300 and "already" not in text:
            raise ServeError(
                "the model server does not load the adapter",
                seen=text or status,
                do="start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
            )

    async def _keep_comparing(self) -> None:
        while True:
            await asyncio.sleep(COMPARE_EVERY)
            try:
                await self.compare()
            except Exception:  # whatever it is, it is looked at again
                log.exception("the model server's models could not be compared")

    async def compare(self) -> None:
        """Load what the server should have and has not."""
        parts = {part.arm: part for each in self._policies.values() for part in each.parts()}
        try:
            models = await self._models()
        except ServeError as error:
            log.warning("%s", error)
            return
        for part in parts.values():
            try:
                await self._load(part, models)
            except ServeError as error:  # the others may be loaded all the same
                log.warning("%s", error)

    def _body(
        self, arm: str, request: Mapping[str, Any], response_id: str, *, stream: bool
    ) -> dict[str, Any]:
        policy = self._policies.get(arm)
        model = arm if policy is None else self._called(policy.drawn(response_id))
        return {**request, "model": model, "stream": stream}

    def check(self, request: Mapping[str, Any]) -> None:
        """See `Backend.check`: the server says itself what it cannot do."""

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        """See `Backend.complete`."""
        try:
            sent = self._body(arm, request, response_id, stream=False)
            async with self._ask("POST", "chat/completions", sent, _time_left()) as answer:
                read = await answer.read()
        except FAILS as error:
            raise _unanswered(error) from error
        if answer.status >= 300:
            raise _refusal(answer, read)
        try:
            body = json.loads(read)
            choice = body["choices"][0]
            message = dict(choice["message"])
            text, finish = message.get("content"), choice.get("finish_reason") or "stop"
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Unanswered("error", "not a chat completion") from error
        kept = text if isinstance(text, str) else None
        return Completion(kept, finish, message, body.get("usage"), choice.get("logprobs"))

    async def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        """See `Backend.stream`."""
        sent = self._body(arm, request, response_id, stream=True)
        try:
            async with self._ask("POST", "chat/completions", sent) as answer:
                if answer.status >= 300:
                    raise _refusal(answer, await answer.read())
                async for line in _lines(answer):
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    if not line.startswith("data:"):
                        continue
                    yield _chunk(data)
        except FAILS as error:
            raise _unanswered(error) from error


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL."""
    parts, known = urlsplit(url), getproxies()
    proxy = known.get(parts.scheme) or known.get("all") or ""
    return proxy if proxy.startswith("http") and not proxy_bypass(parts.netloc) else None


def _time_left() -> dict[str, str]:
    """How long a whole response is waited for, as routers read it; LiteLLM has a header of its own.

    A stream is not told: it may go on after that, once it has begun. When the time is over the connection is
    closed, by which vLLM knows that nobody wants the response.
    """
    left = seconds_left()
    if left is None:
        return {}
    return {"X-Request-Timeout-Ms": f"{left * 1000:.0f}", "X-LiteLLM-Timeout": f"{left:.3f}"}


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _unanswered(error: Exception) -> Unanswered:
    return Unanswered("timeout") if isinstance(error, TimeoutError) else Unanswered("error", _told(error))


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The lines of a stream of events."""
    rest = b""
    async for part in answer.content.iter_any():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    yield rest.decode(errors="replace")


def _chunk(data: str) -> Chunk:
    try:
        body = json.loads(data)
        if "error" in body:
            raise Unanswered("error", body["error"])
        choice = body["choices"][0] if body.get("choices") else {}
        delta, finish = dict(choice.get("delta") or {}), choice.get("finish_reason")
        return Chunk(delta, finish, body.get("usage"), choice.get("logprobs"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unanswered("error", "not a chunk of a chat completion") from error


def _refusal(answer: aiohttp.ClientResponse, body: bytes) -> ServeError:
    """What a status other than 200 says: the arm is missing, no arm would be answered, or try another."""
    text = body.decode(errors="replace")
    if answer.status == 404:
        return Unanswered("missing", text)
    if answer.status in (400, 413, 422, 429):
        try:
            refusal = json.loads(text)
        except ValueError:
            refusal = text
        return Refused(answer.status, refusal, answer.headers.get("Retry-After"))
    return Unanswered("error", f"{answer.status}: {text}")
