"""What is read of the store to compare policies: the rounds, with who edited, and the drafts nobody saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from editloop.store.schema import DECIDED, EXPIRED, drafts, edits, events, shadows

__all__ = ["MAX_ROUNDS", "count_new_edits", "rounds", "shadow_drafts", "shadow_rounds", "stage_rows"]

MAX_ROUNDS = 20_000
"""The most rounds that are read at a time, the newest ones: comparisons need recent costs, not all."""


def stage_rows(connection: Connection) -> Sequence[Any]:
    """Return the transitions of policies between stages, in order; a row has `seq` and `detail`."""
    # The second condition is that of the index `events_detail`, which saves a scan of all events.
    query = select(events.c.seq, events.c.detail).where(
        events.c.kind == "stage", events.c.detail.is_not(None)
    )
    return connection.execute(query.order_by(events.c.seq)).all()


def count_new_edits(connection: Connection, since: float, until: float) -> int:
    """Return how many different requests, by their digests, have been edited in a time [since, until)."""
    joined = edits.join(drafts, drafts.c.response_id == edits.c.response_id)
    query = (
        select(func.count(drafts.c.request.distinct()))
        .select_from(joined)
        .where(
            edits.c.time >= since,
            edits.c.time < until,
            edits.c.edit.is_not(None),
            edits.c.edit != drafts.c.response,
        )
    )
    return connection.scalar(query) or 0


def rounds(connection: Connection, since: float, limit: int = MAX_ROUNDS) -> Sequence[Any]:
    """Return the newest rounds whose decision is of a time or later, the oldest of them first.

    A row has `response_id`, `user` (null if not known or removed), `chosen` (the arm that was chosen), `arm`
    (the one that answered), `propensity`, `time`, `kind` (the last feedback; null while pending), `cost`,
    `seconds`, `finish` and `non_answer`.
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
    return connection.execute(query).all()[::-1]


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
