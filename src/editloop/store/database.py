"""The store: SQLite by default, PostgreSQL for several replicas, with the same tables on both.

A `Store` opens and locks the database, and gives connections. The queries that are run on them are in
`reads`, `log_filter` and `sums`, and what is written is in `writes`.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, RootTransaction, Row, create_engine, event, make_url, select
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.pool import QueuePool

from editloop.errors import StoreError, StoreUnreachableError
from editloop.io import lock_file
from editloop.store import locks, reads, writes
from editloop.store.migrate import migrate
from editloop.store.schema import SALT, TOKEN_SECRET

__all__ = ["TIMEOUT_SECONDS", "Connection", "Row", "Store", "as_store_error", "store_errors"]

T = TypeVar("T")

log = logging.getLogger("editloop.store")

TIMEOUT_SECONDS = 5
"""A database that does not answer within so many seconds is treated as down."""

IDLE_SECONDS = 4
"""A transaction that writes is ended if its process does nothing for so many seconds; it may be paused. These
are fewer than the timeout of whoever waits for its locks."""

STREAM_ROWS = 1000
"""The number of rows that a stream fetches at a time."""

SCRUB_WAIT = 100
"""Milliseconds for which emptying SQLite's write-ahead log may make writers wait."""

UNREACHABLE = (OperationalError, InterfaceError, NoConnectionError, sqlite3.OperationalError, OSError)


def _is_unreachable(error: Exception) -> bool:
    """Whether the database does not answer. Any other error means that the query or the data is wrong."""
    # PostgreSQL ends a transaction that waits for too long with an error of another type.
    return isinstance(error, UNREACHABLE) or (isinstance(error, DBAPIError) and error.connection_invalidated)


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
    """Return an error of the database as an error of one line.

    Whether it is unreachable is not decided by the text, which differs by database, version and language.
    """
    reason = (str(getattr(error, "orig", None) or error).strip() or type(error).__name__).splitlines()[0]
    if _is_unreachable(error):
        return StoreUnreachableError(f"the store does not answer: {reason}")
    return StoreError(f"the store cannot be used: {reason}")


class Store:
    """A database of events and texts.

    Args:
        url: `sqlite:///edits.db`, `postgresql://user@host/name`, or the path of a SQLite file.

    Attributes:
        reader: The engine for reading; it may have several connections at a time.
        writer: The engine for writing, of which one connection is used at a time.

    Raises:
        StoreError: The address is not that of a database that can be used.
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
        self._lock: int | None = None  # descriptor of the locked file beside a SQLite database
        self._descriptor: int | None = None  # of the socket to PostgreSQL over which is written
        try:
            self.reader, self.writer = self._engine(writes=False), self._engine(writes=True)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise StoreError("no such kind of database", seen=url, do="use sqlite or postgresql") from error
        self._is_closed = False
        for engine in (self.reader, self.writer):
            event.listen(engine, "checkin", self._returned)
        if not self.is_sqlite:
            event.listen(self.writer, "connect", self._connected)
            event.listen(self.writer, "close", self._disconnected)

    def _connected(self, connection: Any, _: Any) -> None:
        self._descriptor = connection.fileno()

    def _disconnected(self, *_: Any) -> None:
        self._descriptor = None

    def _returned(self, _: Any, record: Any) -> None:
        """Close a connection that was in use when the store was closed, which released only idle ones."""
        if self._is_closed:
            record.invalidate()

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def _engine(self, *, writes: bool) -> Engine:
        """Return an engine for reading or for writing.

        On SQLite, a transaction that writes begins with `BEGIN IMMEDIATE`, which takes the write lock at
        once. One that began by reading could not take it any more once another one has written in between,
        and would fail instead of waiting.
        """
        if not self.is_sqlite:
            limits = f"-c statement_timeout={1000 * TIMEOUT_SECONDS}"
            if writes:  # what is read after a lock was waited for must not be what was there before (`locks`)
                limits += f" -c idle_in_transaction_session_timeout={1000 * IDLE_SECONDS}"
                limits += r" -c default_transaction_isolation=read\ committed"
            options: dict[str, Any] = {
                "connect_timeout": TIMEOUT_SECONDS,
                "tcp_user_timeout": 1000 * TIMEOUT_SECONDS,
                "options": limits,
            }
            # A ping before each use replaces connections that the database has closed (`_begun` for those
            # that write). Errors do not show the parameters, because they go to logs, and parameters are
            # users' texts.
            return create_engine(
                self.url, connect_args=options, pool_pre_ping=not writes, hide_parameters=True
            )
        options = {"timeout": TIMEOUT_SECONDS}
        engine = create_engine(self.url, connect_args=options, poolclass=QueuePool, hide_parameters=True)

        @event.listens_for(engine, "connect")
        def settings(connection: Any, _: Any) -> None:
            # Python's driver begins a transaction only before a write, so that two reads of one connection
            # might see different states. It must not begin any; `start` does, for reads, too.
            connection.isolation_level = None
            connection.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not wait for each other
            connection.execute("PRAGMA synchronous=FULL")  # a commit is on the disk when it is acknowledged
            connection.execute("PRAGMA secure_delete=ON")  # texts that are removed are overwritten with zeros

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    # Opening and closing

    def open(self, *, claim: bool = True) -> None:
        """Bring the database to this version's schema.

        Args:
            claim: Whether this process alone may serve from a SQLite file from now on. Tools that only look,
                or make keys, do not claim it.

        Raises:
            StoreError: The database does not answer, a newer version wrote it, or another process holds it.
        """
        self._is_closed = False
        if self.is_sqlite and claim:
            self._claim()
        # In one transaction, so that of two processes that open a new database at once the second one finds
        # it migrated, and a kill leaves the old schema.
        with store_errors(), self.transaction(patient=True) as connection:
            before = migrate(connection, str(self))
            for name, size in ((SALT, 16), (TOKEN_SECRET, 32)):
                if reads.fact(connection, name) is None:
                    writes.set_fact(connection, name, secrets.token_hex(size))
        if self.is_sqlite and before == "1":
            self._rebuild()

    def _rebuild(self) -> None:
        """Write the file anew. Its free space holds removed texts, which the first version did not overwrite.

        It runs after the migration, because VACUUM cannot be part of a transaction.
        """
        with store_errors(), closing(self.writer.raw_connection()) as connection:
            try:
                connection.cursor().execute("VACUUM")
            except sqlite3.Error as error:  # a full disk, for example; the store can be used all the same
                what = "removed texts may still be in the free space of %s, because VACUUM failed: %s"
                log.warning(what, self, error)

    def _claim(self) -> None:
        """Lock a file beside a SQLite database, for as long as this process lives or until `close`.

        Not the database itself: tools may read it and write to it while a server runs.
        """
        assert self.url.database is not None
        path = Path(self.url.database)
        try:
            self._lock = lock_file(Path(f"{path}.lock"))
        except OSError as error:
            raise StoreError(
                f"the store cannot be written, {error.strerror}", seen=str(path), do="choose another --store"
            ) from error
        if self._lock is None:
            self.close()
            raise StoreError(
                "another process serves from this store",
                seen=str(path),
                do="stop it, or use PostgreSQL for several",
            )

    def close(self) -> None:
        """Release the connections and the lock. A connection that is in use is closed when it is done."""
        self._is_closed = True
        self.reader.dispose()
        self.writer.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Reading

    def read(self, query: Callable[[Connection], T]) -> T:
        """Return what a query finds, usually a function of `reads`.

        Raises:
            StoreError: The database does not answer, or the query is wrong.
        """
        with store_errors(), self.reader.connect() as connection:
            return query(connection)

    def stream(self, query: Callable[[Connection], Iterator[T]]) -> Iterator[T]:
        """Yield what a query finds, fetched some rows at a time. The connection is in use until the last one.

        Raises:
            StoreError: The database does not answer.
        """
        with store_errors(), self.reader.connect() as connection:
            yield from query(connection.execution_options(yield_per=STREAM_ROWS))

    def fact(self, name: str) -> str:
        """Return a fact about the whole store."""
        return str(self.read(lambda c: reads.fact(c, name)))

    def last(self) -> int:
        """Return the number of the last event, which is also how many events there are."""
        return self.read(reads.last_seq)

    # Writing

    @contextmanager
    def transaction(
        self, names: Collection[str] | None = None, *, patient: bool = False
    ) -> Iterator[Connection]:
        """Give the connection of a transaction that writes.

        It is committed when the block ends, and undone if the block raises. On SQLite it excludes all others.

        Args:
            names: What it depends on, by names such as those of responses: others that depend on the same
                wait for its end. None excludes all other writers of all replicas.
            patient: Whether the block may compute for longer than `IDLE_SECONDS` between two statements.

        Raises:
            StoreUnreachableError: The database does not answer. Nothing was written, or, if the connection
                was lost during the commit, it is not known whether it was. Other errors are raised as they
                are, because what was written is at fault, not the store.
        """
        try:
            connection, transaction = self._begun(lambda made: self._locked(made, names))
            with connection, transaction:
                if patient and not self.is_sqlite:
                    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
                yield connection
        except Exception as error:
            if _is_unreachable(error):
                raise as_store_error(error) from error
            raise

    def follow(self, query: Callable[[Connection], T]) -> T:
        """Return what a query finds. On PostgreSQL, each of its statements sees what was committed before it.

        It uses the connection that writes, so that it can be cut, too (`cut_writer`).

        Raises:
            StoreError: The database does not answer.
        """
        if self.is_sqlite:
            return self.read(query)
        with store_errors():
            connection, found = self._begun(
                lambda made: query(made.execution_options(isolation_level="AUTOCOMMIT"))
            )
            connection.close()
            return found

    def _locked(self, connection: Connection, names: Collection[str] | None) -> RootTransaction:
        """Begin a transaction that has its locks."""
        transaction = connection.begin()  # on SQLite it is such a lock
        if not self.is_sqlite:
            locks.lock_writers(connection, names)
        return transaction

    def _begun(self, work: Callable[[Connection], T]) -> tuple[Connection, T]:
        """Return a connection that writes, and what the first work by it returned.

        It is tried again if the database has closed the connection while that was idle. A ping before each
        use would find that out, too, as a part of every commit.
        """
        for may_be_closed in (True, False):
            connection = self.writer.connect()
            try:
                return connection, work(connection)
            except BaseException as error:
                connection.close()
                is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
                if not (is_lost and may_be_closed):
                    raise
        raise AssertionError("the second attempt returns or raises")

    def answers(self) -> bool:
        """Whether the database answers now. Asking may take as long as the timeout."""
        try:
            with self.reader.connect() as connection:
                connection.execute(select(1))
        except (SQLAlchemyError, OSError):
            return False
        return True

    def cut_writer(self) -> bool:
        """Shut down the socket of the connection that writes; returns whether there was one.

        The client library's timeouts do not help if the machine of the database acknowledges what is sent
        while the database itself is paused: `tcp_user_timeout` sees acknowledged bytes, and the database is
        the one that watches `statement_timeout`. A write would then wait for ever in the library. Shutting
        down the socket makes it fail like any other lost connection. A copy of the descriptor is enough for
        that, and leaves the closing of the connection to its owner.
        """
        descriptor = self._descriptor
        if descriptor is None:
            return False
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
        return True

    def scrub(self) -> bool:
        """Remove what SQLite's write-ahead log still holds of removed texts.

        The log is written into the database file and cut to nothing. On PostgreSQL its vacuum does such work.

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
                # A checkpoint holds the write lock while it waits for readers, so it must not wait for long.
                cursor.execute(f"PRAGMA busy_timeout={SCRUB_WAIT}")
                busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                cursor.execute(f"PRAGMA busy_timeout={1000 * TIMEOUT_SECONDS}")
            except sqlite3.Error as error:
                connection.invalidate()  # not back to the pool, where the short timeout would stay with it
                raise as_store_error(error) from error
        return not busy
