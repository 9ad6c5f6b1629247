"""A log in a database: the table or view `log`, whose columns are a record's fields.

`sqlite:///edits.db` or `postgresql://user@host/name`, as SQLAlchemy has them; `?since=` and `?until=` bound
the times of the rows (seconds since 1970, or ISO 8601). The report of reading tells until when a log was read
that goes on growing. Needs the extra `serve`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editloop.errors import ConfigError, LogError, LogFormatError
from editloop.extras import requires
from editloop.io import parse_json

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

__all__ = ["DatabaseLog", "locate"]

DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
AT_ONCE = 500


@dataclass(frozen=True)
class DatabaseLog:
    """Where a log in a database is.

    Attributes:
        url: The address, without bounds; `str` of the whole does not show a password.
        since: First time of its rows, if bounded.
        until: End of their times.
    """

    url: URL = field(repr=False)
    since: float | None = None
    until: float | None = None

    def __str__(self) -> str:
        bounds = {"since": self.since, "until": self.until}
        query = {key: repr(value) for key, value in bounds.items() if value is not None}
        return self.url.update_query_dict(query).render_as_string(hide_password=True)

    @property
    def name(self) -> str:
        """Of the database."""
        return Path(self.url.database or "").name

    @property
    def stem(self) -> str:
        """Of the database, for files that are made from it."""
        return Path(self.name).stem

    @property
    def file(self) -> Path | None:
        """The file that the database is, if it is one."""
        return Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None

    def now(self) -> DatabaseLog:
        """The log as it is at this moment."""
        return self if self.until is not None else replace(self, until=time.time())

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows within the bounds, in the order of time.

        Where a server keeps all revisions of an edit, those before the last are in `metadata["revisions"]`,
        the first one first.

        Raises:
            LogError: The database does not answer.
            LogFormatError: It has no log.
        """
        from sqlalchemy import MetaData, Table, select
        from sqlalchemy.exc import NoSuchTableError

        from editloop.store import reads

        # Revisions are looked up through a second connection, since the first one is being read from.
        with self._connection() as connection, self._connection() as other:
            try:
                log = Table("log", MetaData(), autoload_with=connection)
            except NoSuchTableError as error:
                raise LogFormatError(
                    "the database has no log", seen=str(self), do="name that of a server"
                ) from error
            query = select(log)
            if "time" in log.c:
                query = query.order_by(log.c.time, *([log.c.id] if "id" in log.c else []))
                query = query if self.since is None else query.where(log.c.time >= self.since)
                query = query if self.until is None else query.where(log.c.time < self.until)
            is_store = reads.is_store(connection)
            found = connection.execution_options(yield_per=AT_ONCE).execute(query)
            for some in found.partitions():
                rows = [_parsed(row._mapping) for row in some]
                if is_store:
                    _add_revisions(rows, reads.revision_texts(other, [row["id"] for row in rows]))
                yield from rows

    def salt(self) -> str | None:
        """What a server's store is known by; None for another database."""
        from editloop.store import reads
        from editloop.store.schema import SALT

        with self._connection() as connection:
            return reads.fact(connection, SALT) if reads.is_store(connection) else None

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection, and what goes wrong with it as one line."""
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError

        kind = self.url.get_backend_name()
        if kind not in DRIVERS:
            raise ConfigError("no such kind of database", seen=kind, do="use sqlite or postgresql")
        if kind == "sqlite" and not Path(self.url.database or "").is_file():  # it would be made
            raise LogError("no such log", seen=str(self), do="check the path")
        try:
            engine = create_engine(self.url.set(drivername=DRIVERS[kind]))
            try:
                with engine.connect() as connection:
                    yield connection
            finally:
                engine.dispose()
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise LogError(f"the log cannot be read, {reason}", seen=str(self)) from error


def _add_revisions(rows: list[dict[str, Any]], texts: Mapping[str, list[str]]) -> None:
    """Put the texts that a user left before the last one into the metadata of a server's rows."""
    for row in rows:
        mine, metadata = texts.get(row["id"], []), row.get("metadata") or {}
        if row["edit"] in mine and isinstance(metadata, dict):
            last = len(mine) - 1 - mine[::-1].index(row["edit"])  # none that came since the row was read
            if last:
                row["metadata"] = {**metadata, "revisions": mine[:last]}


def _parsed(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row's columns; a chat and metadata stand in it as JSON."""
    columns = dict(row)
    for name in ("context", "metadata"):
        if isinstance(columns.get(name), str):
            try:
                columns[name] = parse_json(columns[name])
            except ValueError:
                continue  # a plain text
    return columns


def locate(log: str | Path | DatabaseLog) -> Path | DatabaseLog:
    """A log's path, or where it is in a database.

    Raises:
        ConfigError: Not the address of a database, or a bound that is no time.
        MissingExtraError: SQLAlchemy is not installed.
    """
    if isinstance(log, (Path, DatabaseLog)):
        return log
    if "://" not in log:
        return Path(log)
    requires("serve", "sqlalchemy")
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(log)
    except ArgumentError as error:
        raise ConfigError("not the address of a database", seen=log) from error
    bounds = {name: _seconds(str(url.query[name])) for name in ("since", "until") if name in url.query}
    return DatabaseLog(url.difference_update_query(["since", "until"]), **bounds)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("not a time", seen=text, do="seconds since 1970, or 2026-01-31T12:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
