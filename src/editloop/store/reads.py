"""Everything that is read from the store, except the sums of `sums.py`: one named function per query.

A function takes a connection first, so that it can run in `Store.read`, in `Store.stream` or within a
transaction that writes. Rows have the columns of the tables in `schema.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, inspect, select

from editloop.store.schema import DECIDED, EXPIRED, drafts, edits, events, facts, keys, policies

__all__ = [
    "all_keys",
    "arm_names",
    "costed_events",
    "costs_of",
    "count_costs",
    "decision",
    "decision_events",
    "draft",
    "edit_by_key",
    "events_after",
    "fact",
    "facts_named",
    "feedback_event",
    "first_seen",
    "has_feedback",
    "is_store",
    "last_epoch",
    "last_seq",
    "overdue_decisions",
    "policy_locations",
    "policy_rows",
    "removable_drafts",
    "response_text",
    "revision_texts",
    "revisions",
    "revisions_with_costs",
    "runs_trained_since",
]

# The queries of the hot path are built once: building one takes several times as long as running it.
_LAST_SEQ = select(func.max(events.c.seq))
_FACT = select(facts.c.value).where(facts.c.name == bindparam("name"))
_FACTS = select(facts.c.name, facts.c.value).where(facts.c.name.in_(bindparam("names", expanding=True)))
_DECISION = (
    select(events.c.scope, events.c.arm)
    .where(events.c.response_id == bindparam("id"), events.c.revision <= DECIDED)
    .order_by(events.c.revision)
    .limit(1)
)
_DRAFT = select(drafts).where(drafts.c.response_id == bindparam("id"))
_REVISIONS = select(edits).where(edits.c.response_id == bindparam("id")).order_by(edits.c.revision)
_EDIT_BY_KEY = select(edits).where(edits.c.key == bindparam("key"))
_FEEDBACK = select(events.c.seq).where(events.c.response_id == bindparam("id"), events.c.revision >= EXPIRED)


def is_store(connection: Connection) -> bool:
    """Whether a database is a store; a log may be in any other database, too."""
    return inspect(connection).has_table(facts.name)


def last_seq(connection: Connection) -> int:
    """The number of the last event; 0 if there is none."""
    return connection.scalar(_LAST_SEQ) or 0


def fact(connection: Connection, name: str) -> str | None:
    """The fact of that name; None if there is none."""
    found: str | None = connection.scalar(_FACT, {"name": name})
    return found


def facts_named(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Those of the named facts that there are."""
    return {row.name: row.value for row in connection.execute(_FACTS, {"names": list(names)})}


# Events


def events_after(connection: Connection, seq: int) -> Iterator[Row[Any]]:
    """The events after a number, in their order."""
    yield from connection.execute(select(events).where(events.c.seq > seq).order_by(events.c.seq))


def decision(connection: Connection, response_id: str) -> tuple[str, str] | None:
    """The scope of a decision, and the arm that answered last; None for a response without a decision."""
    row = connection.execute(_DECISION, {"id": response_id}).first()
    return None if row is None else (row.scope, row.arm)


def decision_events(connection: Connection, response_id: str) -> Sequence[Row[Any]]:
    """A response's decision and its reroutes."""
    which = (events.c.response_id == response_id) & (events.c.revision <= DECIDED)
    return connection.execute(select(events).where(which)).all()


def has_feedback(connection: Connection, response_id: str) -> bool:
    """Whether an edit of a response was counted, or it has expired."""
    return connection.execute(_FEEDBACK, {"id": response_id}).first() is not None


def feedback_event(connection: Connection, response_id: str, revision: int) -> Row[Any] | None:
    """The event of one revision of an edit; None while the response's text is not known."""
    which = (events.c.response_id == response_id) & (events.c.revision == revision)
    return connection.execute(select(events).where(which)).first()


def last_epoch(connection: Connection) -> Row[Any] | None:
    """The event that began the current epoch; None before the first."""
    query = select(events).where(events.c.kind == "arms").order_by(events.c.seq.desc()).limit(1)
    return connection.execute(query).first()


def overdue_decisions(connection: Connection, after: float, until: float, limit: int) -> Sequence[Any]:
    """Identities and times of responses decided in (after, until] that have no feedback, the oldest first."""
    answer = events.alias()
    answered = select(answer.c.seq).where(
        answer.c.response_id == events.c.response_id, answer.c.revision >= EXPIRED
    )
    query = select(events.c.response_id, events.c.time).where(
        events.c.revision == DECIDED, events.c.time > after, events.c.time <= until, ~answered.exists()
    )
    return connection.execute(query.order_by(events.c.time).limit(limit)).all()


def costs_of(connection: Connection, response_ids: Sequence[str]) -> dict[str, Any]:
    """The last revision of each response's feedback, with its cost, by response."""
    query = select(events.c.response_id, events.c.revision, events.c.cost)
    query = query.where(events.c.response_id.in_(response_ids), events.c.revision > 0)
    return {row.response_id: row for row in connection.execute(query.order_by(events.c.revision))}


def costed_events(connection: Connection, after: int, limit: int) -> Sequence[Any]:
    """Feedback with a cost after a number: `seq`, `kind`, and if kept `response`, `edit`, `revision`."""
    same = (edits.c.response_id == events.c.response_id) & (edits.c.revision == events.c.revision)
    query = (
        select(events.c.seq, events.c.kind, drafts.c.response, edits.c.edit, edits.c.revision)
        .outerjoin_from(events, drafts, drafts.c.response_id == events.c.response_id)
        .outerjoin(edits, same)
        .where(events.c.revision > 0, events.c.cost.is_not(None), events.c.seq > after)
    )
    return connection.execute(query.order_by(events.c.seq).limit(limit)).all()


def count_costs(connection: Connection) -> int:
    """How many events have a cost above 0."""
    return connection.scalar(select(func.count()).where(events.c.cost > 0)) or 0


# Drafts and edits


def draft(connection: Connection, response_id: str) -> Row[Any] | None:
    """The draft of a response."""
    return connection.execute(_DRAFT, {"id": response_id}).first()


def response_text(connection: Connection, response_id: str) -> str | None:
    """The text of a response; None if it is unknown, unfinished or removed."""
    found: str | None = connection.scalar(
        select(drafts.c.response).where(drafts.c.response_id == response_id)
    )
    return found


def revisions(connection: Connection, response_id: str) -> Sequence[Row[Any]]:
    """All revisions of a response's edit, the first one first."""
    return connection.execute(_REVISIONS, {"id": response_id}).all()


def revisions_with_costs(connection: Connection, response_id: str) -> Sequence[Row[Any]]:
    """The same, each with its cost."""
    same = (edits.c.response_id == events.c.response_id) & (edits.c.revision == events.c.revision)
    query = select(edits, events.c.cost).outerjoin(events, same)
    query = query.where(edits.c.response_id == response_id).order_by(edits.c.revision)
    return connection.execute(query).all()


def revision_texts(connection: Connection, response_ids: Sequence[str]) -> Mapping[str, list[str]]:
    """The texts that users left, by response, the first revision first; acceptances have none."""
    query = select(edits.c.response_id, edits.c.edit)
    query = query.where(edits.c.response_id.in_(response_ids), edits.c.edit.is_not(None))
    texts: dict[str, list[str]] = {}
    for row in connection.execute(query.order_by(edits.c.response_id, edits.c.revision)):
        texts.setdefault(row.response_id, []).append(row.edit)
    return texts


def edit_by_key(connection: Connection, key: str) -> Row[Any] | None:
    """The edit that came with an idempotency key."""
    return connection.execute(_EDIT_BY_KEY, {"key": key}).first()


def removable_drafts(
    connection: Connection,
    limit: int,
    *,
    user: str | None = None,
    after: float | None = None,
    until: float | None = None,
) -> list[str]:
    """Identities of drafts that still have texts: those of a user, or those begun in (after, until]."""
    query = select(drafts.c.response_id).where(drafts.c.finish.is_distinct_from("removed"))
    if user is not None:
        query = query.where(drafts.c.user == user)
    if after is not None:
        query = query.where(drafts.c.time > after)
    if until is not None:
        query = query.where(drafts.c.time <= until)
    return list(connection.scalars(query.limit(limit)))


# Policies, keys, and what was learned from whom


def policy_rows(connection: Connection) -> Sequence[Row[Any]]:
    """All policies that ever were arms, the oldest first."""
    return connection.execute(select(policies).order_by(policies.c.time)).all()


def policy_locations(connection: Connection) -> dict[str, tuple[str, str]]:
    """The run folder of each policy and its name in it, by arm."""
    rows = connection.execute(select(policies.c.arm, policies.c.run, policies.c.name))
    return {row.arm: (row.run, row.name) for row in rows}


def arm_names(connection: Connection) -> set[str]:
    """The names of all policies that ever were arms."""
    return set(connection.scalars(select(policies.c.arm)))


def first_seen(connection: Connection, user: str, scope: str) -> float | None:
    """When a user first had a draft, or feedback in a scope of their own; None if never.

    The scope is empty where all users share one. Both are looked at, because texts may have been removed
    already while their costs stay.
    """
    first: float | None = connection.scalar(select(func.min(drafts.c.time)).where(drafts.c.user == user))
    if scope:
        learned = connection.scalar(select(func.min(events.c.time)).where(events.c.scope == scope))
        first = min(filter(None, (first, learned)), default=None)
    return first


def runs_trained_since(connection: Connection, moment: float) -> list[str]:
    """The runs that read this store's log at or after a time, in alphabetical order."""
    query = select(policies.c.run).where(policies.c.read_until >= moment)
    return sorted(set(connection.scalars(query)))


def all_keys(connection: Connection) -> Sequence[Row[Any]]:
    """All bearer keys, the oldest first."""
    return connection.execute(select(keys).order_by(keys.c.created)).all()
