"""The order in which a replica folds events: that of their numbers, whoever wrote them, on every replica.

On PostgreSQL many replicas write at once. A number is given when an event is inserted, and can be read when
its transaction is committed, so 8 may be there before 7; and 7 never comes if its transaction was undone. An
event is folded when all numbers before it are settled: folded themselves, or known never to come
(`store.locks` says how). So all replicas fold the same events in the same order, and so does a replay of the
store.

    wrote    events of this process are folded without being read, if they follow the last one directly
    follow   otherwise they wait for what others wrote before them; it is read in batches

Only the fold waits. A request waits for its own commit, and its decision counts as in flight meanwhile.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

from editloop.autopilot.stages import Transition
from editloop.online import Event
from editloop.serve.loop.costs import measured_again
from editloop.serve.loop.events import loop_event
from editloop.store import locks, reads
from editloop.store.database import Connection, Row, Store
from editloop.store.schema import COST

__all__ = ["EventOrder", "Follower", "Numbered", "Written"]

Numbered = tuple[int, Event | Transition]
"""An event with its number."""

Written = tuple[int, Event | Transition | None]
"""The same of a row of the store, which may hold something that is not folded (None)."""

IDLE_INTERVAL = 0.5
"""Seconds between two looks for events of other replicas, if there were none lately."""

BUSY_INTERVAL = 0.1
"""The same while other replicas write, or events wait. It is what a fold lags behind the store."""

BATCH_ROWS = 1000
"""Events that are read at a time."""


class EventOrder:
    """Puts events in the order of their numbers.

    Args:
        seq: The number up to which all are settled.

    Attributes:
        seq: As above.
        highest: The highest number that is known.
        known: The events behind a number that is not settled, by number; None where nothing is folded.
    """

    def __init__(self, seq: int) -> None:
        self.seq = self.highest = seq
        self.known: dict[int, Event | Transition | None] = {}

    def add(self, events: Iterable[Written], *, settled: float = 0) -> list[Numbered]:
        """Add events, and return those whose turn it is, in order.

        Args:
            events: Events with their numbers, in any order; known ones are ignored.
            settled: A number: whichever up to it is not known will never come.
        """
        for seq, event in events:
            if seq > self.seq:
                self.known[seq] = event
                self.highest = max(self.highest, seq)
        ready: list[Numbered] = []
        while self.seq < self.highest:
            following = self.seq + 1
            if following in self.known:
                event = self.known.pop(following)
                if event is not None:
                    ready.append((following, event))
            elif following > settled:
                break
            self.seq = following
        return ready


class Follower:
    """Follows the events of a store. Only the writer's thread uses it.

    Args:
        store: The store.
        seq: Number of the last event that was folded; all before it are settled.
        repriced: How often all edits had been measured again when the costs that are known were read; None
            skips the check.
    """

    def __init__(self, store: Store, seq: int, repriced: int | None = None) -> None:
        self.store, self._repriced = store, repriced
        self._order = EventOrder(seq)
        self._ready: list[Numbered] = []  # here, so that a store which stops answering in between loses none
        self._blocked_at: int | None = None  # where the last look has ended, before a missing number
        self._suspects: frozenset[str] | None = None  # the transactions that may still bring missing numbers
        self._below = 0  # missing numbers below this are of a suspect, or will never come
        self._looked = time.monotonic()
        self._others_write = False

    @property
    def seq(self) -> int:
        """The number up to which all events were returned for folding."""
        return self._order.seq

    @property
    def seconds_left(self) -> float:
        """Seconds until the next look at the store is due."""
        interval = BUSY_INTERVAL if self._order.known or self._others_write else IDLE_INTERVAL
        return max(0.0, self._looked + interval - time.monotonic())

    # Events of this process

    def read_before(self, connection: Connection, written: Sequence[Written]) -> list[Row[Any]] | None:
        """Return what others wrote before a transaction that excludes all other writers.

        Nobody else is writing, so all numbers are settled.

        Args:
            connection: That of the transaction, in which all is written.
            written: Its events.

        Returns:
            The rows; None if the transaction follows the last event directly.
        """
        following = written[0][0] - 1 if written else reads.last_seq(connection)
        if following == self.seq:
            return None
        rows: list[Row[Any]] = []
        after = self.seq
        while found := reads.new_events(connection, after, self._order.known, BATCH_ROWS):
            rows += found
            after = found[-1].seq
        return rows

    def wrote(self, written: Sequence[Written], before: Sequence[Row[Any]] | None = None) -> list[Numbered]:
        """Take the events of a transaction that is committed, and return those whose turn it is.

        Args:
            written: Its events.
            before: What `read_before` has returned.
        """
        if before is not None:
            self._ready += self._order.add([*map(_read_event, before), *written], settled=math.inf)
        else:
            self._ready += self._order.add(written)
            if written and not self._order.known:  # no number is missing, so nobody else has written before
                self._looked = time.monotonic()
        return self._take()

    def _take(self) -> list[Numbered]:
        ready, self._ready = self._ready, []
        return ready

    # Events of others

    def follow(self) -> list[Numbered]:
        """Look for new events in the store, and return those whose turn it is.

        Raises:
            StoreError: The store does not answer, or all edits were measured again.
        """
        self._looked = time.monotonic()
        self._others_write = False
        self._read(0)
        known = self._order.known
        if known and self._blocked_at == self.seq and (settled := self._settled()):
            self._read(settled)
        self._blocked_at = self.seq if known else None
        if self._blocked_at is None or self.seq + 1 >= self._below:
            self._suspects = None
        return self._take()

    def _settled(self) -> int:
        """The number below which missing ones will never come, unless they can be read now; 0 if none is."""
        highest = self._order.highest
        now = self.store.follow(locks.under_way)
        if self._suspects is None:
            # Numbers below one that was seen had been taken by then, by transactions that held the writers'
            # lock. Those that do not hold it any more have ended.
            self._suspects, self._below = now, highest
        return 0 if self._suspects & now else self._below

    def _read(self, settled: int) -> None:
        """Read new events."""
        known = self._order.known
        while True:
            rows = self.store.follow(lambda c: reads.new_events(c, self.seq, known, BATCH_ROWS))
            if any(self._repriced not in (None, int(row.repriced or 0)) for row in rows[-1:]):
                raise measured_again(self.store.fact(COST))
            self._others_write |= bool(rows)
            is_all = len(rows) < BATCH_ROWS
            # On SQLite there is one writer at a time, and no gap. Behind the last row of a full batch there
            # may be others that were not read.
            limit = math.inf if self.store.is_sqlite else settled
            limit = limit if is_all else min(limit, rows[-1].seq)
            self._ready += self._order.add(map(_read_event, rows), settled=limit)
            if is_all:
                return


def _read_event(row: Row[Any]) -> Written:
    return row.seq, loop_event(row)
