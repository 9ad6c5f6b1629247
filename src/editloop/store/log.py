"""The store as a log: a format of logs that reads the table or view `log` of a database.

A log has an address, `sqlite:///edits.db` or `postgresql://user@host/name`, as SQLAlchemy writes them.
`?since=` and `?until=` bound the times of its rows; they are seconds since 1970 or in ISO 8601, and so are
the times. `?part=0-0.1` takes a tenth of the contexts, by a hash, and `?part=0.1-1` the others. Any database
with such a table can be read, not only that of a server. The columns are a record's fields. Reading needs the
extra `serve`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editloop.edits.formats import LogFile, LogFormat, RawRow, Source
from editloop.errors import ConfigError, LogError, LogFormatError
from editloop.extras import requires
from editloop.io import parse_json

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

    from editloop.edits.record import Record

__all__ = ["DATABASE", "DatabaseLog"]

DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
"""The databases that can be read, with the names by which SQLAlchemy finds their drivers."""

ALL = (0.0, 1.0)
"""All contexts."""

BATCH_ROWS = 500
"""The number of rows that are fetched at a time, and whose revisions are looked up together."""


@dataclass(frozen=True)
class DatabaseLog:
    """Where a log in a database is. As a text it is the address without the password.

    Attributes:
        url: The address, without bounds.
        since: Its rows are of this time or later, in seconds since 1970; None for no bound.
        until: Its rows are of an earlier time, in seconds since 1970; None for no bound.
        part: The part of the contexts that it has, an interval in [0, 1].
    """

    url: URL = field(repr=False)
    since: float | None = None
    until: float | None = None
    part: tuple[float, float] = ALL

    def __str__(self) -> str:
        bounds = {"since": self.since, "until": self.until}
        query = {key: repr(value) for key, value in bounds.items() if value is not None}
        query |= {"part": f"{self.part[0]!r}-{self.part[1]!r}"} if self.part != ALL else {}
        return self.url.update_query_dict(query).render_as_string(hide_password=True)

    @property
    def name(self) -> str:
        """The database's name."""
        return Path(self.url.database or "").name

    @property
    def stem(self) -> str:
        """The name that files made from the log begin with."""
        return Path(self.name).stem

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database; None for a database on a server."""
        return Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None

    def now(self) -> DatabaseLog:
        """Return the log as it is at this moment: rows that are added later are left out."""
        return self if self.until is not None else replace(self, until=time.time())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows within the bounds, in the order of time.

        A server keeps all revisions of an edit. Those before the last are in `metadata["revisions"]`, the
        oldest first. The bounds have no effect on a log without a column `time`.

        Raises:
            LogError: The database does not answer.
            LogFormatError: The database has no log.
        """
        from sqlalchemy import Integer, MetaData, Numeric, Table, select
        from sqlalchemy.exc import NoSuchTableError

        from editloop.store import reads

        # Revisions are looked up on a second connection, because the first one is still giving rows.
        with self._connection() as connection, self._connection() as other:
            try:
                log = Table("log", MetaData(), autoload_with=connection)
            except NoSuchTableError as error:
                raise LogFormatError(
                    "the database has no log", seen=str(self), do="name that of a server"
                ) from error
            query, in_bounds = select(log), True
            if "time" in log.c:
                query = query.order_by(log.c.time, *([log.c.id] if "id" in log.c else []))
                # A database compares a text with a number by their types, not by what they mean. So only
                # numbers are compared by it, and other times are read row by row.
                in_bounds = isinstance(log.c.time.type, (Integer, Numeric))
                if in_bounds and self.since is not None:
                    query = query.where(log.c.time >= self.since)
                if in_bounds and self.until is not None:
                    query = query.where(log.c.time < self.until)
            is_store = reads.is_store(connection)
            selected = connection.execution_options(yield_per=BATCH_ROWS).execute(query)
            for some in selected.partitions():
                found = (_parsed(row._mapping) for row in some)
                rows = [row for row in found if self.part == ALL or self._has(row.get("context"))]
                rows = rows if in_bounds else [row for row in rows if self._contains(row["time"])]
                if is_store:
                    rows = list(map(as_log_row, rows))
                    _add_revisions(rows, reads.revision_texts(other, [row["id"] for row in rows]))
                yield from rows

    @property
    def has_files(self) -> bool:
        """False: other tables change the file of a database, too."""
        return False

    def sha256(self) -> str:
        """Refuse: the hash of a database comes from its rows."""
        raise NotImplementedError

    def open(self, wanted: Collection[str] | None = None) -> Source:
        """Open the log; nothing is read before the first row is taken."""
        numbered = enumerate(self.rows(), start=1)
        return Source(DATABASE, None, 0, (RawRow(number, number, row) for number, row in numbered))

    def salt(self) -> str | None:
        """Return the random value that identifies a server's store; None for any other database."""
        from editloop.store import reads
        from editloop.store.schema import SALT

        with self._connection() as connection:
            return reads.fact(connection, SALT) if reads.is_store(connection) else None

    def _has(self, context: object) -> bool:
        """Whether a context belongs to the part. The same context always does, or never."""
        text = json.dumps(context, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        place = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64
        return self.part[0] <= place < self.part[1]

    def policies(self) -> dict[str, tuple[str, str]]:
        """Return the run folder of each policy and its name in it, by arm; none of any other database."""
        from editloop.store import reads

        with self._connection() as connection:
            return reads.policy_locations(connection) if reads.is_store(connection) else {}

    def _contains(self, moment: object) -> bool:
        """Whether a time is within the bounds. One that cannot be read is: the row is kept without it."""
        seconds = _seconds(moment)
        if seconds is None:
            return True
        return (self.since is None or seconds >= self.since) and (self.until is None or seconds < self.until)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Give a connection, and raise the errors of the database as an error of one line."""
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError

        kind = self.url.get_backend_name()
        if kind not in DRIVERS:
            raise ConfigError("no such kind of database", seen=kind, do="use sqlite or postgresql")
        if kind == "sqlite" and not Path(self.url.database or "").is_file():  # SQLite would create it
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


def as_log_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the view `log` with its edit's reason and seconds of work where a record keeps them.

    That is its metadata.
    """
    found = dict(row)
    more = {name: found.pop(name, None) for name in ("reason", "edit_seconds")}
    metadata = found.get("metadata") or {}
    if isinstance(metadata, dict):
        found["metadata"] = {**metadata, **{k: v for k, v in more.items() if v is not None}}
    return found


def _add_revisions(rows: list[dict[str, Any]], texts: Mapping[str, list[str]]) -> None:
    """Add the revisions before the last to the metadata of a server's rows."""
    for row in rows:
        revisions, metadata = texts.get(row["id"], []), row.get("metadata") or {}
        if row["edit"] in revisions and isinstance(metadata, dict):
            # The two connections see the store at different moments: a revision that came in between is left
            # out.
            last = len(revisions) - 1 - revisions[::-1].index(row["edit"])
            if last:
                row["metadata"] = {**metadata, "revisions": revisions[:last]}


def _parsed(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the columns of a row; a server stores contexts and metadata as JSON."""
    columns = dict(row)
    for name in ("context", "metadata"):
        if isinstance(columns.get(name), str):
            try:
                columns[name] = parse_json(columns[name])
            except ValueError:
                continue  # a plain text
    return columns


def _bound(text: str) -> float:
    """Return a bound of an address in seconds since 1970."""
    seconds = _seconds(text)
    if seconds is None:
        raise ConfigError("not a time", seen=text, do="give seconds since 1970, or 2026-01-31T12:00")
    return seconds


def _part(text: str) -> tuple[float, float]:
    """Return a part of the contexts as an interval."""
    try:
        low, high = (float(each) for each in text.split("-"))
        if not 0 <= low < high <= 1:
            raise ValueError
    except ValueError as error:
        raise ConfigError("not a part of a log", seen=text, do="give two shares, as in 0.1-1") from error
    return low, high


def _seconds(moment: object) -> float | None:
    """Return a time in seconds since 1970, or None if it cannot be read; without a zone it is in UTC."""
    if isinstance(moment, str):
        with suppress(ValueError):
            return float(moment)
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return None
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return float(moment) if isinstance(moment, (int, float)) else None


class _DatabaseFormat(LogFormat):
    """The format of logs that have an address. A database file that is named by its path is refused."""

    name = "database"
    magic = b"SQLite format 3"
    schemes = tuple(DRIVERS)
    checks_context = False

    def open(self, log: LogFile) -> Source:
        raise LogFormatError("a database is named by its address", seen=str(log.name), do="sqlite:///PATH")

    def locate(self, address: str) -> DatabaseLog:
        requires("serve", "sqlalchemy")
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(address)
        except ArgumentError as error:
            raise ConfigError("not the address of a database", seen=address) from error
        bounds = {name: _bound(str(url.query[name])) for name in ("since", "until") if name in url.query}
        part = _part(str(url.query["part"])) if "part" in url.query else ALL
        return DatabaseLog(url.difference_update_query(["since", "until", "part"]), **bounds, part=part)

    def write(self, records: Iterator[Record], path: Path) -> None:
        raise LogFormatError("a database is not written to", seen=str(path), do="write a file")


DATABASE = _DatabaseFormat()
