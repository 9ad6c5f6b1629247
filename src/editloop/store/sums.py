"""Counts and summed costs of a period, by bin of time, arm and kind of event: one query for the overview."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, Row, Select, and_, case, cast, func, select

from editloop.store.schema import DECIDED, EXPIRED, events

__all__ = ["Period", "first_event", "period_sums"]


class Period(NamedTuple):
    """A stretch of time in bins of equal width.

    Attributes:
        since: Its begin, in seconds since 1970.
        until: Its end.
        bins: How many bins it is divided into.
    """

    since: float
    until: float
    bins: int

    @property
    def width(self) -> float:
        """Seconds of a bin."""
        return (self.until - self.since) / self.bins

    def times(self) -> list[float]:
        """The begin of each bin."""
        return [self.since + i * self.width for i in range(self.bins)]


def first_event(connection: Connection, since: float) -> float | None:
    """The time of the first event at or after a time; None if there is none."""
    found: float | None = connection.scalar(select(func.min(events.c.time)).where(events.c.time >= since))
    return found


def period_sums(connection: Connection, period: Period) -> Sequence[Row[Any]]:
    """Rows of `bin`, `arm`, `kind`, `n`, `cost`, `square` (the sum of squared costs) and `pending`."""
    return connection.execute(_sums(period, is_sqlite=connection.dialect.name == "sqlite")).all()


def _sums(period: Period, *, is_sqlite: bool) -> Select[Any]:
    """The query of `period_sums`.

    Of each response's events at most two count: the arm that answered last, and the last revision of the
    feedback. The few responses that have more events than these, or no feedback, are found first, by a search
    that an index covers; otherwise the database would have to look up each event's response one by one.
    """
    lowest, highest = func.min(events.c.revision), func.max(events.c.revision)
    answers = func.count(case((events.c.revision >= EXPIRED, 1)))
    odd = (
        select(events.c.response_id, lowest.label("lowest"), highest.label("highest"))
        .where(events.c.response_id.is_not(None))
        .group_by(events.c.response_id)
        .having((lowest < DECIDED) | (answers != 1))
        .cte("odd")
    )
    valid = case((events.c.revision <= DECIDED, odd.c.lowest), else_=odd.c.highest)
    place = (events.c.time - period.since) / period.width
    number = cast(place if is_sqlite else func.floor(place), Integer).label("bin")  # SQLite's cast truncates
    rows = (
        select(number, events.c.arm, events.c.kind, events.c.cost, odd.c.highest)
        .outerjoin_from(events, odd, odd.c.response_id == events.c.response_id)
        .where(
            and_(events.c.time >= period.since, events.c.time < period.until),
            events.c.kind != "arms",
            odd.c.response_id.is_(None) | (events.c.revision == valid),
        )
        .subquery()
    )
    return select(
        rows.c.bin,
        rows.c.arm,
        rows.c.kind,
        func.count().label("n"),
        func.sum(rows.c.cost).label("cost"),
        func.sum(rows.c.cost * rows.c.cost).label("square"),
        func.count().filter(rows.c.highest <= DECIDED).label("pending"),
    ).group_by(rows.c.bin, rows.c.arm, rows.c.kind)
