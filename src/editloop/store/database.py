"""The store: SQLite by default, PostgreSQL for several replicas, the same tables on both.

It is opened, brought to this version's schema, and read here. All that is written goes through one thread
(`editloop.serve.loop.writer`), so that many requests share a commit.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import lock_descriptor
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
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
from editloop.store.schema import events, facts

__all__ = ["ONE_AT_A_TIME", "PATIENCE", "UNREACHABLE", "Store", "down", "newer", "storing"]

T = TypeVar("T")

log = logging.getLogger("editloop.store")

PATIENCE = 5
"""Seconds after which a database that does not answer is taken to be down."""

SCRUB_WAIT = 100
"""Milliseconds for which writers wait at most while the log of writes is to be emptied."""

ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(26011905)")
"""What keeps PostgreSQL's writers apart until the transaction ends."""

REVISION = "2"
"""Of the schema: the last of `editloop.store.migrations.versions`."""


UNREACHABLE = (OperationalError, InterfaceError, NoConnectionError, sqlite3.OperationalError, OSError)
"""What a database raises that does not answer; anything else is wrong with what it was asked, or with it."""


@contextmanager
def storing() -> Iterator[None]:
    """What the database raises, as one line.

    Raises:
        StoreUnreachableError: In place of what says that it does not answer.
        StoreError: In place of all else.
    """
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise down(error) from error


def down(error: Exception) -> StoreError:
    """What a database raises, in a line; whether it does not answer is told by its type alone."""
    reason = (str(getattr(error, "orig", None) or error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, UNREACHABLE):
        return StoreUnreachableError(f"the store does not answer: {reason}")
    return StoreError(f"the store cannot be used: {reason}")


class Store:
    """A database of events and texts.

    Args:
        url: `sqlite:///edits.db`, `postgresql://user@host/name`, or the path of a SQLite file.

    Attributes:
        reader: Its connections read.
        writer: Its connection, one at a time, writes.
        descriptor: Of the socket of that connection, if there is one.

    Raises:
        StoreError: No such kind of database.
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
        self.descriptor: int | None = None
        try:
            self.reader, self.writer = self._engine("BEGIN"), self._engine("BEGIN IMMEDIATE")
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise StoreError("no such kind of database", seen=url, do="use sqlite or postgresql") from error
        if not self.is_sqlite:
            event.listen(self.writer, "connect", self._connected)
            event.listen(self.writer, "close", self._disconnected)

    def _connected(self, connection: Any, _: Any) -> None:
        self.descriptor = connection.fileno()

    def _disconnected(self, *_: Any) -> None:
        self.descriptor = None

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def _engine(self, begin: str) -> Engine:
        if not self.is_sqlite:
            options = {
                "connect_timeout": PATIENCE,
                "tcp_user_timeout": 1000 * PATIENCE,
                "options": f"-c statement_timeout={1000 * PATIENCE}",
            }
            return create_engine(self.url, connect_args=options, pool_pre_ping=True, hide_parameters=True)
        timeout = {"timeout": PATIENCE}
        engine = create_engine(self.url, connect_args=timeout, poolclass=QueuePool, hide_parameters=True)

        @event.listens_for(engine, "connect")
        def settings(connection: Any, _: Any) -> None:
            connection.isolation_level = None  # transactions begin where we say so
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA secure_delete=ON")

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    def open(self, *, claim: bool = True) -> None:
        """Bring the database to this version's schema.

        Args:
            claim: Whether a SQLite file is this process's alone from here on, as that of a server is.

        Raises:
            StoreError: It does not answer, a newer version wrote it, or another process has it.
        """
        if self.is_sqlite and claim:
            self._claim()
        with storing(), self.writer.begin() as connection:
            if not self.is_sqlite:
                connection.execute(ONE_AT_A_TIME)
            before = migrate(connection, str(self))
            if connection.scalar(select(facts.c.value).where(facts.c.name == "salt")) is None:
                connection.execute(facts.insert().values(name="salt", value=secrets.token_hex(16)))
        if self.is_sqlite and before == "1":
            self._rebuild()

    def _rebuild(self) -> None:
        """Write the file anew: in its free space are texts that earlier versions did not overwrite."""
        with storing(), closing(self.writer.raw_connection()) as connection:
            try:
                connection.cursor().execute("VACUUM")
            except sqlite3.Error as error:  # for want of room, say; the store can be used all the same
                log.warning("texts that were removed may still be in free space, %s: VACUUM %s", error, self)

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
            # A lock of the operating system: it ends with the process, however that ends.
            mine = lock_descriptor(self._lock, blocking=False)
        except OSError as error:
            self.close()
            raise StoreError(
                f"the store cannot be locked, {error.strerror}", seen=str(path), do="choose another --store"
            ) from error
        if not mine:
            self.close()
            raise StoreError(
                "another process serves from this store",
                seen=str(path),
                do="stop it, or use PostgreSQL for several",
            )

    def close(self) -> None:
        """Let go of connections and of the file."""
        self.reader.dispose()
        self.writer.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def scrub(self) -> bool:
        """Leave nothing of removed texts in SQLite's files: write its log into the database, and empty it.

        What PostgreSQL leaves behind is its vacuum's work.

        Returns:
            Whether that was possible: not while somebody reads what was there before.

        Raises:
            StoreError: The database does not answer.
        """
        if not self.is_sqlite:
            return True
        with storing(), closing(self.reader.raw_connection()) as connection:
            cursor = connection.cursor()
            try:
                cursor.execute(f"PRAGMA busy_timeout={SCRUB_WAIT}")
                busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                cursor.execute(f"PRAGMA busy_timeout={1000 * PATIENCE}")
            except sqlite3.Error as error:
                connection.invalidate()
                raise down(error) from error
        return not busy

    def read(self, query: Callable[[Connection], T]) -> T:
        """What a query finds.

        Raises:
            StoreError: The database does not answer.
        """
        with storing(), self.reader.connect() as connection:
            return query(connection)

    def fact(self, name: str) -> str:
        """One of the things that were fixed when the store was made."""
        return str(self.read(lambda c: c.scalar(select(facts.c.value).where(facts.c.name == name))))

    def last(self) -> int:
        """The number of events."""
        return self.read(lambda c: c.scalar(select(func.max(events.c.seq)))) or 0


def migrate(connection: Connection, name: str) -> str | None:
    """Run the migrations that a database lacks; returns which it had.

    Raises:
        StoreError: It has one that this version does not know.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", "editloop.store:migrations")
    config.attributes["connection"] = connection
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision == REVISION:
        return revision
    try:
        if revision is not None:
            ScriptDirectory.from_config(config).get_revision(revision)
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            f"the store {name} is of a newer version", seen=revision, do="update editloop"
        ) from error
    return revision


def newer(after: int) -> Any:
    """The query for the events after a number."""
    return select(events).where(events.c.seq > after).order_by(events.c.seq)
