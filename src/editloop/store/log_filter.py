"""The view `log`, filtered: in pages or as a stream. `schema.log_view` says what a row's status means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from editloop.store.schema import log_view

__all__ = ["LogFilter", "log_page", "log_rows"]


@dataclass(frozen=True)
class LogFilter:
    """Which rows of the log are meant; None stands for all.

    Attributes:
        user: Who edited.
        policy: The arm that wrote the response.
        status: `edited`, `accepted`, `pending` or `expired`.
        since: First time, in seconds since 1970.
        until: End of the times.
        text: What the context, the response or the edit contains, in upper or lower case.
    """

    user: str | None = None
    policy: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None

    def select(self) -> Select[Any]:
        """The query for these rows, in no particular order."""
        query = select(log_view)
        for column, value in (("user", self.user), ("policy", self.policy), ("status", self.status)):
            if value is not None:
                query = query.where(log_view.c[column] == value)
        if self.since is not None:
            query = query.where(log_view.c.time >= self.since)
        if self.until is not None:
            query = query.where(log_view.c.time < self.until)
        if self.text:
            columns = [log_view.c[name] for name in ("context", "response", "edit")]
            found = [column.icontains(self.text, autoescape=True) for column in columns]
            query = query.where(found[0] | found[1] | found[2])
        return query


def log_page(
    connection: Connection, which: LogFilter, limit: int, before: tuple[float, str] | None = None
) -> Sequence[Row[Any]]:
    """Rows of the log, the newest first.

    Args:
        connection: To the store.
        which: The rows that are meant.
        limit: How many at most.
        before: Time and identity of the row before which the page begins: those of the last row of the page
            before it.
    """
    query = which.select()
    if before is not None:
        moment, response_id = before
        same_time = (log_view.c.time == moment) & (log_view.c.id < response_id)
        query = query.where((log_view.c.time < moment) | same_time)
    query = query.order_by(log_view.c.time.desc(), log_view.c.id.desc()).limit(limit)
    return connection.execute(query).all()


def log_rows(connection: Connection, which: LogFilter) -> Iterator[Row[Any]]:
    """Rows of the log, the oldest first."""
    yield from connection.execute(which.select().order_by(log_view.c.time, log_view.c.id))
