"""What is read of the store to compare policies: the rounds, with who edited, and the drafts nobody saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, select

from editloop.store.schema import DECIDED, EXPIRED, drafts, edits, events, shadows

__all__ = [
    "MAX_ROUNDS",
    "count_new_edits",
    "newest_edits",
    "rounds",
    "shadow_drafts",
    "shadow_rounds",
    "stage_rows",
    "users_with_edits",
]

MAX_ROUNDS = 20_000
"""The most rounds that are read at a time, the newest ones: comparisons need recent costs, not all."""


def stage_rows(connection: Connection) -> Sequence[Any]:
    """Return the transitions of policies between stages, in order; a row has `seq` and `detail`."""
    # The second condition is that of the index `events_detail`, which saves a scan of all events.
    query = select(events.c.seq, events.c.detail).where(
        events.c.kind == "stage", events.c.detail.is_not(None)
    )
    return connection.execute(query.order_by(events.c.seq)).all()


def count_new_edits(connection: Connection, since: float, until: float, user: str | None = None) -> int:
    """Return how many different requests, by their digests, have been edited in a time [since, until).

    Args:
        connection: The connection.
        since: The beginning, in seconds since 1970.
        until: The end.
        user: Whose requests; None for everybody's.
    """
    query = _changed(select(func.count(drafts.c.request.distinct())))
    query = query.where(edits.c.time >= since, edits.c.time < until)
    return connection.scalar(query if user is None else query.where(drafts.c.user == user)) or 0


def users_with_edits(connection: Connection, least: int) -> list[str]:
    """Return the users who have edited at least so many different requests."""
    count = func.count(drafts.c.request.distinct())
    query = _changed(select(drafts.c.user)).where(drafts.c.user.is_not(None))
    query = query.group_by(drafts.c.user).having(count >= least).order_by(drafts.c.user)
    return list(connection.scalars(query))


def _changed(query: Select[Any]) -> Select[Any]:
    """A query of drafts, of those that were edited and not left as they were."""
    joined = edits.join(drafts, drafts.c.response_id == edits.c.response_id)
    return query.select_from(joined).where(edits.c.edit.is_not(None), edits.c.edit != drafts.c.response)


def rounds(
    connection: Connection, since: float, limit: int = MAX_ROUNDS, *, until: float | None = None
) -> Sequence[Any]:
    """Return the newest rounds whose decision is of a time [since, until), the oldest of them first.

    A row has `seq` (the number of the decision), `response_id`, `user` (null if not known or removed),
    `chosen` (the arm that was chosen), `arm` (the one that answered), `propensity`, `time`, `kind` (the last
    feedback; null while pending), `cost`, `seconds`, `finish` and `non_answer`.
    """
    answer = events.alias("answer")
    last = select(func.max(answer.c.revision)).where(
        answer.c.response_id == events.c.response_id, answer.c.revision >= EXPIRED
    )
    feedback = events.alias("feedback")
    joined = events.join(drafts, drafts.c.response_id == events.c.response_id).outerjoin(
        feedback,
        (feedback.c.response_id == events.c.response_id)
        & (feedback.c.revision == last.correlate(events).scalar_subquery()),
    )
    query = (
        select(
            events.c.seq,
            events.c.response_id,
            drafts.c.user,
            events.c.arm.label("chosen"),
            drafts.c.policy.label("arm"),
            events.c.propensity,
            events.c.time,
            feedback.c.kind,
            feedback.c.cost,
            drafts.c.seconds,
            drafts.c.finish,
            drafts.c.non_answer,
        )
        .select_from(joined)
        .where(events.c.revision == DECIDED, events.c.time >= since)
        .order_by(events.c.time.desc(), events.c.response_id)
        .limit(limit)
    )
    query = query if until is None else query.where(events.c.time < until)
    return connection.execute(query).all()[::-1]


def newest_edits(connection: Connection, limit: int) -> Sequence[Any]:
    """Return the newest edits that changed a draft; a row has `response_id` and `edit`."""
    query = _changed(select(edits.c.response_id, edits.c.edit))
    return connection.execute(query.order_by(edits.c.time.desc()).limit(limit)).all()


def shadow_rounds(connection: Connection, since: float) -> Sequence[Any]:
    """Return the drafts that nobody saw, with what the user ended with, in the order of time.

    A row has `response_id`, `arm`, `time`, `response`, `finish` and `edit`: the last revision, or the
    response that was accepted. Those that have no feedback yet, or were thrown away, are left out.
    """
    last = select(func.max(edits.c.revision)).where(edits.c.response_id == shadows.c.response_id)
    edit = edits.join(shadows, edits.c.response_id == shadows.c.response_id).join(
        drafts, drafts.c.response_id == shadows.c.response_id
    )
    query = (
        select(
            shadows.c.response_id,
            shadows.c.arm,
            shadows.c.time,
            shadows.c.response,
            shadows.c.finish,
            func.coalesce(edits.c.edit, drafts.c.response).label("edit"),
        )
        .select_from(edit)
        .where(
            shadows.c.time >= since,
            edits.c.revision == last.correlate(shadows).scalar_subquery(),
            edits.c.discarded.is_not(True),
            shadows.c.response.is_not(None),
        )
    )
    return connection.execute(query.order_by(shadows.c.time, shadows.c.response_id, shadows.c.arm)).all()


def shadow_drafts(connection: Connection, since: float) -> Sequence[Any]:
    """Return the drafts that nobody saw, edited or not, with their requests, in the order of time.

    A row has `response_id`, `arm`, `response` and `context`, which is JSON.
    """
    query = (
        select(shadows.c.response_id, shadows.c.arm, shadows.c.response, drafts.c.context)
        .select_from(shadows.join(drafts, drafts.c.response_id == shadows.c.response_id))
        .where(shadows.c.time >= since, shadows.c.response.is_not(None), drafts.c.context.is_not(None))
    )
    return connection.execute(query.order_by(shadows.c.time, shadows.c.response_id, shadows.c.arm)).all()
