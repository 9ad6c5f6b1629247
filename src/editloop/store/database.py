"""The store: SQLite by default, PostgreSQL for several replicas, the same tables on both.

A `Store` opens and locks the database, and hands out connections. What is read and written with them is in
`reads` and `writes`.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import lock_descriptor
from sqlalchemy import Connection, Engine, Row, create_engine, event, make_url, select, text
from sqlalchemy.exc import (
    ArgumentError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.pool import QueuePool

from editloop.errors import StoreError, StoreUnreachableError
from editloop.store import reads, writes
from editloop.store.migrate import migrate
from editloop.store.schema import SALT

__all__ = ["TIMEOUT_SECONDS", "Connection", "Row", "Store", "as_store_error", "store_errors"]

T = TypeVar("T")

log = logging.getLogger("editloop.store")

TIMEOUT_SECONDS = 5
"""A database that does not answer within so many seconds counts as down."""

STREAM_ROWS = 1000
"""Rows that a stream fetches at a time."""

SCRUB_WAIT = 100
"""Milliseconds for which emptying SQLite's write-ahead log may keep writers waiting."""

WRITER_LOCK = text("SELECT pg_advisory_xact_lock(26011905)")
"""Held by a PostgreSQL transaction that writes, until it ends: there is one writer over all replicas."""

UNREACHABLE = (OperationalError, InterfaceError, NoConnectionError, sqlite3.OperationalError, OSError)
"""What is raised when a database does not answer. Anything else means that the query or the data is wrong."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise errors of the database as errors of this package, each in one line.

    Raises:
        StoreUnreachableError: The database does not answer.
        StoreError: Any other error of the database.
    """
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise as_store_error(error) from error


def as_store_error(error: Exception) -> StoreError:
    """Turn an error of the database into one line. Its type alone says whether the store is unreachable."""
    reason = (str(getattr(error, "orig", None) or error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, UNREACHABLE):
        return StoreUnreachableError(f"the store does not answer: {reason}")
    return StoreError(f"the store cannot be used: {reason}")


class Store:
    """A database of events and texts.

    Args:
        url: `sqlite:///edits.db`, `postgresql://user@host/name`, or the path of a SQLite file.

    Attributes:
        reader: The engine whose connections read.
        writer: The engine whose connection writes, one at a time.

    Raises:
        StoreError: The address is not one of a database that can be used.
    """

    def __init__(self, url: str) -> None:
        given = url if "://" in url else f"sqlite:///{url}"
        try:
            self.url = make_url(given)
        except ArgumentError as error:
            raise StoreError("not the address of a database", seen=url) from error
        if self.url.get_backend_name() == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database in (None, "", ":memory:"):
            raise StoreError("a store in memory would lose edits", seen=url, do="name a file")
        self._lock: int | None = None
        self._descriptor: int | None = None
        try:
            self.reader, self.writer = self._engine("BEGIN"), self._engine("BEGIN IMMEDIATE")
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise StoreError("no such kind of database", seen=url, do="use sqlite or postgresql") from error
        if not self.is_sqlite:
            event.listen(self.writer, "connect", self._connected)
            event.listen(self.writer, "close", self._disconnected)

    def _connected(self, connection: Any, _: Any) -> None:
        self._descriptor = connection.fileno()

    def _disconnected(self, *_: Any) -> None:
        self._descriptor = None

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def _engine(self, begin: str) -> Engine:
        if not self.is_sqlite:
            options = {
                "connect_timeout": TIMEOUT_SECONDS,
                "tcp_user_timeout": 1000 * TIMEOUT_SECONDS,
                "options": f"-c statement_timeout={1000 * TIMEOUT_SECONDS}",
            }
            return create_engine(self.url, connect_args=options, pool_pre_ping=True, hide_parameters=True)
        timeout = {"timeout": TIMEOUT_SECONDS}
        engine = create_engine(self.url, connect_args=timeout, poolclass=QueuePool, hide_parameters=True)

        @event.listens_for(engine, "connect")
        def settings(connection: Any, _: Any) -> None:
            # The driver's own transactions would begin too late: a reader's snapshot has to start with BEGIN.
            connection.isolation_level = None
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
            connection.execute("PRAGMA secure_delete=ON")  # texts that are removed are overwritten, too

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    # Opening and closing

    def open(self, *, claim: bool = True) -> None:
        """Bring the database to this version's schema.

        Args:
            claim: Whether a SQLite file belongs to this process alone from here on, as it does to a server.

        Raises:
            StoreError: The database does not answer, a newer version wrote it, or another process holds it.
        """
        if self.is_sqlite and claim:
            self._claim()
        with store_errors(), self.transaction() as connection:
            before = migrate(connection, str(self))
            if reads.fact(connection, SALT) is None:
                writes.set_fact(connection, SALT, secrets.token_hex(16))
        if self.is_sqlite and before == "1":
            self._rebuild()

    def _rebuild(self) -> None:
        """Write the file anew: its free space holds removed texts, which the first version did not erase."""
        with store_errors(), closing(self.writer.raw_connection()) as connection:
            try:
                connection.cursor().execute("VACUUM")
            except sqlite3.Error as error:  # a full disk, for example; the store is usable all the same
                log.warning("removed texts may still be in the file's free space, %s: VACUUM %s", error, self)

    def _claim(self) -> None:
        assert self.url.database is not None
        path = Path(self.url.database)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(
                f"the store cannot be written, {error.strerror}", seen=str(path), do="choose another --store"
            ) from error
        try:
            # A lock of the operating system, because it ends with the process, however that ends.
            is_ours = lock_descriptor(self._lock, blocking=False)
        except OSError as error:
            self.close()
            raise StoreError(
                f"the store cannot be locked, {error.strerror}", seen=str(path), do="choose another --store"
            ) from error
        if not is_ours:
            self.close()
            raise StoreError(
                "another process serves from this store",
                seen=str(path),
                do="stop it, or use PostgreSQL for several",
            )

    def close(self) -> None:
        """Release the connections and the lock."""
        self.reader.dispose()
        self.writer.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Reading

    def read(self, query: Callable[[Connection], T]) -> T:
        """Return what a query (a function of `reads`, usually) finds.

        Raises:
            StoreError: The database does not answer.
        """
        with store_errors(), self.reader.connect() as connection:
            return query(connection)

    def stream(self, query: Callable[[Connection], Iterator[T]]) -> Iterator[T]:
        """Yield what a query finds, fetched some rows at a time; the connection stays open meanwhile.

        Raises:
            StoreError: The database does not answer.
        """
        with store_errors(), self.reader.connect() as connection:
            yield from query(connection.execution_options(yield_per=STREAM_ROWS))

    def fact(self, name: str) -> str:
        """Return a fact about the whole store."""
        return str(self.read(lambda c: reads.fact(c, name)))

    def last(self) -> int:
        """Return the number of the last event, which is the number of events."""
        return self.read(reads.last_seq)

    # Writing

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that writes, of which there is one at a time, in this process and over all replicas.

        Raises:
            StoreUnreachableError: The database does not answer: nothing was written, or it is not known
                whether. Other errors pass as they are, because they are the fault of what was written.
        """
        try:
            with self.writer.begin() as connection:
                if not self.is_sqlite:  # SQLite's BEGIN IMMEDIATE is such a lock
                    connection.execute(WRITER_LOCK)
                yield connection
        except UNREACHABLE as error:
            raise as_store_error(error) from error

    def answers(self) -> bool:
        """Whether the database answers now; this may take as long as the timeout."""
        try:
            with self.reader.connect() as connection:
                connection.execute(select(1))
        except (SQLAlchemyError, OSError):
            return False
        return True

    def cut_writer(self) -> bool:
        """Shut down the socket of the connection that writes, if there is one; returns whether there was.

        The client library's timeouts do not cover a database whose kernel acknowledges what is sent while the
        server itself stands still: `tcp_user_timeout` sees acknowledged bytes, and `statement_timeout` is
        kept by the server. A write then waits for ever in the library. Shutting down the socket, of which a
        copy of the descriptor is enough, makes that wait fail like any other lost connection.
        """
        descriptor = self._descriptor
        if descriptor is None:
            return False
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
        return True

    def scrub(self) -> bool:
        """Leave nothing of removed texts in SQLite's files: write its log into the database, and empty it.

        On PostgreSQL that is the task of its vacuum.

        Returns:
            Whether it was possible. It is not while a reader still sees the rows as they were before.

        Raises:
            StoreError: The database does not answer.
        """
        if not self.is_sqlite:
            return True
        with store_errors(), closing(self.reader.raw_connection()) as connection:
            cursor = connection.cursor()
            try:
                cursor.execute(f"PRAGMA busy_timeout={SCRUB_WAIT}")
                busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                cursor.execute(f"PRAGMA busy_timeout={1000 * TIMEOUT_SECONDS}")
            except sqlite3.Error as error:
                connection.invalidate()
                raise as_store_error(error) from error
        return not busy
