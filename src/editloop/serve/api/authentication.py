"""Who may send requests: bearer keys, what a role may do, and the rule for a server without keys."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from editloop.errors import EditLoopError, StoreError
from editloop.io import write_text
from editloop.serve.problem import Problem
from editloop.store.database import TIMEOUT_SECONDS, Store
from editloop.store.keys import Key, digest, list_keys

__all__ = ["KeyCache", "check_local", "check_origin", "check_role", "is_open", "origin_problem"]

log = logging.getLogger("editloop.serve")

OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/favicon.ico", "/client.js")
"""Paths that are open to anyone. So are the files of the dashboard, which hold nobody's data."""

APP_ROUTES = (
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/models"),
    ("POST", "/v1/edits"),
    ("POST", "/v1/edits:batch"),
    ("POST", "/v1/traces"),
    ("GET", "/v1/me"),
)
"""The requests that a key of the role `app` may send."""

APP_PREFIXES = (("GET", "/v1/responses/"), ("GET", "/v1/models/"))
"""The beginnings of more such requests. Who knows the id of a response may read that response again."""

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine."""

REFRESH_INTERVAL = 1.0
"""Seconds between two readings of the keys, and so the time until a revoked key is refused."""


USES_INTERVAL = 30.0
"""Seconds between two notes of when keys were used."""

NoteUses = Callable[[Mapping[str, float]], Awaitable[None]]
"""Writes when keys were used, by their digests; it raises a problem if the store is down."""


async def _write_nothing(uses: Mapping[str, float]) -> None:
    """Write nothing."""


class KeyCache:
    """The keys of a store, as they were when they were last read.

    Requests are checked against a copy in memory, so that neither a query nor a database that is down stands
    between a request and its answer.

    Args:
        store: The store.
        file: Where digests of the keys are kept, for a start while the store is down.
        note_uses: Writes when keys were used; by default nothing does.

    Attributes:
        uses: When keys were used, by their digests, as far as it is not in the store yet.
    """

    def __init__(self, store: Store, file: Path, note_uses: NoteUses = _write_nothing) -> None:
        self.store, self.file = store, file
        self.uses: dict[str, float] = {}
        self._note_uses, self._noted = note_uses, time.monotonic()
        self._turn = asyncio.Lock()
        self._known: dict[str, Key] | None = None
        self._was_read, self._is_ending = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read the keys periodically. While the store is down, the keys that are known stay valid."""
        self._is_ending.clear()
        self._task = asyncio.create_task(self._keep_reading())

    async def stop(self) -> None:
        """Stop reading."""
        self._is_ending.set()
        if self._task is not None:
            with suppress(TimeoutError):  # not cancelled: a thread that reads would use a closed store
                await asyncio.wait_for(self._task, TIMEOUT_SECONDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._write_uses(), TIMEOUT_SECONDS)

    async def _keep_reading(self) -> None:
        while not self._is_ending.is_set():
            await self.refresh()
            self._was_read.set()
            if time.monotonic() - self._noted > USES_INTERVAL:
                await self._write_uses()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_ending.wait(), REFRESH_INTERVAL)

    async def _write_uses(self) -> None:
        """Note in the store when keys were used; while it is down, the times wait for the next attempt."""
        self._noted, noted = time.monotonic(), dict(self.uses)
        with suppress(Problem):
            if noted:
                await self._note_uses(noted)
            # A key that was used in the meantime stays.
            self.uses = {key: at for key, at in self.uses.items() if at != noted.get(key)}

    async def refresh(self) -> None:
        """Read the keys; while the store is down, those that are known stay valid."""
        async with self._turn:  # a reading that began earlier must not end later, with keys as they were
            await self._read()

    async def _read(self) -> None:
        try:
            found = await asyncio.to_thread(list_keys, self.store)
        except StoreError:
            return
        except Exception:  # without this task, a revoked key would stay valid
            log.exception("the keys could not be read")
            return
        known = {key.digest: key for key in found}
        if known != self._known:
            self._known = known
            with suppress(EditLoopError):  # the file is needed only for a start while the store is down
                write_text(self.file, json.dumps(found, allow_nan=False))

    def _from_file(self) -> dict[str, Key] | None:
        try:
            found = [Key(*row) for row in json.loads(self.file.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return None
        return {key.digest: key for key in found}

    async def exist(self) -> bool:
        """Whether the store has keys. Revoked ones count: revoking the last key must not open the server.

        Raises:
            Problem: 503, the keys cannot be read.
        """
        return bool(await self._all())

    async def find(self, header: str | None) -> Key:
        """The key of an Authorization header.

        Raises:
            Problem: 401 if the key is missing, unknown or revoked; 503 if the keys cannot be read.
        """
        known = await self._all()
        if all(key.revoked is not None for key in known.values()):
            raise Problem(401, "all keys are revoked", code="invalid_api_key")
        scheme, _, token = (header or "").partition(" ")
        key = known.get(digest(token.strip())) if scheme.lower() == "bearer" else None
        if key is None or key.revoked is not None:
            what = "no key" if not header else "an unknown or revoked key"
            raise Problem(
                401, what, code="invalid_api_key", do="send Authorization: Bearer KEY of editloop keys create"
            )
        self.uses[key.digest] = time.time()
        return key

    async def _all(self) -> dict[str, Key]:
        """The keys, by digest.

        Raises:
            Problem: 503, the keys cannot be read.
        """
        if self._known is None:  # at the start: wait for the first reading, but not for a store that hangs
            with suppress(TimeoutError):
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await self._was_read.wait()
            self._known = self._from_file() if self._known is None else self._known
        if self._known is None:  # without the keys, the server must not be open to everybody
            raise Problem(
                503, "the keys are not known yet", code="store_unavailable", retry_after=REFRESH_INTERVAL
            )
        return self._known


def is_open(path: str) -> bool:
    """Whether a path is open to anyone."""
    return path in OPEN_PATHS or path.startswith("/dashboard/")


def check_role(key: Key, route: tuple[str, str]) -> None:
    """Check that a key's role permits a request, of which the method and the path are given.

    Raises:
        Problem: 403, the role does not permit it.
    """
    if key.role != "admin" and not _is_of_app(route):
        raise Problem(403, "this key may not do that", code="permission_denied", do="use an admin key")


def _is_of_app(route: tuple[str, str]) -> bool:
    method, path = route
    return route in APP_ROUTES or any(
        method == allowed and path.startswith(begin) for allowed, begin in APP_PREFIXES
    )


def check_local(
    route: tuple[str, str],
    headers: Mapping[bytes, bytes],
    client: tuple[str, int] | None,
    origins: Collection[str] = (),
) -> None:
    """Check a request to a server without keys: it must come from this machine, not from another site's page.

    The address alone does not show that, because a browser on this machine sends the requests of any page
    that is open in it. Such a request has the page's site as its Origin. Pages of `origins` may do what a key
    of the role `app` may.

    Raises:
        Problem: 403, it comes from elsewhere.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin", b"").decode("latin-1")
    is_foreign = client is not None and not _is_loopback(client[0])
    if is_foreign or (host.rpartition(":")[0] not in LOCAL_NAMES and host not in LOCAL_NAMES):
        raise Problem(403, "without keys only this machine may ask", code="not_local", seen=host)
    if _is_foreign_page(headers) and not (origin in origins and _is_of_app(route)):
        raise Problem(403, "without keys no other site may ask", code="not_local", seen=origin)


def check_origin(headers: Mapping[bytes, bytes], origins: Collection[str]) -> None:
    """Check a request with an edit token, which pages of `origins` and of this server may send.

    A browser sends a simple request of any page, and only hides the answer from it. So the server has to
    refuse it.

    Raises:
        Problem: 403, it comes from another page.
    """
    origin = headers.get(b"origin", b"").decode("latin-1")
    if _is_foreign_page(headers) and origin not in origins:
        raise origin_problem(origin)


def origin_problem(origin: str) -> Problem:
    """The problem of a request by a page of an origin that is not allowed."""
    what = "pages of this origin may not ask"
    return Problem(403, what, code="origin_not_allowed", seen=origin, do="--allow-origin adds one")


def _is_foreign_page(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a page of another site sent a request; `null`, of a page in a sandbox, is another one, too."""
    origin = headers.get(b"origin", b"")
    return bool(origin) and origin.partition(b"://")[2] != headers.get(b"host", b"")


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:  # a Unix socket has no address
        return True
