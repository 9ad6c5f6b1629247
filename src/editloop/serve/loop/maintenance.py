"""What becomes due with time: responses expire, and old texts are removed, from the database's files too."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from editloop.errors import StoreError
from editloop.serve.loop.access import StoreAccess
from editloop.serve.loop.admin_commands import Audited
from editloop.serve.loop.commands import ExpireResponses, ForgetUser, RemoveTexts
from editloop.serve.problem import Problem, store_unavailable
from editloop.store import reads
from editloop.store.audit import AuditEntry
from editloop.store.database import TIMEOUT_SECONDS

__all__ = ["Maintenance"]

MAINTENANCE_INTERVAL = 2.0
"""Seconds between two searches for responses that have expired, or whose texts are too old to be kept."""

FULL_SEARCH_INTERVAL = 3600.0
"""Seconds between two searches among all texts. Others look only at texts that have just become too old."""

RETRY_INTERVAL = 0.1
"""Seconds between two attempts at something that a reader or the spool blocks."""

BATCH_ROWS = 500
"""Responses that are expired or removed in one transaction; between two of them, others can write."""

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
        self._is_ending = asyncio.Event()

    def end(self) -> None:
        """Let `run` end when it has done what it is doing.

        It is not cancelled, because a thread that reads cannot be: it would go on with a closed store.
        """
        self._is_ending.set()

    async def run(self) -> None:
        """Do everything that is due, periodically, until `end` is called."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_ending.wait(), MAINTENANCE_INTERVAL)
                return
            try:
                await self.expire()
                if self.keep_for is not None:
                    await self._remove_old(self.keep_for)
                await self._scrub()
            except Problem as error:
                if error.code != "store_busy":  # a reader is in the way: tried again in the next round
                    log.warning("%s", error)
            except Exception:  # without this task, nothing would expire or be removed any more
                log.exception("maintenance of the store has failed and is tried again")

    async def watch_writer(self) -> None:
        """Cut the writer's connection whenever it is stuck, until cancelled."""
        while True:
            await asyncio.sleep(MAINTENANCE_INTERVAL)
            self.access.writer.cut_if_stuck()

    async def expire(self) -> int:
        """Expire responses that have been pending for too long, and return how many there were.

        Raises:
            Problem: 503, the store is down.
        """
        until, expired = time.time() - self.expire_after, 0
        after = self._expired_until
        while rows := await self.access.read(lambda c: reads.overdue_decisions(c, after, until, BATCH_ROWS)):
            expired += await self.access.write(
                ExpireResponses([row.response_id for row in rows], time.time())
            )
        # The next search looks only at later decisions, so that its cost does not grow with the store. A
        # decision out of a spool is missed if it waited there longer than `expire_after`; a restart finds it.
        self._expired_until = until
        return expired

    async def forget(self, user: str, entry: AuditEntry | None = None) -> int:
        """Remove the texts of a user from the database and its files; return from how many responses.

        What is in this process's spool is written first, and removed with the rest. What is in the spools of
        other replicas is written without texts when it arrives.

        Args:
            user: Who is forgotten.
            entry: What is written about it, if an admin has asked for it.

        Raises:
            Problem: 503, the store is down, or a reader still sees the texts.
        """
        # The note comes before the removal: what arrives between the two is either written without texts, or
        # in the database already and found by the removal. A kill after the note leaves texts, but the
        # request was not acknowledged, and the client has to send it again.
        forget = ForgetUser(user, time.time())
        command = forget if entry is None else Audited(forget, entry)
        await _retry(lambda: self.access.write(command), self._is_down)
        removed = await self._remove(user=user)
        self._is_scrubbed = False
        await _retry(self._scrub, self._is_down)
        return removed

    def _is_down(self) -> bool:
        return self.access.down is not None

    async def _remove_old(self, keep_for: float) -> None:
        """Remove texts that became too old; once an hour also old texts that arrived late, out of a spool."""
        now = time.time()
        if now - self._last_full_search > FULL_SEARCH_INTERVAL:
            self._removed_until, self._last_full_search = 0.0, now
        until = now - keep_for
        if await self._remove(after=self._removed_until, until=until):
            self._is_scrubbed = False
        self._removed_until = until

    async def _remove(self, **which: Any) -> int:
        """Remove the texts of the drafts that `reads.removable_drafts` selects, and return how many."""
        removed = 0
        while ids := await self.access.read(lambda c: reads.removable_drafts(c, BATCH_ROWS, **which)):
            await self.access.write(RemoveTexts(ids, time.time()))
            removed += len(ids)
        return removed

    async def _scrub(self) -> None:
        """Leave nothing of removed texts in the database's files.

        It is done once after a removal, and once after the start: the process may have been killed between a
        removal and this.

        Raises:
            Problem: 503, a reader still sees the texts.
        """
        try:
            self._is_scrubbed = self._is_scrubbed or await asyncio.to_thread(self.access.store.scrub)
        except StoreError as error:
            raise store_unavailable(error) from error
        if not self._is_scrubbed:
            what = "the texts are removed, but not yet from the files, because a reader still sees old rows"
            raise Problem(503, what, code="store_busy", retry_after=2, do="send the request again")


async def _retry(work: Callable[[], Awaitable[Any]], is_down: Callable[[], bool]) -> None:
    """Do something, and try again for a limited time while an obstacle remains that ends by itself.

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
