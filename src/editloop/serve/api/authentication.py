"""Who may send requests: bearer keys, what a role may do, and the rule for a server without keys."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from editloop.errors import EditLoopError, StoreError
from editloop.io import write_text
from editloop.serve.problem import Problem
from editloop.store.database import TIMEOUT_SECONDS, Store
from editloop.store.keys import Key, digest, list_keys

__all__ = ["KeyCache", "check_local", "check_role", "is_open"]

log = logging.getLogger("editloop.serve")

OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/favicon.ico")
"""Paths that are open to anyone. So are the files of the dashboard, which hold nobody's data."""

APP_ROUTES = (
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("POST", "/v1/edits"),
    ("POST", "/v1/edits:batch"),
    ("POST", "/v1/traces"),
)
"""The requests that a key of the role `app` may send."""

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine."""

REFRESH_INTERVAL = 1.0
"""Seconds between two readings of the keys, and so the time until a revoked key is refused."""


class KeyCache:
    """The keys of a store, as they were when they were last read.

    Requests are checked against a copy in memory, so that neither a query nor a database that is down stands
    between a request and its answer.

    Args:
        store: The store.
        file: Where digests of the keys are kept, for a start while the store is down.
    """

    def __init__(self, store: Store, file: Path) -> None:
        self.store, self.file = store, file
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

    async def _keep_reading(self) -> None:
        while not self._is_ending.is_set():
            await self._refresh()
            self._was_read.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_ending.wait(), REFRESH_INTERVAL)

    async def _refresh(self) -> None:
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

    async def find(self, header: str | None) -> Key | None:
        """The key of an Authorization header; None if the store has no keys at all.

        Raises:
            Problem: 401 if the key is missing, unknown or revoked; 503 if the keys cannot be read.
        """
        if self._known is None:  # at the start: wait for the first reading, but not for a store that hangs
            with suppress(TimeoutError):
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await self._was_read.wait()
            self._known = self._from_file() if self._known is None else self._known
        known = self._known
        if known is None:  # without the keys, the server must not be open to everybody
            raise Problem(
                503, "the keys are not known yet", code="store_unavailable", retry_after=REFRESH_INTERVAL
            )
        # Revoking the last key must not open the server, so revoked keys count as keys here.
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


def is_open(path: str) -> bool:
    """Whether a path is open to anyone."""
    return path in OPEN_PATHS or path.startswith("/dashboard/")


def check_role(key: Key | None, method: str, path: str) -> None:
    """Check that a key's role permits a request. The key is None if the server has no keys.

    Raises:
        Problem: 403, the role does not permit it.
    """
    if key is None or key.role == "admin" or (method, path) in APP_ROUTES:
        return
    raise Problem(403, "this key may not do that", code="permission_denied", do="use an admin key")


def check_local(headers: Mapping[bytes, bytes], client: tuple[str, int] | None) -> None:
    """Check a request to a server without keys: it must come from this machine, not from another site's page.

    The address alone does not show that, because a browser on this machine sends the requests of any page
    that is open in it. Such a request has the page's site as its Origin.

    Raises:
        Problem: 403, it comes from elsewhere.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin", b"").decode("latin-1")
    is_foreign = client is not None and not _is_loopback(client[0])
    if is_foreign or (host.rpartition(":")[0] not in LOCAL_NAMES and host not in LOCAL_NAMES):
        raise Problem(403, "without keys only this machine may ask", code="not_local", seen=host)
    if origin and origin.partition("://")[2] != host:  # `null`, of a page in a sandbox, is another one, too
        raise Problem(403, "without keys no other site may ask", code="not_local", seen=origin)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:  # a Unix socket has no address
        return True
