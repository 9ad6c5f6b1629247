"""What time does: responses expire, old texts are removed, and removed texts leave the database's files."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from editloop.errors import StoreError
from editloop.serve.loop.access import StoreAccess
from editloop.serve.loop.commands import ExpireResponses, ForgetUser, RemoveTexts
from editloop.serve.problem import Problem, store_unavailable
from editloop.store import reads
from editloop.store.database import TIMEOUT_SECONDS

__all__ = ["Maintenance"]

MAINTENANCE_INTERVAL = 2.0
"""Seconds between two searches for responses that have expired, or whose texts are too old to be kept."""

FULL_SEARCH_INTERVAL = 3600.0
"""Seconds between two searches among all texts that are too old, not only among those that became it."""

RETRY_INTERVAL = 0.1
"""Seconds between two attempts at what a reader or a spool stands in the way of."""

BATCH_ROWS = 500
"""Responses that are expired or removed in one transaction, so that other writers have their turns."""

log = logging.getLogger("editloop.serve")


class Maintenance:
    """Expiry, retention and removal.

    Args:
        access: To the store.
        expire_after: Seconds after which no edit of a response is expected any more.
        keep_for: Seconds after which texts are removed; None keeps them.
    """

    def __init__(self, access: StoreAccess, *, expire_after: float, keep_for: float | None) -> None:
        self.access = access
        self.expire_after, self.keep_for = expire_after, keep_for
        self._expired_until = self._removed_until = self._last_full_search = 0.0
        self._is_scrubbed = False

    async def run(self) -> None:
        """Do everything that is due, every while, until cancelled."""
        while True:
            await asyncio.sleep(MAINTENANCE_INTERVAL)
            try:
                await self.expire()
                if self.keep_for is not None:
                    await self._remove_old(self.keep_for)
                await self._scrub()
            except Problem as error:
                if error.code != "store_busy":  # a busy store is tried again for as long as it takes
                    log.warning("%s", error)

    async def watch_writer(self) -> None:
        """Cut the writer's connection whenever it is stuck, until cancelled."""
        while True:
            await asyncio.sleep(MAINTENANCE_INTERVAL)
            self.access.writer.cut_if_stuck()

    async def expire(self) -> int:
        """Expire responses that have been pending for too long; returns how many.

        Raises:
            Problem: 503, the store is down.
        """
        until, expired = time.time() - self.expire_after, 0
        after = self._expired_until
        while rows := await self.access.read(lambda c: reads.overdue_decisions(c, after, until, BATCH_ROWS)):
            expired += await self.access.write(
                ExpireResponses([row.response_id for row in rows], time.time())
            )
        # Next time only later decisions are searched. One that comes out of a spool is missed only if it
        # had waited there for all of `expire_after`.
        self._expired_until = until
        return expired

    async def forget(self, user: str) -> int:
        """Remove the texts of a user from the database and its files; returns of how many responses.

        What is in this process's spool is written first, and removed with the rest; what is in the spools of
        other replicas is written without texts when it arrives.

        Raises:
            Problem: 503, the store is down, or a reader still sees the texts.
        """
        await _retry(lambda: self.access.write(ForgetUser(user, time.time())), self._is_down)
        removed = await self._remove(user=user)
        self._is_scrubbed = False
        await _retry(self._scrub, self._is_down)
        return removed

    def _is_down(self) -> bool:
        return self.access.down is not None

    async def _remove_old(self, keep_for: float) -> None:
        """Remove texts that became too old; every hour also those that arrived late, out of a spool."""
        now = time.time()
        if now - self._last_full_search > FULL_SEARCH_INTERVAL:
            self._removed_until, self._last_full_search = 0.0, now
        until = now - keep_for
        if await self._remove(after=self._removed_until, until=until):
            self._is_scrubbed = False
        self._removed_until = until

    async def _remove(self, **which: Any) -> int:
        """Remove the texts of those drafts, as of `reads.removable_drafts`, and return how many."""
        removed = 0
        while ids := await self.access.read(lambda c: reads.removable_drafts(c, BATCH_ROWS, **which)):
            await self.access.write(RemoveTexts(ids, time.time()))
            removed += len(ids)
        return removed

    async def _scrub(self) -> None:
        """Leave nothing of removed texts in the database's files.

        Raises:
            Problem: 503, a reader still sees the texts.
        """
        try:
            self._is_scrubbed = self._is_scrubbed or await asyncio.to_thread(self.access.store.scrub)
        except StoreError as error:
            raise store_unavailable(error) from error
        if not self._is_scrubbed:
            what = "the texts are removed, but not from the files yet: somebody reads what was there before"
            raise Problem(503, what, code="store_busy", retry_after=2, do="ask again")


async def _retry(work: Callable[[], Awaitable[Any]], is_down: Callable[[], bool]) -> None:
    """Do something again, for a while, as long as what stands in its way will end by itself.

    Raises:
        Problem: It still cannot be done, or the store is down.
    """
    deadline = time.monotonic() + 2 * TIMEOUT_SECONDS
    while True:
        try:
            await work()
            return
        except Problem:
            if is_down() or time.monotonic() > deadline:
                raise
        await asyncio.sleep(RETRY_INTERVAL)
