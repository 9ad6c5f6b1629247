"""Pages of rows, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select

__all__ = ["newest_page"]


def newest_page(
    connection: Connection,
    query: Select[Any],
    time: ColumnElement[float],
    key: ColumnElement[str],
    limit: int,
    before: tuple[float, str] | None,
) -> Sequence[Row[Any]]:
    """Return a page of the rows that a query selects, the newest first.

    Args:
        connection: To the store.
        query: What selects the rows.
        time: The column of their times.
        key: The column of their identities, which orders rows of the same time.
        limit: The most rows of the page.
        before: Time and identity of the last row of the previous page; None for the first page.
    """
    # By the last row and not by an offset: rows that are added meanwhile would shift the pages.
    if before is not None:
        moment, last = before
        query = query.where((time < moment) | ((time == moment) & (key < last)))
    return connection.execute(query.order_by(time.desc(), key.desc()).limit(limit)).all()
