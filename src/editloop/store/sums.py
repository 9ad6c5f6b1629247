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
        since: Its beginning, in seconds since 1970.
        until: Its end, which is not part of it.
        bins: The number of bins.
    """

    since: float
    until: float
    bins: int

    @property
    def width(self) -> float:
        """The length of a bin in seconds."""
        return (self.until - self.since) / self.bins

    def times(self) -> list[float]:
        """Return the beginning of each bin."""
        return [self.since + i * self.width for i in range(self.bins)]


def first_event(connection: Connection, since: float) -> float | None:
    """Return the time of the first event at or after a time; None if there is none."""
    found: float | None = connection.scalar(select(func.min(events.c.time)).where(events.c.time >= since))
    return found


def period_sums(connection: Connection, period: Period) -> Sequence[Row[Any]]:
    """Return rows with the sums of a period, one for each bin, arm and kind of event that occurs.

    A row has `bin` (from 0; by rounding, an event at the very end may be in the bin after the last), `arm`,
    `kind`, `n` (the number of events), `cost` and `square` (the sums of costs and of squared costs), and
    `pending` (how many decisions have no feedback).
    """
    return connection.execute(_sums(period, is_sqlite=connection.dialect.name == "sqlite")).all()


def _sums(period: Period, *, is_sqlite: bool) -> Select[Any]:
    """Return the query of `period_sums`.

    At most two events of a response count: the arm that answered last, and the last revision of the feedback.
    Most responses have exactly one of each. The few that have more, or no feedback, are found first (`odd`),
    by a search for which the index `events_once` is enough; otherwise the database would have to look up the
    other events of every event's response.
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
    # Of an odd response: reroutes have lower revisions than the decision, later edits have higher ones.
    valid = case((events.c.revision <= DECIDED, odd.c.lowest), else_=odd.c.highest)
    place = (events.c.time - period.since) / period.width
    # SQLite has no `floor` everywhere, but its cast truncates; PostgreSQL's rounds. Places are not negative.
    number = cast(place if is_sqlite else func.floor(place), Integer).label("bin")
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
        # The highest revision of such a response is its decision: there is no feedback.
        func.count().filter(rows.c.highest <= DECIDED).label("pending"),
    ).group_by(rows.c.bin, rows.c.arm, rows.c.kind)
