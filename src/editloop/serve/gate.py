"""The gate before all requests: who asks, how much, how fast, how large."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from editloop.edits.writing import atomic
from editloop.errors import EditLoopError, StoreError
from editloop.serve.keys import Key, digest, list_keys
from editloop.serve.problem import Problem
from editloop.serve.store import PATIENCE, Store

__all__ = ["Gate", "Keys", "Limits"]

log = logging.getLogger("editloop.serve")

OPEN = ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/favicon.ico")
"""What anyone may see; the dashboard's own files too, which hold nobody's data."""

APP = (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("POST", "/v1/edits"))
"""What a key of the role `app` may do."""

LOCAL = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine."""

REFRESH = 1.0
"""Seconds between two readings of the keys: a revoked one is refused a moment later."""


@dataclass(frozen=True)
class Limits:
    """What one request, and one key, may ask.

    Attributes:
        body: Bytes of a request.
        text: Characters of one text.
        rate: Requests per second of one key, over a burst; None for as many as come.
        burst: Requests that may come at once.
        concurrency: Requests under way, over all keys.
    """

    body: int = 2 * 2**20
    text: int = 200_000
    rate: float | None = None
    burst: int = 100
    concurrency: int = 512


class Keys:
    """The keys of a store, as they were a moment ago.

    Args:
        store: The store.
        file: Where they are kept for a start while the store is down; digests only.
    """

    def __init__(self, store: Store, file: Path) -> None:
        self.store, self.file = store, file
        self._known: dict[str, Key] | None = None
        self._looked, self._ended = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read them, again and again; while the store is down, those that were known hold."""
        self._ended.clear()
        self._task = asyncio.create_task(self._keep_reading())

    async def stop(self) -> None:
        """Read them no more."""
        self._ended.set()
        if self._task is not None:
            with suppress(TimeoutError):  # one that is under way ends first
                await asyncio.wait_for(self._task, PATIENCE)

    async def _keep_reading(self) -> None:
        while not self._ended.is_set():
            await self._refresh()
            self._looked.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), REFRESH)

    async def _refresh(self) -> None:
        try:
            found = await asyncio.to_thread(list_keys, self.store)
        except StoreError:
            return
        except Exception:  # whatever it is, they are read again
            log.exception("the keys could not be read")
            return
        known = {key.digest: key for key in found}
        if known != self._known:
            self._known = known
            with suppress(EditLoopError, OSError), atomic(self.file) as unfinished:
                unfinished.write_text(json.dumps(found, allow_nan=False), encoding="utf-8")

    def _from_file(self) -> dict[str, Key] | None:
        try:
            found = [Key(*row) for row in json.loads(self.file.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return None
        return {key.digest: key for key in found}

    async def find(self, header: str | None) -> Key | None:
        """The key of an Authorization header; None where keys are not used.

        Raises:
            Problem: It is missing, unknown or revoked; or it is not known which there are.
        """
        if self._known is None:  # at the start; a store that hangs is not waited for
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._looked.wait()
            self._known = self._from_file() if self._known is None else self._known
        known = self._known
        if known is None:
            raise Problem(503, "it is not known who may ask", code="store_unavailable", retry_after=REFRESH)
        if not any(key.revoked is None for key in known.values()):
            if known:
                raise Problem(401, "all keys are revoked", code="invalid_api_key")
            return None
        scheme, _, token = (header or "").partition(" ")
        key = known.get(digest(token.strip())) if scheme.lower() == "bearer" else None
        if key is None or key.revoked is not None:
            what = "no key" if not header else "an unknown or revoked key"
            raise Problem(
                401, what, code="invalid_api_key", do="send Authorization: Bearer KEY of editloop keys create"
            )
        return key


class Gate:
    """ASGI middleware.

    Args:
        app: What is behind it.
        keys: Who may pass.
        limits: With how much.
    """

    def __init__(self, app: ASGIApp, keys: Keys, limits: Limits) -> None:
        self.app, self.keys, self.limits = app, keys, limits
        self.under_way = 0
        self._buckets: dict[str, tuple[float, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        path = get_route_path(scope) if scope["type"] == "http" else ""
        if not path or _is_open(path):
            await self.app(scope, receive, send)
            return
        try:
            headers: dict[bytes, bytes] = dict(scope["headers"])
            key = await self.keys.find(headers.get(b"authorization", b"").decode("latin-1") or None)
            if key is None:
                _check_local(headers, scope.get("client"))
            self._allow(key, scope["method"], path)
            self._slow_down(key.name if key else "")
            size = headers.get(b"content-length", b"0")
            if size.isdigit() and int(size) > self.limits.body:
                raise self._too_large()
            if self.under_way >= self.limits.concurrency:
                raise Problem(429, "too many requests under way", code="concurrency_limit", retry_after=1)
        except Problem as problem:
            await answer_problem(problem, send)
            return
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["key"] = key.name if key else None
        self.under_way += 1
        try:
            await self._within(scope, receive, send)
        finally:
            self.under_way -= 1

    async def _within(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request whose length was not told, as long as it is not too long."""
        seen, begun = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limits.body:
                raise self._too_large()
            return message

        async def told(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, told)
        except Problem as problem:
            if begun:
                raise
            await answer_problem(problem, send)

    def _too_large(self) -> Problem:
        return Problem(413, f"the request is longer than {self.limits.body} bytes", code="request_too_large")

    def _allow(self, key: Key | None, method: str, path: str) -> None:
        if key is None or key.role == "admin" or (method, path) in APP:
            return
        raise Problem(403, "this key may not do that", code="permission_denied", do="use an admin key")

    def _slow_down(self, name: str) -> None:
        """A token bucket for each key."""
        if self.limits.rate is None:
            return
        now = time.monotonic()
        tokens, then = self._buckets.get(name, (float(self.limits.burst), now))
        tokens = min(float(self.limits.burst), tokens + (now - then) * self.limits.rate)
        if tokens < 1:
            self._buckets[name] = (tokens, now)
            raise Problem(
                429, "too many requests", code="rate_limit", retry_after=(1 - tokens) / self.limits.rate
            )
        self._buckets[name] = (tokens - 1, now)


def _check_local(headers: Mapping[bytes, bytes], client: tuple[str, int] | None) -> None:
    """Without keys only this machine may ask, and no page of another site on its behalf.

    Raises:
        Problem: 403.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin", b"").decode("latin-1")
    foreign = client is not None and not _is_loopback(client[0])
    if foreign or (host.rpartition(":")[0] not in LOCAL and host not in LOCAL):
        raise Problem(403, "without keys only this machine may ask", code="not_local", seen=host)
    if origin and origin.partition("://")[2] != host:
        raise Problem(403, "without keys no other site may ask", code="not_local", seen=origin)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:  # a socket of this machine has no address
        return True


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/dashboard/")


async def answer_problem(problem: Problem, send: Send) -> None:
    """Answer a request by a problem."""
    body = json.dumps(problem.body(), allow_nan=False).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **problem.headers()}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
