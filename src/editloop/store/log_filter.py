"""Rows of the view `log` that a filter selects, in pages or as a stream.

`schema.log_view` describes the view, and what a row's status means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, or_, select

from editloop.store.paging import newest_page
from editloop.store.schema import log_view

__all__ = ["LogFilter", "log_page", "log_rows"]


@dataclass(frozen=True)
class LogFilter:
    """Which rows of the log are selected; None stands for all.

    Attributes:
        user: Who edited.
        policy: The arm that wrote the response.
        status: `edited`, `accepted`, `discarded`, `pending` or `expired`.
        since: The rows are of this time or later, in seconds since 1970.
        until: The rows are of an earlier time.
        text: A text that the context, the response, the edit or its reason contains; upper and lower case are
            the same.
    """

    user: str | None = None
    policy: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None

    def select(self) -> Select[Any]:
        """Return the query for these rows, in no particular order."""
        query = select(log_view)
        for column, value in (("user", self.user), ("policy", self.policy), ("status", self.status)):
            if value is not None:
                query = query.where(log_view.c[column] == value)
        if self.since is not None:
            query = query.where(log_view.c.time >= self.since)
        if self.until is not None:
            query = query.where(log_view.c.time < self.until)
        if self.text:
            columns = [log_view.c[name] for name in ("context", "response", "edit", "reason")]
            found = [column.icontains(self.text, autoescape=True) for column in columns]
            query = query.where(or_(*found))
        return query


def log_page(
    connection: Connection, which: LogFilter, limit: int, before: tuple[float, str] | None = None
) -> Sequence[Row[Any]]:
    """Return a page of the log, the newest rows first.

    Args:
        connection: To the store.
        which: The rows that are selected.
        limit: The most rows of the page.
        before: Time and id of the last row of the previous page; None for the first page.
    """
    return newest_page(connection, which.select(), log_view.c.time, log_view.c.id, limit, before)


def log_rows(connection: Connection, which: LogFilter) -> Iterator[Row[Any]]:
    """Yield the rows of the log that are selected, the oldest first."""
    yield from connection.execute(which.select().order_by(log_view.c.time, log_view.c.id))
