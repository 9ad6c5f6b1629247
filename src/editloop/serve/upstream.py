"""Policies behind any OpenAI-compatible server, vLLM with LoRA adapters in particular.

An arm's name is its model name there. A server that loads adapters over its API is told to; its list of
models is compared with what is played every while, and what it lost (by a restart, say) is loaded again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import httpx

from editloop.errors import ServeError
from editloop.serve.backend import Chunk, Completion, Refused, Served, Unanswered

__all__ = ["Upstream"]

log = logging.getLogger("editloop.serve")

COMPARE_EVERY = 30.0


class Upstream:
    """A client of a model server.

    Args:
        base_url: Up to and with `/v1`.
        key: Its bearer key.
        base: What the base is called there.
        timeout: Most seconds between two signs of life.
        transport: For tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        base: str | None = None,
        timeout: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(5.0, timeout)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
            transport=transport,
        )
        self._base = base
        self._policies: dict[str, Served] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Backend.start`: the server need not be up yet."""
        self._task = asyncio.create_task(self._keep_comparing())

    async def stop(self) -> None:
        """See `Backend.stop`."""
        if self._task is not None:
            self._task.cancel()
        await self._client.aclose()

    async def prepare(self, policy: Served) -> None:
        """See `Backend.prepare`: an adapter that is not in the server's list is loaded there."""
        self._policies[policy.arm] = policy  # what cannot be loaded now is tried again
        await self._load(policy, await self._models())

    async def retire(self, arm: str) -> None:
        """See `Backend.retire`."""
        policy = self._policies.pop(arm, None)
        if policy is not None and policy.name != "base":
            with suppress(httpx.HTTPError):
                await self._client.post("unload_lora_adapter", json={"lora_name": arm})

    async def _models(self) -> set[str]:
        try:
            answer = await self._client.get("models")
            answer.raise_for_status()
            return {str(each["id"]) for each in answer.json()["data"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ServeError(
                "the model server does not list its models",
                seen=str(error) or type(error).__name__,
                do="check --upstream",
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
        try:
            answer = await self._client.post(
                "load_lora_adapter", json={"lora_name": policy.arm, "lora_path": str(folder.resolve())}
            )
        except httpx.HTTPError as error:
            raise ServeError(
                "the model server does not answer", seen=str(error) or type(error).__name__
            ) from error
        if answer.is_error and "already" not in answer.text:
            raise ServeError(
                "the model server does not load the adapter",
                seen=answer.text or answer.status_code,
                do="start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
            )

    async def _keep_comparing(self) -> None:
        while True:
            await asyncio.sleep(COMPARE_EVERY)
            await self.compare()

    async def compare(self) -> None:
        """Load what the server should have and has not."""
        try:
            models = await self._models()
            for policy in list(self._policies.values()):
                await self._load(policy, models)
        except ServeError as error:
            log.warning("%s", error)

    def _body(self, arm: str, request: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
        policy = self._policies.get(arm)
        model = arm if policy is None else self._called(policy)
        return {**request, "model": model, "stream": stream}

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        """See `Backend.complete`."""
        try:
            answer = await self._client.post("chat/completions", json=self._body(arm, request, stream=False))
        except httpx.TimeoutException as error:
            raise Unanswered("timeout") from error
        except httpx.HTTPError as error:
            raise Unanswered("error", str(error) or type(error).__name__) from error
        if answer.is_error:
            raise _refusal(answer.status_code, answer.text)
        try:
            body = answer.json()
            choice = body["choices"][0]
            message = dict(choice["message"])
            text, finish = message.get("content"), choice.get("finish_reason") or "stop"
        except (ValueError, LookupError, TypeError) as error:
            raise Unanswered("error", "not a chat completion") from error
        return Completion(text if isinstance(text, str) else None, finish, message, body.get("usage"))

    async def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        """See `Backend.stream`."""
        body = self._body(arm, request, stream=True)
        try:
            async with self._client.stream("POST", "chat/completions", json=body) as answer:
                if answer.is_error:
                    raise _refusal(answer.status_code, (await answer.aread()).decode(errors="replace"))
                async for line in _lines(answer):
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    if not line.startswith("data:"):
                        continue
                    yield _chunk(data)
        except httpx.TimeoutException as error:
            raise Unanswered("timeout") from error
        except httpx.HTTPError as error:
            raise Unanswered("error", str(error) or type(error).__name__) from error


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    """The lines of a stream of events. Line breaks of Unicode's do not end one, as httpx's would."""
    rest = b""
    async for part in answer.aiter_bytes():
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
        return Chunk(dict(choice.get("delta") or {}), choice.get("finish_reason"), body.get("usage"))
    except (ValueError, LookupError, TypeError) as error:
        raise Unanswered("error", "not a chunk of a chat completion") from error


def _refusal(status: int, text: str) -> ServeError:
    """What a status other than 200 says: the arm is missing, the request is wrong, or try another."""
    if status == 404:
        return Unanswered("missing", text)
    if status in (400, 413, 422):
        try:
            return Refused(status, json.loads(text))
        except ValueError:
            return Refused(status, text)
    return Unanswered("error", f"{status}: {text}")
