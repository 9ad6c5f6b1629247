"""Policies behind any OpenAI-compatible server, in particular vLLM with LoRA adapters.

An arm's name is the name of its model there. A server that can load adapters through its API loads them
from the run folders. Its list of models is compared with the arms periodically, and an adapter that it has
lost, for example by a restart, is loaded again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from editloop.errors import ConfigError, ServeError
from editloop.io import parse_json
from editloop.serve.backends.base import (
    BackendOptions,
    BackendUnavailableError,
    Chunk,
    Completion,
    ServedPolicy,
    seconds_left,
    unused_parts,
)
from editloop.serve.backends.spelled import SpelledText
from editloop.serve.backends.upstream_answers import (
    StatusError,
    chunk_of,
    completion_of,
    describe_cause,
    describe_error,
    error_message,
    failure_of,
    lines_of,
    loading_advice,
)

__all__ = ["UpstreamBackend"]

log = logging.getLogger("editloop.serve")

COMPARE_INTERVAL = 30.0
"""Seconds between two comparisons of the server's models with the arms."""

RETRY_INTERVAL = 2.0
"""Seconds between two comparisons while the server is down."""

LIST_SECONDS = 10.0
"""Seconds in which the server must list its models; a server that does not even do that is down."""

KEEP_ALIVE = 1.5
"""Seconds for which an idle connection is kept. Servers keep it longer (uvicorn 5, gunicorn 2), so a request
is never sent on a connection that the server is closing."""

CONNECTION_ERRORS = (aiohttp.ClientError, TimeoutError)
"""The exceptions that are raised if the server cannot be reached or does not answer."""


class UpstreamBackend:
    """A client of a model server.

    Args:
        base_url: Its address, with `/v1`.
        key: Its bearer key.
        base: The name of the base model there.
        timeout: Maximum seconds without any byte of an answer.
        logprobs: Whether the server is asked for the log-probabilities of its tokens.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        base: str | None = None,
        timeout: float = 120.0,
        logprobs: bool = False,
    ) -> None:
        self.answer_seconds: float | None = timeout
        self._logprobs = logprobs
        self._url = base_url.rstrip("/") + "/"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        # No limit for a whole answer, which a long stream would exceed. Whole responses are limited by
        # `attempt_timeout`.
        self._timeout = aiohttp.ClientTimeout(total=None, connect=min(5.0, timeout), sock_read=timeout)
        self._session: aiohttp.ClientSession | None = None
        self._base = base
        self._policies: dict[str, ServedPolicy] = {}
        self._comparing: asyncio.Task[None] | None = None
        self._down: str | None = None
        self._compare_now = asyncio.Event()

    @classmethod
    def from_options(cls, options: BackendOptions) -> UpstreamBackend:
        """See `BackendFactory.from_options`."""
        url = options.url or ""
        if not url.startswith(("http://", "https://")):
            raise ConfigError("not the URL of a server", seen=url, do="--upstream http://HOST:PORT/v1")
        if options.best_of > 1:
            raise ConfigError(
                "drafts are compared only by a base in this process", do="leave out --best-of or --upstream"
            )
        return cls(
            url, key=options.key, base=options.base, timeout=options.timeout, logprobs=options.logprobs
        )

    def __str__(self) -> str:
        return self._url.rstrip("/")

    @property
    def down(self) -> str | None:
        """See `Backend.down`. It tells how the last request to the server went."""
        return self._down

    def _note(self, error: Exception | None) -> None:
        """Note whether the server answered. A change is logged once, with the whole error."""
        down = None if error is None else f"the model server does not answer: {describe_cause(error)}"
        if down != self._down:
            if error is None:
                log.warning("the model server answers again")
            else:
                log.warning("%s (%s)", down, describe_error(error))
                self._compare_now.set()
            self._down = down

    async def start(self) -> None:
        """See `Backend.start`. The model server need not be up yet."""
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=self._timeout,
            proxy=_proxy(self._url),
            # No limit: with aiohttp's own of 100, further requests would wait unseen. The middleware limits.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._comparing = asyncio.create_task(self._keep_comparing())

    async def stop(self) -> None:
        """See `Backend.stop`."""
        if self._comparing is not None:
            self._comparing.cancel()
        if self._session is not None:
            await self._session.close()

    def _request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None or self._session.closed:
            raise aiohttp.ClientConnectionError("the connection to the model server is closed")
        url = self._url + path
        # No redirects: they would take the bearer key and users' texts to another server.
        return self._session.request(method, url, json=body, headers=headers, allow_redirects=False)

    # Adapters

    async def prepare(self, policy: ServedPolicy) -> None:
        """See `Backend.prepare`. The server loads an adapter that is not in its list of models."""
        self._policies[policy.arm] = policy  # first: `compare` tries again what cannot be loaded now
        models = await self._models()
        for part in policy.parts():
            await self._load(part, models)

    async def retire(self, arm: str) -> None:
        """See `Backend.retire`."""
        policy = self._policies.pop(arm, None)
        for part in unused_parts(self._policies, policy) if policy is not None else ():
            if part.name != "base":
                with suppress(*CONNECTION_ERRORS):
                    async with self._request("POST", "unload_lora_adapter", {"lora_name": part.arm}):
                        pass

    async def _models(self) -> set[str]:
        """The names of the server's models.

        Raises:
            ServeError: The server does not list them.
        """
        try:
            async with asyncio.timeout(LIST_SECONDS), self._request("GET", "models") as answer:
                if answer.status != 200:
                    raise StatusError(answer.status)
                models = {str(each["id"]) for each in parse_json(await answer.read())["data"]}
        except (*CONNECTION_ERRORS, StatusError, ValueError, KeyError, TypeError) as error:
            self._note(error)
            raise ServeError(
                f"the model server does not list its models: {describe_cause(error)}",
                do="check --upstream, and this server's log",
            ) from error
        self._note(None)
        return models

    def _model_name(self, policy: ServedPolicy) -> str:
        """The name of a policy's model on the server."""
        return self._base or policy.arm if policy.name == "base" else policy.arm

    async def _load(self, policy: ServedPolicy, models: set[str]) -> None:
        """Make the server load a policy's adapter, unless it is among its models.

        Raises:
            ServeError: The adapter cannot be loaded.
        """
        name = self._model_name(policy)
        if name in models:
            return
        if policy.name == "base":
            raise ServeError(
                "the model server has no such base model", seen=name, do="name it by --upstream-base"
            )
        folder = policy.run / "policies" / policy.name
        if not (folder / "adapter_config.json").is_file():
            raise ServeError(
                "the model server does not have this model, and only adapters can be loaded while it runs",
                seen=name,
                do="start a server with --served-model-name, behind a router if there are several",
            )
        try:
            body = {"lora_name": policy.arm, "lora_path": str(folder.resolve())}
            async with self._request("POST", "load_lora_adapter", body) as answer:
                status, text = answer.status, (await answer.read()).decode(errors="replace")
        except CONNECTION_ERRORS as error:
            self._note(error)
            raise ServeError(f"the model server does not answer: {describe_cause(error)}") from error
        # Another replica may have loaded it in the meantime; then the server refuses to load it twice.
        if status >= 300 and name not in await self._models():
            said = f"{status} {error_message(text)}"
            raise ServeError(
                f"the model server does not load the adapter: {said}", do=loading_advice(said, folder)
            )

    async def _keep_comparing(self) -> None:
        while True:
            self._compare_now.clear()
            try:
                await self.compare()
            except Exception:  # without this task, a server that was restarted would get no adapters
                log.exception("the model server's models could not be compared with the arms")
            if self._down is not None:
                await asyncio.sleep(RETRY_INTERVAL)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_INTERVAL):
                    await self._compare_now.wait()

    async def compare(self) -> None:
        """Load the adapters that the server should have but does not have."""
        parts = {part.arm: part for each in self._policies.values() for part in each.parts()}
        try:
            models = await self._models()
        except ServeError:  # `_note` has logged it
            return
        for part in parts.values():
            try:
                await self._load(part, models)
            except ServeError as error:  # go on with the others
                log.warning("%s", error)

    # Responses

    def check(self, request: Mapping[str, Any]) -> None:
        """See `Backend.check`. The server itself rejects what it cannot do."""

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        """See `Backend.complete`."""
        try:
            body = self._body(arm, request, response_id, stream=False)
            async with self._request("POST", "chat/completions", body, _timeout_headers()) as answer:
                read = await answer.read()
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from error
        if answer.status >= 300:
            raise failure_of(answer, read)
        found = completion_of(read)
        if not self._logprobs:
            return found
        spelled = SpelledText()
        spelled.add(found.message, found.logprobs)
        shown = found.logprobs if request.get("logprobs") else None
        return replace(found, logprob=spelled.logprob, logprobs=shown)

    async def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        """See `Backend.stream`."""
        body, spelled = self._body(arm, request, response_id, stream=True), SpelledText()
        try:
            async with self._request("POST", "chat/completions", body) as answer:
                if answer.status >= 300:
                    raise failure_of(answer, await answer.read())
                async for line in lines_of(answer):
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    if not line.startswith("data:"):
                        continue
                    chunk = chunk_of(data)
                    if self._logprobs:
                        spelled.add(chunk.delta, chunk.logprobs)
                        whole = spelled.logprob if chunk.finish else None
                        shown = chunk.logprobs if request.get("logprobs") else None
                        chunk = replace(chunk, logprob=whole, logprobs=shown)
                    yield chunk
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from error

    def _body(
        self, arm: str, request: Mapping[str, Any], response_id: str, *, stream: bool
    ) -> dict[str, Any]:
        policy = self._policies.get(arm)
        model = arm if policy is None else self._model_name(policy.part_for(response_id))
        asked = {"logprobs": True} if self._logprobs else {}
        # All else goes on as the client has sent it.
        return {**request, **asked, "model": model, "stream": stream}

    def _unavailable(self, error: Exception) -> BackendUnavailableError:
        # A response that takes too long does not show that the server is down. The list of models, asked for
        # now, does.
        if isinstance(error, TimeoutError):
            self._compare_now.set()
            return BackendUnavailableError("timeout")
        self._note(error)
        return BackendUnavailableError("error", describe_error(error))


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL.

    It takes the place of aiohttp's `trust_env`, which would also read credentials from `.netrc`.
    """
    parts, known = urlsplit(url), getproxies()
    proxy = known.get(parts.scheme) or known.get("all") or ""
    return proxy if proxy.startswith("http") and not proxy_bypass(parts.netloc) else None


def _timeout_headers() -> dict[str, str]:
    """Headers that tell routers how long a whole response is waited for; LiteLLM has a header of its own.

    They are not sent for streams, because a stream that has begun may go on after that time. When the time is
    over, the connection is closed, by which vLLM learns that nobody wants the response any more.
    """
    left = seconds_left()
    if left is None:
        return {}
    return {"X-Request-Timeout-Ms": f"{left * 1000:.0f}", "X-LiteLLM-Timeout": f"{left:.3f}"}
