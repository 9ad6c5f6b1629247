"""The gate before all requests: who asks, how much, how fast, how large."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, MutableMapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from editloop.errors import EditLoopError, StoreError
from editloop.io import write_text
from editloop.serve.api.hosts import Hosts
from editloop.serve.api.quotas import Places, Waiting
from editloop.serve.problem import Problem
from editloop.store.database import PATIENCE, Store
from editloop.store.keys import Key, digest, list_keys

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
        concurrency: Requests under way, over all keys. One counts from when its body is there.
        waiting: Requests whose body is not there yet, over all keys; one more ends the one that has waited
            longest, of the key with the most.
        held: Bytes of bodies in memory, over all keys.
        share: Of requests under way and of bytes, that one key may have: the others go on whatever it does.
        head_seconds: In which the line and the headers of a request come.
        body_seconds: In which a body comes.
        answer_seconds: In which a request is answered, or its stream begins, however many arms are tried;
            None for as long as it takes.
    """

    body: int = 2 * 2**20
    text: int = 200_000
    rate: float | None = None
    burst: int = 100
    concurrency: int = 512
    waiting: int = 2048
    held: int = 256 * 2**20
    share: float = 0.75
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    answer_seconds: float | None = 120.0


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
            with suppress(EditLoopError):
                write_text(self.file, json.dumps(found, allow_nan=False))

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
        hosts: By which names.
    """

    def __init__(self, app: ASGIApp, keys: Keys, limits: Limits, hosts: Hosts | None = None) -> None:
        self.app, self.keys, self.limits, self.hosts = app, keys, limits, hosts or Hosts()
        self._buckets: dict[str, tuple[float, float]] = {}
        share = limits.share
        self._under_way = Places(
            limits.concurrency, share, what="requests under way", code="concurrency_limit"
        )
        self._waiting = Waiting(limits.waiting, limits.body_seconds)
        self._held = Places(limits.held, share, what="bytes of requests under way", code="memory_limit")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = get_route_path(scope)
        try:
            self.hosts.check(scope)
        except Problem as problem:
            await answer_problem(problem, send)
            return
        if not path or _is_open(path):
            await self.app(scope, receive, send)
            return
        with ExitStack() as places:
            try:
                receive = await self._take_in(scope, path, receive, places)
            except Problem as problem:
                await answer_problem(problem, send)
                return
            except _Gone:
                return
            await self.app(scope, receive, send)

    async def _take_in(self, scope: Scope, path: str, receive: Receive, places: ExitStack) -> Receive:
        """What gives a request's body, which is there; the request has its place until `places` is closed.

        Raises:
            Problem: The request is refused.
            _Gone: The client has broken off.
        """
        headers: dict[bytes, bytes] = dict(scope["headers"])
        key = await self.keys.find(headers.get(b"authorization", b"").decode("latin-1") or None)
        if key is None:
            _check_local(headers, scope.get("client"))
        self._allow(key, scope["method"], path)
        name = key.name if key else None
        self._slow_down(name or "")
        size = headers.get(b"content-length", b"0")
        if size.isdigit() and int(size) > self.limits.body:
            raise self._too_large()
        body = places.enter_context(_Body(self._held, name))
        try:
            async with self._waiting.one(name):
                await self._read(body, receive)
        except TimeoutError:
            what = f"the request's body did not come soon enough, in {self.limits.body_seconds:g} s at most"
            raise Problem(408, what, code="body_timeout") from None
        places.enter_context(self._under_way.one(name))
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["key"] = name
        return body.first(receive)

    async def _read(self, body: _Body, receive: Receive) -> None:
        """Read a request's body to its end.

        Raises:
            Problem: It is too long, 413; or there is no memory for it, 429.
            _Gone: The client has broken off.
        """
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            body.add(message.get("body", b""))
            if body.size > self.limits.body:
                raise self._too_large()
            if not message.get("more_body", False):
                return

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


class _Gone(Exception):
    """A client that has broken off; nobody waits for an answer."""


class _Body:
    """A request's body, whose bytes count until the request has ended."""

    def __init__(self, held: Places, key: str | None) -> None:
        self._held, self._key = held, key
        self._bytes = bytearray()
        self.size = 0

    def add(self, part: bytes) -> None:
        """Keep a part.

        Raises:
            Problem: There is no place for it.
        """
        self._held.take(self._key, len(part))
        self.size += len(part)
        self._bytes += part

    def first(self, receive: Receive) -> Receive:
        """What gives the body, all of it at once, and then what `receive` gives."""
        whole: bytes | None = bytes(self._bytes)
        self._bytes.clear()

        async def received() -> Message:
            nonlocal whole
            if whole is None:
                return await receive()
            given, whole = whole, None
            return {"type": "http.request", "body": given, "more_body": False}

        return received

    def __enter__(self) -> _Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.leave(self._key, self.size)


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
    if problem.status == 408:
        headers["Connection"] = "close"  # what comes late is not the next request
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
