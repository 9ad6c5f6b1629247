"""The one thread that writes. Commands that arrive while a commit is under way share the next one.

A commit that is on the disk takes as long for one command as for a hundred, because it waits for the disk, so
the writer's thread takes whatever has arrived by then, at most `MAX_COMMIT_SIZE` commands, and applies it in
one transaction (a group commit). The busier the server is, the larger its commits become, and the time that
each command waits stays about that of two commits. One thread is enough, and it gives the events one order.

A command is acknowledged when it is on the disk. While the database is down, commands of responses under way
go into a file, the spool, and from there into the database when it is back; all others are refused. What a
command means is not known here.
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
from editloop.online import Event
from editloop.serve.loop.appender import CostFunction, EventAppender
from editloop.serve.loop.commands import Command
from editloop.serve.loop.costs import CostVersion
from editloop.serve.loop.events import bandit_events
from editloop.serve.loop.spool import Spool, SpooledCommand, spooled_from_json
from editloop.serve.problem import Problem
from editloop.store import reads
from editloop.store.database import TIMEOUT_SECONDS, Connection, Store
from editloop.store.schema import COST, FORGOTTEN, REPRICED

__all__ = ["Writer"]

T = TypeVar("T")

log = logging.getLogger("editloop.serve")

MAX_COMMIT_SIZE = 256
"""Commands of one commit."""

MAX_COMMIT_DELAY = 0.01
"""Seconds for which a command that is not urgent waits for another one to share its commit with."""

SPOOL_TURN_SECONDS = 1.0
"""Seconds for which the spool is written into a database that is back, before other commands are written."""

POLL_INTERVAL = 0.5
"""Seconds between two looks at the database: whether it is back, and what other replicas have written."""

Pending = tuple[Any, "asyncio.Future[Any] | None"]
"""A command, and the future of whoever waits for it."""

OnEvents = Callable[[Sequence[tuple[int, Event]]], None]


class _Poll:
    """A command that writes nothing: applying it finds what other replicas have written."""

    def apply(self, appender: EventAppender) -> None:
        """Write nothing."""


class Writer:
    """Writes commands, in the order in which they arrive.

    Args:
        store: Where they are written to.
        spool: The file in which commands wait while it is down.
        edit_cost: The cost of an edit.
        on_events: Called in the event loop with each new event of the store, those of other replicas too, in
            order and once, before whoever wrote it gets its result.
        last: Number of the last event that is known.
        cost_version: What `edit_cost` and all known costs are measured by; None does not check it.

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
    ) -> None:
        self.store, self.last = store, last
        self.down: str | None = None
        self._spool = Spool(spool)
        self._edit_cost, self._on_events, self._cost_version = edit_cost, on_events, cost_version
        self._held: list[Pending] = []
        self._is_stopped = False
        self._queue: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._is_back = False
        self._probe: threading.Thread | None = None
        self._commit_began: float | None = None

    # In the event loop

    def start(self) -> None:
        """Begin to write, for the event loop that runs."""
        self._event_loop = asyncio.get_running_loop()
        self._spool.tidy()
        self._thread.start()

    async def stop(self) -> None:
        """Write all commands that have arrived, and end."""
        if self._thread.is_alive():
            self._release()
            self._is_stopped = True
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def write(self, command: Command[T], *, hurry: bool = True) -> asyncio.Future[T]:
        """What a command returns, once it is on the disk.

        Args:
            command: What is written.
            hurry: Whether it is written at once, with all commands before it. Otherwise it waits a moment for
                one that is: a decision and the response that follows it in milliseconds share a commit.

        Raises:
            StoreError: By the future: the store is down, and the command cannot wait in the spool.
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
        for pending in self._held:
            self._queue.put(pending)
        self._held.clear()

    def spooled(self) -> list[SpooledCommand]:
        """The commands that wait in the spool."""
        return self._spool.commands()

    def cut_if_stuck(self) -> None:
        """Cut the connection of a commit on which nothing has arrived for too long; to be called regularly.

        A database that stands still, a paused virtual machine for example, would keep the writer's thread
        waiting for ever, and every request with it: no timeout applies (see `Store.cut_writer`). Once the
        connection is cut the commit fails, the store counts as down, and responses go on through the spool.
        """
        began = self._commit_began
        if began is not None and time.monotonic() - began > 2 * TIMEOUT_SECONDS and self.store.cut_writer():
            log.warning(
                "the database has not answered for %.0f s: the connection is cut", 2 * TIMEOUT_SECONDS
            )
            self._commit_began = None

    # In the writer's thread

    def _run(self) -> None:
        while True:
            batch, goes_on = self._take()
            try:
                if batch:
                    self._write(batch)
            except Exception as error:  # whatever it is, this thread must go on
                log.exception("a batch could not be written")
                self._deliver([], [(future, error) for _, future in batch])
            if not goes_on:
                return

    def _take(self) -> tuple[list[Pending], bool]:
        """The commands that have arrived by now; if none has for a while, a poll of the database."""
        batch: list[Pending] = []
        try:
            timeout: float | None = POLL_INTERVAL
            while len(batch) < MAX_COMMIT_SIZE:
                pending = self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait()
                if pending is None:
                    return batch, False
                batch.append(pending)
                timeout = None
        except queue.Empty:
            pass
        if not batch and (self.down or not self.store.is_sqlite or not self._spool.is_empty()):
            batch.append((_Poll(), None))
        return batch, True

    def _write(self, batch: list[Pending]) -> None:
        if self.down and not self._answers_again():
            self._set_aside(batch, self.down)
            return
        try:
            # What follows on a spooled command must not overtake it: an edit would find no response.
            if not self._drain_spool():
                self._set_aside(batch, "the store is catching up with what was spooled")
                return
            results, new = self._commit([command for command, _ in batch])
        except StoreError as error:
            self.down, self._is_back = str(error), False
            self._set_aside(batch, self.down)
        except Exception as error:  # one command's fault: apart, so that the others do not fail with it
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
        """Whether a database that was down has answered since.

        Another thread asks it, since that may take as long as the timeout, and commands go into the spool
        meanwhile.
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

    def _commit(self, commands: Sequence[Any]) -> tuple[list[Any], list[tuple[int, Event]]]:
        """Apply commands in one transaction: what each returned, or was refused by, and the new events.

        Raises:
            StoreError: The store is down: nothing was written, or it is not known whether.
        """
        results: list[Any] = []
        self._commit_began = time.monotonic()
        try:
            with self.store.transaction() as connection:
                appender, new = self._appender(connection)
                for command in commands:
                    try:
                        results.append(command.apply(appender))
                    except Problem as refusal:
                        results.append(refusal)
        finally:
            self._commit_began = None
        self.last = appender.seq
        return results, new + appender.appended

    def _appender(self, connection: Connection) -> tuple[EventAppender, list[tuple[int, Event]]]:
        """What commands write with in this transaction, and the events that other replicas have written.

        Raises:
            StoreError: All costs were measured anew since this process learned from them.
        """
        seq = reads.last_seq(connection)
        new = list(bandit_events(reads.events_after(connection, self.last))) if seq > self.last else []
        facts = reads.facts_named(connection, (COST, FORGOTTEN, REPRICED))
        if self._cost_version is not None and (now := CostVersion.of(facts)) != self._cost_version:
            name = now.name if now else "no cost"
            what = f"the costs of the store were counted again, by {name}"
            raise StoreError(what, do="start this server anew")
        return EventAppender(connection, seq, self._edit_cost, facts), new

    # The spool

    def _drain_spool(self) -> bool:
        """Write what waits in the spool, for a while at most; returns whether nothing waits any more."""
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
        """Write rows of the spool in one transaction; one by one, if one of them cannot be written."""
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
        """Put commands that can wait into the spool, and refuse the others."""
        can_wait = [command for command, _ in batch if isinstance(command, SpooledCommand)]
        failure: Exception | None = None
        if can_wait:
            try:
                self._spool.append(can_wait)
            except OSError as error:
                failure = StoreError(f"{reason}; nor can the spool be written", seen=error.strerror)
        refusal = failure or StoreError(reason)
        self._deliver([], [(f, failure if isinstance(c, SpooledCommand) else refusal) for c, f in batch])

    def _deliver(
        self, new: list[tuple[int, Event]], results: list[tuple[asyncio.Future[Any] | None, Any]]
    ) -> None:
        """Hand events, and then results, to the event loop."""

        def deliver() -> None:
            if new:
                self._on_events(new)
            for future, result in results:
                if future is None or future.done():  # whoever waited has gone
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        assert self._event_loop is not None
        with suppress(RuntimeError):  # the event loop has ended
            self._event_loop.call_soon_threadsafe(deliver)
