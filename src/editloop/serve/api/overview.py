"""`/v1/overview`: what edits cost over time, what each arm did, and what the bandit believes.

The figures are sums that the database makes over `events`, by bin of time and by arm; here they only become
means and their errors. A response counts by the last revision of its edit, at the time of that edit. Texts
from elsewhere (`external`) are counted, but are no part of any other figure: no arm wrote them.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from sqlalchemy import Connection, Integer, Row, and_, case, cast, func, select

from editloop.intervals import mean_interval
from editloop.serve.api.state import room_of
from editloop.serve.loop.feedback import Live
from editloop.serve.problem import Problem
from editloop.store.schema import DECIDED, EXPIRED, events

__all__ = ["Sums", "router"]

router = APIRouter()

BINS, MOST_BINS = 30, 400
LATEST = 1e11
"""Seconds since 1970 that a period may reach to."""

DAY = 86_400.0
KEPT = "accepted"
"""The kind of an event that says that a draft was kept as it was."""


class Sums(NamedTuple):
    """Counts and summed costs of edits, as the database makes them.

    Attributes:
        n: How many.
        cost: Their summed cost.
        square: Their summed squared cost.
        kept: How many drafts among them were kept as they were.
    """

    n: int = 0
    cost: float = 0.0
    square: float = 0.0
    kept: int = 0

    def plus(self, other: Sums) -> Sums:
        """The sums over both."""
        return Sums(
            self.n + other.n, self.cost + other.cost, self.square + other.square, self.kept + other.kept
        )

    def figures(self) -> dict[str, Any]:
        """Mean, its standard error and 95% interval (Student's t), share kept; None where too few are known.

        Nor is there an interval where all cost the same, which says nothing of what the next one costs.

        No interval goes below 0, as no cost does.
        """
        mean = error = interval = None
        if self.n > 0:
            mean = self.cost / self.n
        if mean is not None and self.n > 1:
            variance = max(self.square - self.n * mean * mean, 0.0) / (self.n - 1)
            error = math.sqrt(variance / self.n)
            reach = mean_interval(mean, error, self.n)
            interval = [max(reach[0], 0.0), reach[1]] if reach else None
        return {
            "n": self.n,
            "mean": mean,
            "se": error,
            "interval": interval,
            "share_kept": self.kept / self.n if self.n else None,
        }


class _Period(NamedTuple):
    since: float
    until: float
    bins: int

    @property
    def width(self) -> float:
        return (self.until - self.since) / self.bins

    def times(self) -> list[float]:
        return [self.since + i * self.width for i in range(self.bins)]


@router.get("/v1/overview", tags=["policies"])
async def overview(
    request: Request,
    since: Annotated[
        float | None, Query(ge=0, le=LATEST, allow_inf_nan=False, description="By default the first event")
    ] = None,
    until: Annotated[
        float | None, Query(ge=0, le=LATEST, allow_inf_nan=False, description="By default now")
    ] = None,
    bins: Annotated[int, Query(ge=1, le=MOST_BINS)] = BINS,
    trim: Annotated[bool, Query(description="Begin with the period's first event")] = False,
    user: Annotated[str | None, Query(max_length=256, description="Whose beliefs")] = None,
) -> dict[str, Any]:
    """What the edits of a period cost, by time and by arm; and what is believed of the arms now."""
    live = room_of(request).live
    if user is not None and "\0" in user:
        raise Problem(400, "a user's name is not valid text", code="invalid_text", param="user")
    now = time.time()
    if since is not None and (now if until is None else until) < since + 1:
        raise Problem(400, "a period is a second at least", code="invalid_request", param="since", seen=since)
    answer: dict[str, Any] = {
        "object": "overview",
        "now": now,
        "cost": live.config.cost,
        "epoch": live.bandit.state.epoch,
        "down": live.down,
        "totals": None,
        "series": [],
        "arms": [],
        "beliefs": _beliefs(live, user),
    }
    played = live.bandit.arms

    def look(connection: Connection) -> dict[str, Any]:
        end = now if until is None else until
        begin = _first(connection, None if trim else since, since or 0.0, end)
        return _told(*_look(connection, _Period(begin, end, bins)), played)

    try:
        found: dict[str, Any] = await live.read(look)
    except Problem as problem:
        return answer | {"down": live.down or str(problem)}
    return answer | found


def _beliefs(live: Live, user: str | None) -> dict[str, Any]:
    """What the bandit believes that a user's edits of each arm cost."""
    pulls, observed, means = live.bandit.beliefs(live.scope_of(user))
    return {
        "user": user,
        "scope": live.scope,
        "arms": [
            {"arm": arm, "pulls": n, "observed": seen, "mean": mean if seen > 0 else None}
            for arm, n, seen, mean in zip(live.bandit.arms, pulls, observed, means, strict=True)
        ],
    }


def _first(connection: Connection, since: float | None, least: float, until: float) -> float:
    """When a period begins, where that is not given: with its first event."""
    if since is not None:
        return since
    first = connection.scalar(select(func.min(events.c.time)).where(events.c.time >= least))
    return min(until - DAY if first is None else first, until - 1)


def _look(connection: Connection, period: _Period) -> tuple[_Period, Sequence[Row[Any]]]:
    """The period, and the sums of what lies in it."""
    return period, connection.execute(_counted(connection, period)).all()


def _within(period: _Period) -> Any:
    return and_(events.c.time >= period.since, events.c.time < period.until)


def _counted(connection: Connection, period: _Period) -> Any:
    """Counts and summed costs of the period by bin, arm and kind of event, and how many are waited for.

    Of each response's events two count at most: the arm that answered at last, and the last revision of
    the feedback. Few responses have more, or none of the second; they are sought first, in an index that
    covers the search, so that the others need not be looked up one by one.
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
    sqlite = connection.dialect.name == "sqlite"  # it cuts where others round
    number = cast(place if sqlite else func.floor(place), Integer).label("bin")
    rows = (
        select(number, events.c.arm, events.c.kind, events.c.cost, odd.c.highest)
        .outerjoin_from(events, odd, odd.c.response_id == events.c.response_id)
        .where(
            _within(period),
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


def _told(period: _Period, rows: Iterable[Row[Any]], played: Sequence[str]) -> dict[str, Any]:
    """The figures as JSON types."""
    total = Sums()
    by_bin: dict[int, Sums] = {}
    by_arm: dict[str, Sums] = {}
    asked: Counter[str] = Counter()
    pending: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for row in rows:
        if row.kind in ("decided", "rerouted"):
            asked[row.arm] += row.n
            pending[row.arm] += row.pending
        elif row.kind in ("edited", KEPT):
            sums = Sums(row.n, row.cost, row.square, row.n if row.kind == KEPT else 0)
            place = min(row.bin, period.bins - 1)
            by_bin[place] = by_bin.get(place, Sums()).plus(sums)
            by_arm[row.arm] = by_arm.get(row.arm, Sums()).plus(sums)
            total = total.plus(sums)
        else:
            others[row.kind] += row.n
    everything = asked.total()
    retired = sorted((asked.keys() | by_arm.keys()) - set(played))
    figures = total.figures()
    return {
        "period": {"since": period.since, "until": period.until, "bins": period.bins},
        "totals": {
            "responses": everything,
            "edited": total.n - total.kept,
            "accepted": total.kept,
            "pending": pending.total(),
            "expired": others["expired"],
            "external": others["external"],
            "mean_cost": figures["mean"],
            **{name: figures[name] for name in ("se", "interval", "share_kept")},
        },
        "series": [
            {"time": moment, **by_bin.get(i, Sums()).figures()} for i, moment in enumerate(period.times())
        ],
        "arms": [
            {
                "arm": arm,
                "played": arm in played,
                "responses": asked[arm],
                "share": asked[arm] / everything if everything else None,
                "pending": pending[arm],
                **by_arm.get(arm, Sums()).figures(),
            }
            for arm in [*played, *retired]
        ],
    }
