"""The lease: of all autopilots of a store, one acts at a time.

The holder counts up a number in the store. Another autopilot takes the lease over when it has not seen the
number change for `LEASE_SECONDS` of its own monotonic clock. No two machines compare their clocks, so a clock
that jumps, or is wrong, changes nothing. Whoever acts checks in the same transaction that it still is the
holder: a process that was paused, and wakes up after another one took over, can write nothing any more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from uuid import uuid4

from editloop.errors import AutopilotError
from editloop.store import reads, writes
from editloop.store.database import Connection, Store

__all__ = ["LEASE", "LEASE_SECONDS", "Lease"]

LEASE = "autopilot-lease"
"""The fact of the store that holds who has the lease, and the number."""

LEASE_SECONDS = 30.0
"""Seconds without a change of the number after which another autopilot takes over."""


class Lease:
    """The lease of a store.

    Args:
        store: An open store.
        clock: A clock that never goes back, in seconds.
        seconds: As `LEASE_SECONDS`.

    Attributes:
        holder: The name under which this process holds it; another one for each process.
    """

    def __init__(
        self, store: Store, *, clock: Callable[[], float] = time.monotonic, seconds: float = LEASE_SECONDS
    ) -> None:
        self.store, self.holder = store, uuid4().hex
        self._clock, self._seconds = clock, seconds
        self._seen: tuple[str | None, float] = ("", clock())

    def take(self) -> bool:
        """Take or keep the lease, and return whether this process has it now.

        Raises:
            StoreUnreachableError: The store does not answer.
        """
        with self.store.transaction() as connection:
            text = reads.fact(connection, LEASE)
            holder, number = json.loads(text) if text else (None, 0)
            now = self._clock()
            if holder not in (None, self.holder):
                if text != self._seen[0]:
                    self._seen = (text, now)
                    return False
                if now - self._seen[1] < self._seconds:
                    return False
            writes.set_fact(connection, LEASE, json.dumps([self.holder, number + 1]))
        return True

    def renew(self) -> bool:
        """Count up, if this process has the lease, and return whether it has.

        Raises:
            StoreUnreachableError: The store does not answer.
        """
        with self.store.transaction() as connection:
            text = reads.fact(connection, LEASE)
            holder, number = json.loads(text) if text else (None, 0)
            if holder != self.holder:
                return False
            writes.set_fact(connection, LEASE, json.dumps([self.holder, number + 1]))
        return True

    def check(self, connection: Connection) -> None:
        """Check within a transaction that this process has the lease.

        Raises:
            AutopilotError: Another one has it.
        """
        text = reads.fact(connection, LEASE)
        if text is None or json.loads(text)[0] != self.holder:
            raise AutopilotError("another autopilot works on this store", do="stop one of the two")

    def release(self) -> None:
        """Give the lease back, if this process has it, so that another one need not wait."""
        with self.store.transaction() as connection:
            text = reads.fact(connection, LEASE)
            if text is not None and json.loads(text)[0] == self.holder:
                writes.set_fact(connection, LEASE, json.dumps([None, json.loads(text)[1]]))
