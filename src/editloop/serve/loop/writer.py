"""The one thread that writes. Commands that arrive while a commit is under way share the next one.

A durable commit takes about as long for a hundred commands as for one, because it waits for the disk. So the
writer's thread takes whatever has arrived, at most `MAX_COMMIT_SIZE` commands, and applies it in one
transaction (a group commit). The busier the server is, the larger its commits become, and a command waits for
about two commits at most. One thread is enough. Other replicas write beside it; the thread follows what they
write, and puts all events into one order (`follower`).

A command is acknowledged when it is on the disk. While the database is down, commands of responses under way
go into a file, the spool, and from there into the database when it is back; all others are refused. The
writer does not know what a command means.

There is no lock. The event loop hands commands to the thread by a queue, and the thread hands results back by
`call_soon_threadsafe`. Both keep their order, so an event reaches the fold before the result of its command,
unless it waits there for events of other replicas.
What both sides share beside that (`down`, `_commit_began`) is one attribute that is assigned as a whole.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from editloop.errors import StoreError
from editloop.serve.loop.appender import PRICES, CostFunction, EventAppender, Prices
from editloop.serve.loop.commands import Command, names_of
from editloop.serve.loop.costs import CostVersion, measured_again
from editloop.serve.loop.follower import Follower, Numbered
from editloop.serve.loop.spool import Spool, SpooledCommand, spooled_from_json
from editloop.serve.problem import Problem
from editloop.store import reads
from editloop.store.database import TIMEOUT_SECONDS, Connection, Store
from editloop.store.schema import COST, FORGOTTEN, REPRICED

__all__ = ["Writer"]

T = TypeVar("T")

log = logging.getLogger("editloop.serve")

MAX_COMMIT_SIZE = 256
"""Maximum number of commands in one commit."""

MAX_COMMIT_DELAY = 0.01
"""Seconds for which a command that is not urgent waits for another one that shares its commit."""

SPOOL_TURN_SECONDS = 1.0
"""Seconds for which the spool is written into a database that is back, before new commands are looked at."""

POLL_INTERVAL = 0.5
"""Seconds between two polls of a database that was down, whether it is back."""

Pending = tuple[Any, "asyncio.Future[Any] | None"]
"""A command, and the future of whoever waits for it."""

OnEvents = Callable[[Sequence[Numbered]], None]


class Writer:
    """Writes commands, in the order in which they arrive.

    Args:
        store: Where they are written to.
        spool: The file in which commands wait while the store is down.
        edit_cost: The cost of an edit.
        on_events: Called in the event loop with the new events of the store, including those of other
            replicas. Each event is passed once and in order; where no other replica writes, before the result
            of the command that wrote it.
        last: Number of the last event that is known.
        cost_version: The cost by which `edit_cost` and all known costs are measured; None skips the check.
        prices: What costs something whatever the texts are.

    Attributes:
        down: Why the store cannot be written; None if it can.
    """

    def __init__(
        self,
        store: Store,
        spool: Path,
        edit_cost: CostFunction,
        on_events: OnEvents,
        last: int,
        cost_version: CostVersion | None = None,
        prices: Prices = PRICES,
    ) -> None:
        self.store = store
        self.down: str | None = None
        self._spool = Spool(spool)
        self._edit_cost, self._on_events, self._cost_version = edit_cost, on_events, cost_version
        self._prices = prices
        self._follower = Follower(store, last, None if cost_version is None else cost_version.repriced)
        self._held: list[Pending] = []
        self._is_stopped = False
        self._queue: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._is_back = False
        self._probe: threading.Thread | None = None
        self._commit_began: float | None = None

    @property
    def last(self) -> int:
        """The number up to which all events were passed on."""
        return self._follower.seq

    # In the event loop

    def start(self) -> None:
        """Begin to write; results are delivered to the running event loop."""
        self._event_loop = asyncio.get_running_loop()
        self._spool.tidy()
        self._thread.start()

    async def stop(self) -> None:
        """Write all commands that have arrived, and end the thread."""
        if self._thread.is_alive():
            self._release()
            self._is_stopped = True  # from here on nothing is put behind the None that ends the thread
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def write(self, command: Command[T], *, hurry: bool = True) -> asyncio.Future[T]:
        """What a command returns, once it is on the disk.

        Args:
            command: What is written.
            hurry: Whether it is written at once, together with all commands before it. Otherwise it waits up
                to `MAX_COMMIT_DELAY` for an urgent one: the decision about a response that is complete within
                milliseconds shares the commit of its text.

        Raises:
            StoreError: Raised by the future: the store is down, and the command cannot wait in the spool.
        """
        assert self._event_loop is not None
        future: asyncio.Future[T] = self._event_loop.create_future()
        if self._is_stopped:
            future.set_exception(StoreError("the server is ending"))
            return future
        self._held.append((command, future))
        if hurry:
            self._release()
        elif len(self._held) == 1:
            self._event_loop.call_later(MAX_COMMIT_DELAY, self._release)
        return future

    def _release(self) -> None:
        """Hand all held commands to the thread, the oldest first: a decision precedes its response."""
        for pending in self._held:
            self._queue.put(pending)
        self._held.clear()

    def spooled(self) -> list[SpooledCommand]:
        """The commands that wait in the spool."""
        return self._spool.commands()

    def cut_if_stuck(self) -> None:
        """Cut the connection of a commit that has taken too long. It has to be called regularly.

        A database that hangs, such as a paused virtual machine, would keep the writer's thread and every
        request waiting forever, because no timeout applies (see `Store.cut_writer`). Once the connection is
        cut, the commit fails, the store counts as down, and responses go on through the spool.
        """
        began = self._commit_began
        if began is not None and time.monotonic() - began > 2 * TIMEOUT_SECONDS and self.store.cut_writer():
            log.warning(
                "the database has not answered for %.0f s: the connection is cut", 2 * TIMEOUT_SECONDS
            )
            self._commit_began = None  # the next call must not cut the connection that replaces this one

    # In the writer's thread

    def _run(self) -> None:
        while True:
            batch, goes_on = self._take()
            try:
                if batch or self.down or not self._spool.is_empty():
                    self._write(batch)
                if not self.down and not self._follower.seconds_left:
                    self._follow()
            except Exception as error:  # without this thread, every later request would wait forever
                log.exception("a batch could not be written")
                self._deliver([], [(future, error) for _, future in batch])
            if not goes_on:
                return

    def _take(self) -> tuple[list[Pending], bool]:
        """The commands that have arrived by now, and whether more may follow.

        They are none if none arrives until there is something else to do.
        """
        batch: list[Pending] = []
        is_idle = not self.down and self._spool.is_empty()
        # For the first command; the others are there already.
        timeout: float | None = self._follower.seconds_left if is_idle else POLL_INTERVAL
        try:
            while len(batch) < MAX_COMMIT_SIZE:
                pending = self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait()
                if pending is None:
                    return batch, False
                batch.append(pending)
                timeout = None
        except queue.Empty:
            pass
        return batch, True

    def _follow(self) -> None:
        """Pass on what other replicas have written, or the autopilot and the command."""
        self._commit_began = time.monotonic()
        try:
            new = self._follower.follow()
        except StoreError as error:
            self.down, self._is_back = str(error), False
        else:
            self._deliver(new, [])
        finally:
            self._commit_began = None

    def _write(self, batch: list[Pending]) -> None:
        """Write a batch and deliver its results; or set it aside while the store is down."""
        if self.down and not self._answers_again():
            self._set_aside(batch, self.down)
            return
        try:
            # A later command must not overtake a spooled one: an edit would find no response, and a user who
            # is forgotten would still have texts in the spool.
            if not self._drain_spool():
                self._set_aside(batch, "the store is catching up with what was spooled")
                return
            results, new = self._commit([command for command, _ in batch])
        except StoreError as error:
            # Whether the transaction was committed may be unknown. What is spooled now is applied again
            # later, which changes nothing if it was.
            self.down, self._is_back = str(error), False
            self._set_aside(batch, self.down)
        except Exception as error:
            # One command is at fault, and its transaction was rolled back with all the others. Each command
            # is tried alone, so that only that one fails.
            if len(batch) > 1:
                for pending in batch:
                    self._write([pending])
            else:
                self._deliver([], [(batch[0][1], error)])
        else:
            self.down = None
            futures = [future for _, future in batch]
            self._deliver(new, list(zip(futures, results, strict=True)))

    def _answers_again(self) -> bool:
        """Whether a database that was down has answered in the meantime.

        Another thread asks it, because that may take as long as the timeout. Meanwhile this thread goes on
        putting commands into the spool, so that responses do not wait.
        """
        if not self._is_back and not (self._probe and self._probe.is_alive()):
            self._probe = threading.Thread(target=self._ask_database, name="store probe", daemon=True)
            self._probe.start()
        return self._is_back

    def _ask_database(self) -> None:
        if self.store.answers():
            self._is_back = True
        else:
            time.sleep(POLL_INTERVAL)

    def _commit(self, commands: Sequence[Any]) -> tuple[list[Any], list[Numbered]]:
        """Apply commands in one transaction.

        Returns:
            What each command returned, or the `Problem` that refused it; and the events whose turn it is, of
            this transaction and of others.

        Raises:
            StoreError: The store is down. Either nothing was written, or it is not known whether.
        """
        results: list[Any] = []
        names = names_of(commands)
        self._commit_began = time.monotonic()
        try:
            with self.store.transaction(names) as connection:
                appender = self._appender(connection)
                for command in commands:
                    try:
                        results.append(command.apply(appender))
                    except Problem as refusal:  # needs no savepoint: a refusal comes before any write
                        results.append(refusal)
                before = None
                if names is None or self.store.is_sqlite:  # it excludes all other writers
                    before = self._follower.read_before(connection, appender.appended)
        finally:
            self._commit_began = None
        # Only after the commit: if that fails, the events are read if they are in the store.
        return results, self._follower.wrote(appender.appended, before)

    def _appender(self, connection: Connection) -> EventAppender:
        """What commands write with in this transaction.

        Raises:
            StoreError: All edits were measured again since this process learned from their costs.
        """
        facts = reads.facts_named(connection, (COST, FORGOTTEN, REPRICED))
        if self._cost_version is not None and (now := CostVersion.of(facts)) != self._cost_version:
            raise measured_again(now.name if now else None)
        return EventAppender(connection, self._edit_cost, facts, self._prices)

    # The spool

    def _drain_spool(self) -> bool:
        """Write what waits in the spool, for `SPOOL_TURN_SECONDS` at most; return whether it is empty now.

        The time is limited because new commands wait for this thread. They join the end of the spool until
        it is empty.
        """
        if self._spool.is_empty():
            return True
        until = time.monotonic() + SPOOL_TURN_SECONDS
        with closing(self._spool.batches(MAX_COMMIT_SIZE)) as batches:
            for rows in batches:
                if time.monotonic() > until:
                    return False
                self._write_rows(rows)
        self._spool.finish()
        return True

    def _write_rows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows of the spool in one transaction; or one by one, if one of them cannot be written.

        Rows that were written before a kill are written again, without effect. Nobody waits for a result:
        these commands were acknowledged when they were spooled.
        """
        try:
            _, new = self._commit([spooled_from_json(row) for row in rows])
            self._deliver(new, [])
        except StoreError:
            raise
        except Exception as error:
            if len(rows) > 1:
                for row in rows:
                    self._write_rows([row])
            else:
                self._spool.refuse(rows[0], error)

    def _set_aside(self, batch: Sequence[Pending], reason: str) -> None:
        """Put commands that can wait into the spool, which acknowledges them, and refuse the others."""
        can_wait = [command for command, _ in batch if isinstance(command, SpooledCommand)]
        failure: Exception | None = None
        if can_wait:
            try:
                self._spool.append(can_wait)
            except OSError as error:
                failure = StoreError(f"{reason}; the spool cannot be written either", seen=error.strerror)
        refusal = failure or StoreError(reason)
        self._deliver([], [(f, failure if isinstance(c, SpooledCommand) else refusal) for c, f in batch])

    def _deliver(self, new: list[Numbered], results: list[tuple[asyncio.Future[Any] | None, Any]]) -> None:
        """Hand events, and then results, to the event loop.

        Both go in one callback: whoever gets a result finds its event in the fold, unless it waits for those
        of other replicas.
        """
        if not (new or results):
            return

        def deliver() -> None:
            if new:
                self._on_events(new)
            for future, result in results:
                if future is None or future.done():  # nobody waits, or whoever waited has gone
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        assert self._event_loop is not None
        with suppress(RuntimeError):  # the event loop has ended
            self._event_loop.call_soon_threadsafe(deliver)
