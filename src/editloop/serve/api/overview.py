"""`/v1/overview`: what edits cost over time, what each arm did, and what the bandit believes.

The database computes sums over `events`, by bin of time and by arm (`editloop.store.sums`). This module turns
the sums into means and their errors. A response counts with the last revision of its edit, at the time of
that edit. Edits of texts from elsewhere (`external`) are counted, but enter no other figure, because no arm
wrote them.

Intervals of a period are Student's, for someone who looks once. Those of an arm's lifetime are confidence
sequences (`editloop.online.sequences`): they hold at all times at once, however often the page is looked at.
"""

from __future__ import annotations

import math
import operator
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request

from editloop.edits.cost import describe_cost
from editloop.intervals import mean_interval
from editloop.serve.api.parameters import Since, Until
from editloop.serve.api.state import get_state
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.problem import Problem
from editloop.store.database import Connection, Row
from editloop.store.sums import Period, first_event, period_sums

__all__ = ["Sums", "router"]

router = APIRouter()

BINS, MAX_BINS = 30, 400
DAY = 86_400.0


class Sums(NamedTuple):
    """Counts and summed costs of edits.

    Attributes:
        n: The number of edits, of drafts that were kept, and of those that were thrown away.
        cost: The sum of their costs.
        square: The sum of their squared costs.
        kept: The number of drafts that were kept unchanged.
        discarded: The number of drafts that were thrown away.
    """

    n: int = 0
    cost: float = 0.0
    square: float = 0.0
    kept: int = 0
    discarded: int = 0

    def plus(self, other: Sums) -> Sums:
        """The sums over both."""
        return Sums(*map(operator.add, self, other))

    def figures(self) -> dict[str, Any]:
        """The mean, its standard error and 95% interval (Student's t), and the share that was kept unchanged.

        A figure is None if too few costs are known for it. If all costs are equal, there is no interval: an
        interval of width 0 would claim that the next cost is certain. No interval goes below 0, as no cost
        does.
        """
        mean = error = interval = None
        if self.n > 0:
            mean = self.cost / self.n
        if mean is not None and self.n > 1:
            # From sums, as a database can give them in one pass. The difference of two nearly equal numbers
            # loses digits and may come out below 0; costs are near 1, so what is lost does not show.
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
            "discarded": self.discarded,
        }


@router.get("/v1/overview", tags=["policies"])
async def overview(
    request: Request,
    since: Since = None,
    until: Until = None,
    bins: Annotated[int, Query(ge=1, le=MAX_BINS)] = BINS,
    trim: Annotated[bool, Query(description="Begin with the period's first event")] = False,
    user: Annotated[
        str | None, Query(max_length=256, description="The user for whom beliefs are shown")
    ] = None,
) -> dict[str, Any]:
    """Show what the edits of a period cost, by time and by arm, and what is believed of the arms now.

    By default the period begins with the first event, and ends now.
    """
    loop = get_state(request).loop
    if user is not None and "\0" in user:
        raise Problem(400, "a user's name is not valid text", code="invalid_text", param="user")
    now = time.time()
    if since is not None and (now if until is None else until) < since + 1:
        what = "a period must be at least one second long"
        raise Problem(400, what, code="invalid_request", param="since", seen=since)
    cost = describe_cost(loop.config.cost)
    answer: dict[str, Any] = {
        "object": "overview",
        "now": now,
        "cost": loop.config.cost,
        "cost_label": cost.label or cost.name,
        "epoch": loop.bandit.state.epoch,
        "down": loop.down,
        "totals": None,
        "series": [],
        "arms": [],
        "beliefs": _beliefs(loop, user),
        "alarms": list(filter(None, map(loop.non_answers.suspicion, loop.bandit.arms))),
    }
    played, stages = loop.bandit.arms, loop.state.stages
    tried = {arm: stage for arm in stages.subjects if (stage := stages.tried(arm))}

    def look(connection: Connection) -> dict[str, Any]:
        end = now if until is None else until
        begin = _begin(connection, None if trim else since, since or 0.0, end)
        period = Period(begin, end, bins)
        return _figures(period, period_sums(connection, period), played, tried)

    try:
        found = await loop.read(look)
        for arm in found["arms"]:
            arm["lifetime"] = loop.state.intervals.of(arm["arm"])
            arm["non_answers"] = loop.non_answers.shares(arm["arm"])
    except Problem as problem:  # the beliefs are known without the store
        return answer | {"down": loop.down or str(problem)}
    return answer | found


def _beliefs(loop: FeedbackLoop, user: str | None) -> dict[str, Any]:
    """The cost that the bandit expects of a user's edit of each arm's responses."""
    scope = loop.scope_of(user)
    pulls, observed, means = loop.bandit.beliefs(scope)
    return {
        "user": user,
        "scope": loop.scopes.scope,
        "arms": [
            {"arm": arm, "pulls": n, "observed": seen, "mean": mean if seen > 0 else None}
            for arm, n, seen, mean in zip(loop.bandit.arms_of(scope), pulls, observed, means, strict=True)
        ],
    }


def _begin(connection: Connection, since: float | None, least: float, until: float) -> float:
    """When a period begins: at `since`, or else at the first event from `least` on."""
    if since is not None:
        return since
    first = first_event(connection, least)
    return min(until - DAY if first is None else first, until - 1)


def _figures(
    period: Period, rows: Iterable[Row[Any]], played: Sequence[str], tried: Mapping[str, str]
) -> dict[str, Any]:
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
        elif row.kind in ("edited", "accepted", "discarded"):
            kept, discarded = (row.n if row.kind == kind else 0 for kind in ("accepted", "discarded"))
            sums = Sums(row.n, row.cost, row.square, kept, discarded)
            place = min(row.bin, period.bins - 1)  # an event at the very end belongs to the last bin
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
            "edited": total.n - total.kept - total.discarded,
            "accepted": total.kept,
            "discarded": total.discarded,
            "pending": pending.total(),
            "expired": others["expired"] + others["void"],
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
                "tried": tried.get(arm),
                "responses": asked[arm],
                "share": asked[arm] / everything if everything else None,
                "pending": pending[arm],
                **by_arm.get(arm, Sums()).figures(),
            }
            for arm in [*played, *retired]
        ],
    }
