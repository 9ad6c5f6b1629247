"""The middleware in front of all routes: who may send a request, how often, and how large."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import ExitStack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from editloop.serve.api.authentication import KeyCache, check_local, check_origin, check_role, is_open
from editloop.serve.api.edit_tokens import EDIT_ROUTE, EditTokens
from editloop.serve.api.limits import Limits
from editloop.serve.api.quotas import PendingBodies, Quota, RateLimit
from editloop.serve.problem import Problem, answer_problem

__all__ = ["AdmissionMiddleware", "route_path"]

TOKENS = ""
"""The name by which the quotas of all edit tokens together are counted; a key's name is not empty."""

BATCH_PATH = "/v1/edits:batch"
"""The one route that reads its own body."""


class AdmissionMiddleware:
    """ASGI middleware that admits a request, or answers it with the reason why not.

    The checks go from cheap to expensive, and each relies on those before it: first the key or the edit
    token, what it permits and its rate; then the length that is announced; then the body, as it arrives; and
    at last the number of requests that are being answered.

    A request's body is read here, before any route sees the request. Only when it has arrived does the
    request count as being answered, so that slow clients cannot take the places of others. The exception is a
    batch of edits, whose route takes the body as it arrives: it counts from its beginning.

    Args:
        app: The application behind it.
        keys: The keys of those who may send requests.
        limits: The limits on requests.
        tokens: The edit tokens.
        origins: The origins whose pages may ask a server without keys.
    """

    def __init__(
        self, app: ASGIApp, keys: KeyCache, limits: Limits, tokens: EditTokens, origins: Collection[str] = ()
    ) -> None:
        self.app, self.keys, self.limits, self.tokens, self.origins = app, keys, limits, tokens, origins
        share = limits.share
        self._rate = RateLimit(limits.rate, limits.burst)
        self._under_way = Quota(
            limits.concurrency, share, what="requests under way", code="concurrency_limit"
        )
        self._pending = PendingBodies(limits.waiting, limits.body_seconds)
        self._held = Quota(limits.held, share, what="bytes of requests under way", code="memory_limit")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = route_path(scope)
        if not path or is_open(path):
            await self.app(scope, receive, send)
            return
        with ExitStack() as admission:
            try:
                receive = await self._admit(scope, path, receive, admission)
            except Problem as problem:
                await answer_problem(problem, send)
                return
            except _Disconnected:
                return
            await self.app(scope, receive, send)

    async def _admit(self, scope: Scope, path: str, receive: Receive, admission: ExitStack) -> Receive:
        """Check a request and read its body.

        Args:
            scope: The request's ASGI scope.
            path: The path by which it is routed.
            receive: From where its body comes.
            admission: Closed when the request has been answered, which gives back what it has used.

        Returns:
            A `receive` from which the application gets the body.

        Raises:
            Problem: The request is refused.
            _Disconnected: The client has gone.
        """
        headers: dict[bytes, bytes] = dict(scope["headers"])
        name = await self._identify(scope, path, headers)
        size = headers.get(b"content-length", b"0")
        longest = self.limits.batch if path == BATCH_PATH else self.limits.body
        if size.isdigit() and int(size) > longest:
            raise _too_large(longest)
        if path == BATCH_PATH:
            admission.enter_context(self._under_way.using(name))
            # The rows of one group, and the piece of the body that has just arrived.
            admission.enter_context(self._held.using(name, 2 * self.limits.body))
            return _Pieces(receive, self.limits).receive
        body = admission.enter_context(_Body(self._held, name))
        try:
            async with self._pending.one(name):
                await self._read(body, receive)
        except TimeoutError:
            what = f"the request's body did not arrive in {self.limits.body_seconds:g} s, or lost its place"
            raise Problem(408, what, code="body_timeout") from None
        admission.enter_context(self._under_way.using(name))
        return body.replay(receive)

    async def _identify(self, scope: Scope, path: str, headers: dict[bytes, bytes]) -> str | None:
        """Who sends a request, by the name that its quotas are counted for; None on a server without keys.

        A request for an edit that has no Authorization header has to have an edit token in its body, which
        only the route can read.

        Raises:
            Problem: 401 or 403, it is not permitted; 429, it comes too soon after others.
        """
        header = headers.get(b"authorization", b"").decode("latin-1") or None
        route, token = (scope["method"], path), self.tokens.in_header(header)
        edits_of = None if token is None else self.tokens.admit(token, route)
        name, key = None, None
        if not await self.keys.exist():
            check_local(route, headers, scope.get("client"), self.origins)
        elif token is not None or (header is None and self.tokens.are_on and route == EDIT_ROUTE):
            with self.tokens.counted():
                check_origin(headers, self.origins)
            edits_of, name = edits_of or "", TOKENS
        else:
            key = await self.keys.find(header)
            check_role(key, route)
            name = key.name
        if name != TOKENS:  # a token's rate is that of its response
            self._rate.take(name or "")  # after the key is known to be valid: guesses use up nobody's rate
        # What routes know as `request.state.key` and `request.state.edits_of`.
        scope.setdefault("state", {}).update(key=key, edits_of=edits_of)
        return name

    async def _read(self, body: _Body, receive: Receive) -> None:
        """Read a request's body to its end.

        Raises:
            Problem: 413 if it is too long; 429 if there is no memory left for it.
            _Disconnected: The client has gone.
        """
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Disconnected
            body.add(message.get("body", b""))
            if body.size > self.limits.body:  # the announced length was wrong, or there was none (chunked)
                raise _too_large(self.limits.body)
            if not message.get("more_body", False):
                return


def _too_large(longest: int) -> Problem:
    return Problem(413, f"the request is longer than {longest} bytes", code="request_too_large")


class _Disconnected(Exception):
    """The client has disconnected, so nobody waits for an answer."""


class _Pieces:
    """The body of a batch, as it arrives.

    Only the time that is spent waiting for the client counts. It may be as long as for other requests, once
    for each `limits.body` bytes: a client that sends a byte now and then must not keep its place.
    """

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._size, self._waited, self._has_ended = 0, 0.0, False

    async def receive(self) -> Message:
        """The next message.

        Raises:
            Problem: 413 if the body is too long, 408 if it arrives too slowly.
        """
        if self._has_ended:  # what follows says only that the client has gone
            return await self._receive()
        limits, began = self._limits, time.monotonic()
        allowed = limits.body_seconds * (1 + self._size // limits.body) - self._waited
        try:
            async with asyncio.timeout(max(allowed, 0.0)):
                message = await self._receive()
        except TimeoutError:
            what = f"the batch arrives too slowly, less than {limits.body} bytes in {limits.body_seconds:g} s"
            raise Problem(408, what, code="body_timeout") from None
        self._waited += time.monotonic() - began
        self._size += len(message.get("body", b""))
        if self._size > limits.batch:
            raise _too_large(limits.batch)
        self._has_ended = not message.get("more_body", False)
        return message


class _Body:
    """A request's body, whose bytes count towards a quota until the request has been answered."""

    def __init__(self, held: Quota, key: str | None) -> None:
        self._held, self._key = held, key
        self._bytes = bytearray()
        self.size = 0

    def add(self, part: bytes) -> None:
        """Add what has arrived.

        Raises:
            Problem: There is no memory left for it.
        """
        self._held.acquire(self._key, len(part))
        self.size += len(part)
        self._bytes += part

    def replay(self, receive: Receive) -> Receive:
        """A `receive` that returns the whole body in one message, and then the messages of `receive`.

        Those are needed, too: by them a stream learns that its client has disconnected.
        """
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
        self._held.release(self._key, self.size)


def route_path(scope: Scope) -> str:
    """The path by which a request is routed: that of the URL, below the prefix where the app is mounted.

    The path that is checked here must be the one that the router uses. Otherwise a request could be admitted
    for one route and answered by another. According to ASGI, `path` includes `root_path`.
    """
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    if not prefix or not path.startswith(prefix):
        return path
    below = path[len(prefix) :]
    return below if not below or below.startswith("/") else path
