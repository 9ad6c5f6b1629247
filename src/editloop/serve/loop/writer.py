"""The one thread that writes: what is asked for while a commit is under way shares the next one.

An entry is acknowledged when it is on the disk. While the database is down, entries of responses that are
on their way go to a file, the spool, and into the database when it is back; all else is refused. Nothing is
known here of what an entry means.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from editloop.errors import StoreError
from editloop.journal import append_rows, drop_rows, left_rows, read_rows
from editloop.online import Event
from editloop.serve.loop.commands import Pen, Price, Spooled, spooled_from_json, spooled_to_json
from editloop.serve.loop.costs import CostVersion
from editloop.serve.loop.events import folded
from editloop.serve.problem import Problem
from editloop.store.database import ONE_AT_A_TIME, PATIENCE, UNREACHABLE, Store, down, newer
from editloop.store.schema import COST, FORGOTTEN, REPRICED, events, facts

__all__ = ["Entry", "Writer"]

T_co = TypeVar("T_co", covariant=True)

log = logging.getLogger("editloop.serve")

MOST = 256
"""Entries of a commit."""

HOLD = 0.01
"""Most seconds for which an entry waits for another with which to share a commit."""

AT_ONCE = 1.0
"""Seconds for which the spool is written into a database that is back, before others have their turn."""

AGAIN = 0.5
"""Seconds between two looks at a database: whether it is back, and what other replicas have written."""


class Entry(Protocol[T_co]):
    """What can be written."""

    def apply(self, pen: Pen) -> T_co:
        """Write it in a transaction of which there is one at a time."""
        ...


Asked = tuple[Any, "asyncio.Future[Any] | None"]
Told = Callable[[Sequence[tuple[int, Event]]], None]


_LAST = select(func.max(events.c.seq))
_FACTS = select(facts.c.name, facts.c.value).where(facts.c.name.in_((COST, FORGOTTEN, REPRICED)))


class _Look:
    """Writes nothing: a reason to see what others have written."""

    def apply(self, pen: Pen) -> None:
        """Nothing."""


class Writer:
    """Writes entries, in the order in which they are asked for.

    Args:
        store: Where to.
        spool: The file for the time in which it is down.
        price: What an edit costs.
        told: Called in the event loop with each new event of the store, in order and once, before whoever
            asked for it hears; those of other replicas too.
        last: Number of the last event that is known.
        version: What `price` and all costs that are known are counted by; None does not look.
    """

    def __init__(
        self,
        store: Store,
        spool: Path,
        price: Price,
        told: Told,
        last: int,
        version: CostVersion | None = None,
    ) -> None:
        self.store, self.spool, self.price, self.last = store, spool, price, last
        self._version = version
        self._told = told
        self._held: list[Asked] = []
        self._stopped = False
        self._queue: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.down: str | None = None
        self._answered = False
        self._asking: threading.Thread | None = None
        self._begun: float | None = None

    def start(self) -> None:
        """Begin to write, for the event loop that runs."""
        self._loop = asyncio.get_running_loop()
        left_rows(self.spool).unlink(missing_ok=True)
        self._thread.start()

    async def stop(self) -> None:
        """Write what was asked for, and end."""
        if self._thread.is_alive():
            self._release()
            self._stopped = True
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def write(self, entry: Entry[T_co], *, hurry: bool = True) -> asyncio.Future[T_co]:
        """What an entry returns, when it is on the disk.

        Args:
            entry: It.
            hurry: Whether it goes to the disk at once, and with it all that were asked for before; else it
                waits a moment for one that does.

        Raises:
            StoreError: In the future: the store is down, and the entry cannot wait in the spool.
        """
        assert self._loop is not None
        future: asyncio.Future[T_co] = self._loop.create_future()
        if self._stopped:
            future.set_exception(StoreError("the server is ending"))
            return future
        self._held.append((entry, future))
        if hurry:
            self._release()
        elif len(self._held) == 1:
            self._loop.call_later(HOLD, self._release)
        return future

    def _release(self) -> None:
        for asked in self._held:
            self._queue.put(asked)
        self._held.clear()

    def spooled(self) -> list[Spooled]:
        """What waits in the spool."""
        return [spooled_from_json(row) for row in read_rows(self.spool, StoreError)]

    def _run(self) -> None:
        while True:
            batch, go_on = self._take()
            try:
                if batch:
                    self._write(batch)
            except Exception as error:  # this thread outlives everything
                log.exception("a batch could not be written")
                self._tell([], [(future, error) for _, future in batch])
            if not go_on:
                return

    def _take(self) -> tuple[list[Asked], bool]:
        """What is asked for by now; after a while of nothing, a look at the database."""
        batch: list[Asked] = []
        try:
            timeout: float | None = AGAIN
            while len(batch) < MOST:
                asked = self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait()
                if asked is None:
                    return batch, False
                batch.append(asked)
                timeout = None
        except queue.Empty:
            pass
        if not batch and (self.down or not self.store.is_sqlite or self.spool.exists()):
            batch.append((_Look(), None))
        return batch, True

    def _write(self, batch: list[Asked]) -> None:
        if self.down and not self._answers():
            self._set_aside(batch, self.down)
            return
        try:
            if not self._drain():  # what follows on what waits must wait with it
                self._set_aside(batch, "the store is catching up with what was spooled")
                return
            found, new = self._commit([entry for entry, _ in batch])
        except StoreError as error:
            self.down, self._answered = str(error), False
            self._set_aside(batch, self.down)
        except Exception as error:  # of one entry, which must not take the others with it
            if len(batch) > 1:
                for one in batch:
                    self._write([one])
            else:
                self._tell([], [(batch[0][1], error)])
        else:
            self.down = None
            futures = [future for _, future in batch]
            self._tell(new, list(zip(futures, found, strict=True)))

    def _answers(self) -> bool:
        """Whether a database that was down has answered since. It is asked aside: that may take a while."""
        if not self._answered and not (self._asking and self._asking.is_alive()):
            self._asking = threading.Thread(target=self._ask, name="looking", daemon=True)
            self._asking.start()
        return self._answered

    def _ask(self) -> None:
        try:
            with self.store.reader.connect() as connection:
                connection.execute(select(1))
            self._answered = True
        except (SQLAlchemyError, OSError):
            time.sleep(AGAIN)

    def cut_if_stuck(self) -> None:
        """Break a connection on which nothing has come for too long: its server stands still.

        To be called every while. No timeout of the client's library reaches a server that takes bytes and
        answers none.
        """
        begun, descriptor = self._begun, self.store.descriptor
        if begun is not None and descriptor is not None and time.monotonic() - begun > 2 * PATIENCE:
            log.warning("the database has not answered for %.0f s", 2 * PATIENCE)
            self._begun = None
            with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
                connection.shutdown(socket.SHUT_RDWR)

    def _commit(self, entries: Sequence[Any]) -> tuple[list[Any], list[tuple[int, Event]]]:
        """Apply entries in one transaction: what each returned or was refused by, and the new events.

        Raises:
            StoreError: The store is down; nothing was written, or it is not known whether.
        """
        found: list[Any] = []
        self._begun = time.monotonic()
        try:
            with self.store.writer.begin() as connection:
                pen, new = self._pen(connection)
                for entry in entries:
                    try:
                        found.append(entry.apply(pen))
                    except Problem as refused:
                        found.append(refused)
        except UNREACHABLE as error:  # anything else is an entry's own fault
            raise down(error) from error
        finally:
            self._begun = None
        self.last = pen.seq
        return found, new + pen.added

    def _pen(self, connection: Connection) -> tuple[Pen, list[tuple[int, Event]]]:
        """A pen, with no other in any replica until the transaction ends, and what others have written.

        Raises:
            StoreError: All costs were counted again since this process learned from them.
        """
        if not self.store.is_sqlite:
            connection.execute(ONE_AT_A_TIME)
        seq = connection.scalar(_LAST) or 0
        new = list(folded(connection.execute(newer(self.last)))) if seq > self.last else []
        known = {row.name: row.value for row in connection.execute(_FACTS)}
        if self._version is not None and (now := CostVersion.of(known)) != self._version:
            name = now.name if now else "no cost"
            what = f"the costs of the store were counted again, by {name}"
            raise StoreError(what, do="start this server anew")
        return Pen(connection, seq, self.price, known), new

    def _drain(self) -> bool:
        """Write what waits in the spool, for a second at most; returns whether nothing waits any more."""
        if not self.spool.exists():
            return True
        until, done = time.monotonic() + AT_ONCE, 0
        rows = read_rows(self.spool, StoreError)
        try:
            while some := list(islice(rows, MOST)):
                if time.monotonic() > until:
                    return False
                self._write_rows(some)
                done += len(some)
        finally:
            if done:
                drop_rows(self.spool, done)
        self.spool.unlink(missing_ok=True)  # a last line that was cut short never happened
        return True

    def _write_rows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows of the spool in one transaction; apart, if one of them cannot be written."""
        try:
            _, new = self._commit([spooled_from_json(row) for row in rows])
            self._tell(new, [])
        except StoreError:
            raise
        except Exception:
            for row in rows:
                self._write_one(row)

    def _write_one(self, row: dict[str, Any]) -> None:
        """Write one row of the spool; one that the database will not have is told, without its texts."""
        try:
            _, new = self._commit([spooled_from_json(row)])
            self._tell(new, [])
        except StoreError:
            raise
        except Exception as error:
            log.error("an entry of the spool is refused: %s", error)
            told = {"entry": row.get("entry"), "id": row.get("response_id"), "error": type(error).__name__}
            append_rows(self.spool.with_suffix(".refused"), [told], sync=True)

    def _set_aside(self, batch: Sequence[Asked], reason: str) -> None:
        """Keep in the spool what may wait there, and refuse the rest."""
        waits = [spooled_to_json(entry) for entry, _ in batch if isinstance(entry, Spooled)]
        problem: Exception | None = None
        if waits:
            try:
                append_rows(self.spool, waits, sync=True)
            except OSError as error:
                problem = StoreError(f"{reason}; nor can the spool be written", seen=error.strerror)
        refused = problem or StoreError(reason)
        self._tell([], [(f, problem if isinstance(entry, Spooled) else refused) for entry, f in batch])

    def _tell(
        self, new: list[tuple[int, Event]], results: list[tuple[asyncio.Future[Any] | None, Any]]
    ) -> None:
        """Hand events and results to the event loop."""

        def tell() -> None:
            if new:
                self._told(new)
            for future, result in results:
                if future is None or future.done():  # whoever asked has gone
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(tell)
