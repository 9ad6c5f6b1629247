"""Policies behind any OpenAI-compatible server, vLLM with LoRA adapters in particular.

An arm's name is its model name there. A server that loads adapters over its API is told to; its list of
models is compared with what is played every while, and what it lost (by a restart, say) is loaded again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from editloop.errors import ServeError
from editloop.io import parse_json
from editloop.serve.backends.base import (
    BackendUnavailableError,
    Chunk,
    Completion,
    ServedPolicy,
    UpstreamRejectedError,
    seconds_left,
    unused_parts,
)

__all__ = ["UpstreamBackend"]

log = logging.getLogger("editloop.serve")

COMPARE_EVERY = 30.0

RETRY_EVERY = 2.0
"""While the server is down."""

LIST_SECONDS = 10.0
"""For its list of models: one that does not give even that is down."""

KEEP_ALIVE = 1.5
"""Seconds for which an idle connection is kept: less than servers do (uvicorn's 5, gunicorn's 2)."""

FAILS = (aiohttp.ClientError, TimeoutError)
"""What a server that cannot be reached, or does not answer, raises."""

ADVICE = (
    (r"rank", "start vLLM with --max-lora-rank {rank} or more"),
    (r"max_(cpu_)?loras", "start vLLM with larger --max-loras and --max-cpu-loras"),
    (r"not enabled|enable.lora", "start vLLM with --enable-lora"),
    (r"no adapter|no such file|does not exist", "it has to see the run folder under the same path"),
    (r"^(404|405) ", "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
    (r"^401 |^403 ", "give its key as EDITLOOP_UPSTREAM_KEY"),
    (r"", "the model server's log may say more"),
)
"""What to do, by what a server says, its status first, when it does not load an adapter."""

CAUSES: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientConnectorDNSError, "its name is not known"),
    (aiohttp.ClientSSLError, "no trusted connection"),
    (aiohttp.ClientConnectorError, "nobody answers at its address"),
    (aiohttp.ServerDisconnectedError, "it closes the connection"),
    (ValueError, "no list of models"),
)
"""Why it cannot be used, in words that anyone may read: the errors' own texts hold its address."""


class UpstreamBackend:
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
        self._policies: dict[str, ServedPolicy] = {}
        self._task: asyncio.Task[None] | None = None
        self._down: str | None = None
        self._look_again = asyncio.Event()

    @property
    def down(self) -> str | None:
        """See `Backend.down`: as it was when the server was last asked for something."""
        return self._down

    def _found(self, error: Exception | None) -> None:
        """Note what asking came to; an error is told in full in the log, once."""
        down = None if error is None else f"the model server does not answer: {_cause(error)}"
        if down != self._down:
            if error is None:
                log.warning("the model server answers again")
            else:
                log.warning("%s (%s)", down, _told(error))
                self._look_again.set()
            self._down = down

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

    async def prepare(self, policy: ServedPolicy) -> None:
        """See `Backend.prepare`: an adapter that is not in the server's list is loaded there."""
        self._policies[policy.arm] = policy  # what cannot be loaded now is tried again
        models = await self._models()
        for part in policy.parts():
            await self._load(part, models)

    async def retire(self, arm: str) -> None:
        """See `Backend.retire`."""
        policy = self._policies.pop(arm, None)
        for part in unused_parts(self._policies, policy) if policy is not None else ():
            if part.name != "base":
                with suppress(*FAILS):
                    async with self._ask("POST", "unload_lora_adapter", {"lora_name": part.arm}):
                        pass

    async def _models(self) -> set[str]:
        """The models that the server has.

        Raises:
            ServeError: It does not say.
        """
        try:
            async with asyncio.timeout(LIST_SECONDS), self._ask("GET", "models") as answer:
                if answer.status != 200:
                    raise _Status(answer.status)
                models = {str(each["id"]) for each in parse_json(await answer.read())["data"]}
        except (*FAILS, _Status, ValueError, KeyError, TypeError) as error:
            self._found(error)
            raise ServeError(
                f"the model server does not list its models: {_cause(error)}",
                do="check --upstream; the log of this server says more",
            ) from error
        self._found(None)
        return models

    def _called(self, policy: ServedPolicy) -> str:
        """What a policy is called there."""
        return self._base or policy.arm if policy.name == "base" else policy.arm

    async def _load(self, policy: ServedPolicy, models: set[str]) -> None:
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
            self._found(error)
            raise ServeError(f"the model server does not answer: {_cause(error)}") from error
        if status >= 300 and name not in await self._models():  # another replica may have been quicker
            said = _message(text)
            raise ServeError(
                f"the model server does not load the adapter: {status} {said}",
                do=_advice(f"{status} {said}", folder),
            )

    async def _keep_comparing(self) -> None:
        while True:
            self._look_again.clear()
            try:
                await self.compare()
            except Exception:  # whatever it is, it is looked at again
                log.exception("the model server's models could not be compared")
            if self._down is not None:
                await asyncio.sleep(RETRY_EVERY)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_EVERY):
                    await self._look_again.wait()

    async def compare(self) -> None:
        """Load what the server should have and has not."""
        parts = {part.arm: part for each in self._policies.values() for part in each.parts()}
        try:
            models = await self._models()
        except ServeError:  # which is logged
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
        model = arm if policy is None else self._called(policy.part_for(response_id))
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
            raise self._unanswered(error) from error
        if answer.status >= 300:
            raise _refusal(answer, read)
        try:
            body = parse_json(read)
            choice = body["choices"][0]
            message = dict(choice["message"])
            text, finish = message.get("content"), choice.get("finish_reason") or "stop"
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BackendUnavailableError("error", "not a chat completion") from error
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
            raise self._unanswered(error) from error

    def _unanswered(self, error: Exception) -> BackendUnavailableError:
        if isinstance(error, TimeoutError):  # this response takes too long; others may not
            self._look_again.set()
            return BackendUnavailableError("timeout")
        self._found(error)
        return BackendUnavailableError("error", _told(error))


class _Status(Exception):
    """A status where there should be a list; its text is the number."""


def _cause(error: Exception) -> str:
    """Why the server cannot be used, without its address."""
    if isinstance(error, _Status):
        return f"status {error}"
    return next((cause for kind, cause in CAUSES if isinstance(error, kind)), type(error).__name__)


def _message(text: str) -> str:
    """What a server says in an error, whole, in whichever of the usual forms."""
    try:
        body = parse_json(text)
        error = body.get("error", body)
        said = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        said = text
    return str(said or text)[:2000]


def _advice(said: str, folder: Path) -> str:
    try:
        config = parse_json((folder / "adapter_config.json").read_text(encoding="utf-8"))
        rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        rank = "R"
    advice = next(advice for pattern, advice in ADVICE if re.search(pattern, said, re.IGNORECASE))
    return advice.format(rank=rank)


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
        body = parse_json(data)
        if "error" in body:
            raise BackendUnavailableError("error", body["error"])
        choice = body["choices"][0] if body.get("choices") else {}
        delta, finish = dict(choice.get("delta") or {}), choice.get("finish_reason")
        return Chunk(delta, finish, body.get("usage"), choice.get("logprobs"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackendUnavailableError("error", "not a chunk of a chat completion") from error


def _refusal(answer: aiohttp.ClientResponse, body: bytes) -> ServeError:
    """What a status other than 200 says: the arm is missing, no arm would be answered, or try another."""
    text = body.decode(errors="replace")
    if answer.status == 404:
        return BackendUnavailableError("missing", text)
    if answer.status in (400, 413, 422, 429):
        try:
            refusal = parse_json(text)
        except ValueError:
            refusal = text
        return UpstreamRejectedError(answer.status, refusal, answer.headers.get("Retry-After"))
    return BackendUnavailableError("error", f"{answer.status}: {text}")
