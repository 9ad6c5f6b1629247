"""What is read from the store, with one function for each query.

The rows of the view `log` are read in `log_filter`, and sums over time in `sums`. A function takes a
connection first, so that it can run in `Store.read`, in `Store.stream` or within a transaction that writes.
Rows have the columns of the tables in `schema.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, inspect, select

from editloop.store.schema import (
    DECIDED,
    EXPIRED,
    UNSTORED,
    drafts,
    edits,
    events,
    facts,
    keys,
    policies,
    preferences,
    shadows,
)

__all__ = [
    "all_keys",
    "arm_names",
    "costed_events",
    "costs_of",
    "count_costs",
    "decision",
    "decision_events",
    "draft",
    "drafts_by_client_key",
    "drafts_of",
    "edit_by_key",
    "events_after",
    "fact",
    "facts_named",
    "feedback_event",
    "first_seen",
    "has_feedback",
    "has_shadow",
    "is_store",
    "last_edits",
    "last_epoch",
    "last_seq",
    "non_answers",
    "overdue_decisions",
    "policy_locations",
    "policy_rows",
    "preferences_of",
    "removable_drafts",
    "response_text",
    "revision_texts",
    "revisions",
    "revisions_with_costs",
    "runs_trained_since",
    "text_and_digest",
]

# The queries of every request are built once, because building one takes several times as long as running it.
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
    """Whether a database is a store. A log can be in any other database, too."""
    return inspect(connection).has_table(facts.name)


def last_seq(connection: Connection) -> int:
    """Return the number of the last event; 0 if there is none."""
    return connection.scalar(_LAST_SEQ) or 0


def fact(connection: Connection, name: str) -> str | None:
    """Return the fact of that name; None if there is none."""
    found: str | None = connection.scalar(_FACT, {"name": name})
    return found


def facts_named(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return the values of these facts by name, without those that do not exist."""
    return {row.name: row.value for row in connection.execute(_FACTS, {"names": list(names)})}


# Events


def events_after(connection: Connection, seq: int) -> Iterator[Row[Any]]:
    """Yield the events after a number, in their order."""
    yield from connection.execute(select(events).where(events.c.seq > seq).order_by(events.c.seq))


def decision(connection: Connection, response_id: str) -> tuple[str, str] | None:
    """Return the scope of a decision and the arm that answered last; None for a response without a decision.

    Reroutes have lower revisions than the decision, so the lowest one has the last arm.
    """
    row = connection.execute(_DECISION, {"id": response_id}).first()
    return None if row is None else (row.scope, row.arm)


def decision_events(connection: Connection, response_id: str) -> Sequence[Row[Any]]:
    """Return the decision of a response and its reroutes."""
    which = (events.c.response_id == response_id) & (events.c.revision <= DECIDED)
    return connection.execute(select(events).where(which)).all()


def has_feedback(connection: Connection, response_id: str) -> bool:
    """Whether an edit of a response was counted, or the response has expired."""
    return connection.execute(_FEEDBACK, {"id": response_id}).first() is not None


def feedback_event(connection: Connection, response_id: str, revision: int) -> Row[Any] | None:
    """Return the event of one revision of an edit; None while the response's text is not known."""
    which = (events.c.response_id == response_id) & (events.c.revision == revision)
    return connection.execute(select(events).where(which)).first()


def last_epoch(connection: Connection) -> Row[Any] | None:
    """Return the event that began the current epoch; None before the first."""
    query = select(events).where(events.c.kind == "arms").order_by(events.c.seq.desc()).limit(1)
    return connection.execute(query).first()


def overdue_decisions(connection: Connection, after: float, until: float, limit: int) -> Sequence[Any]:
    """Return id and time of the responses decided in (after, until] without feedback, the oldest first."""
    answer = events.alias()
    answered = select(answer.c.seq).where(
        answer.c.response_id == events.c.response_id, answer.c.revision >= EXPIRED
    )
    query = select(events.c.response_id, events.c.time).where(
        events.c.revision == DECIDED, events.c.time > after, events.c.time <= until, ~answered.exists()
    )
    return connection.execute(query.order_by(events.c.time).limit(limit)).all()


def costs_of(connection: Connection, response_ids: Sequence[str]) -> dict[str, Any]:
    """Return the last revision of each response's feedback, with its cost, by response."""
    # In the order of the revisions, so that the last one replaces the earlier ones in the dictionary.
    query = select(events.c.response_id, events.c.revision, events.c.cost)
    query = query.where(events.c.response_id.in_(response_ids), events.c.revision > 0)
    return {row.response_id: row for row in connection.execute(query.order_by(events.c.revision))}


def costed_events(connection: Connection, after: int, limit: int) -> Sequence[Any]:
    """Return the feedback that has a cost, after a number, in the order of the events.

    The rows have `seq`, `kind` and `non_answer`, and `response`, `edit`, `revision` and `discarded` where the
    texts are still kept.
    """
    same = (edits.c.response_id == events.c.response_id) & (edits.c.revision == events.c.revision)
    query = (
        select(
            events.c.seq,
            events.c.kind,
            drafts.c.response,
            edits.c.edit,
            edits.c.revision,
            edits.c.discarded,
            drafts.c.non_answer,
        )
        .outerjoin_from(events, drafts, drafts.c.response_id == events.c.response_id)
        .outerjoin(edits, same)
        .where(events.c.revision > 0, events.c.cost.is_not(None), events.c.seq > after)
    )
    return connection.execute(query.order_by(events.c.seq).limit(limit)).all()


def count_costs(connection: Connection) -> int:
    """Return how many events have a cost above 0."""
    return connection.scalar(select(func.count()).where(events.c.cost > 0)) or 0


# Drafts and edits


def draft(connection: Connection, response_id: str) -> Row[Any] | None:
    """Return the draft of a response; None if there is none."""
    return connection.execute(_DRAFT, {"id": response_id}).first()


def drafts_of(connection: Connection, response_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Return the drafts of these responses by response, without those that there are not."""
    rows = connection.execute(select(drafts).where(drafts.c.response_id.in_(response_ids)))
    return {row.response_id: row for row in rows}


def drafts_by_client_key(connection: Connection, key: str) -> Sequence[str]:
    """Return the ids of two responses with a client's key at most; two are too many.

    Those that can be edited come before all others: a response that has failed or is a tool call has no text.
    """
    query = select(drafts.c.response_id).where(drafts.c.client_key == key).limit(2)
    editable = drafts.c.finish.is_(None) | drafts.c.response.is_not(None) | (drafts.c.finish == UNSTORED)
    return connection.scalars(query.where(editable)).all() or connection.scalars(query).all()


def has_shadow(connection: Connection, response_id: str, arm: str) -> bool:
    """Whether a policy's draft that nobody saw is kept for a response."""
    which = (shadows.c.response_id == response_id) & (shadows.c.arm == arm)
    return connection.execute(select(shadows.c.arm).where(which)).first() is not None


def response_text(connection: Connection, response_id: str) -> str | None:
    """Return the text of a response; None if it is unknown, unfinished or removed."""
    found: str | None = connection.scalar(
        select(drafts.c.response).where(drafts.c.response_id == response_id)
    )
    return found


def text_and_digest(connection: Connection, response_id: str) -> Any:
    """Return the `response` of a draft and, if its text is not kept, `text_digest`; None without a draft."""
    query = select(drafts.c.response, drafts.c.text_digest).where(drafts.c.response_id == response_id)
    return connection.execute(query).first()


def revisions(connection: Connection, response_id: str) -> Sequence[Row[Any]]:
    """Return all revisions of a response's edit, the first one first."""
    return connection.execute(_REVISIONS, {"id": response_id}).all()


def revisions_with_costs(connection: Connection, response_id: str) -> Sequence[Row[Any]]:
    """Return all revisions of a response's edit with their costs, the first one first."""
    same = (edits.c.response_id == events.c.response_id) & (edits.c.revision == events.c.revision)
    query = select(edits, events.c.cost).outerjoin(events, same)
    query = query.where(edits.c.response_id == response_id).order_by(edits.c.revision)
    return connection.execute(query).all()


def revision_texts(connection: Connection, response_ids: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the texts of all revisions by response, the first one first; some revisions have no text."""
    query = select(edits.c.response_id, edits.c.edit)
    query = query.where(edits.c.response_id.in_(response_ids), edits.c.edit.is_not(None))
    texts: dict[str, list[str]] = {}
    for row in connection.execute(query.order_by(edits.c.response_id, edits.c.revision)):
        texts.setdefault(row.response_id, []).append(row.edit)
    return texts


def non_answers(connection: Connection) -> Sequence[Row[Any]]:
    """Return how many drafts have ended (`n`), by policy and by the rule by which they are no answer.

    The rule, `non_answer`, is null for answers.
    """
    ended = drafts.c.finish.is_not(None) & drafts.c.finish.not_in(("failed", "external"))
    query = select(drafts.c.policy, drafts.c.non_answer, func.count().label("n"))
    query = query.where(ended, drafts.c.policy.is_not(None))
    return connection.execute(query.group_by(drafts.c.policy, drafts.c.non_answer)).all()


def last_edits(
    connection: Connection, user: str, limit: int, *, longest: int, context: int
) -> Sequence[Row[Any]]:
    """Return a user's last drafts that were kept, with the last revision of each edit, the newest first.

    The rows have `response_id`, `time`, `context`, `edit` (the text that was kept), `revision`, and `changed`
    (whether it differs from the draft). Drafts that were thrown away are left out, and those that are no
    answers and were kept as they are.

    Args:
        connection: To the store.
        user: Who edited.
        limit: The most rows.
        longest: The most characters of a text that was kept; longer ones are not read.
        context: The most characters of a context, as it is kept.
    """
    later = edits.alias()
    last = select(func.max(later.c.revision)).where(later.c.response_id == drafts.c.response_id)
    kept = func.coalesce(edits.c.edit, drafts.c.response)
    changed = kept != drafts.c.response
    query = (
        select(
            drafts.c.response_id,
            drafts.c.time,
            drafts.c.context,
            kept.label("edit"),
            edits.c.revision,
            changed.label("changed"),
        )
        .join(edits, edits.c.response_id == drafts.c.response_id)
        .where(
            drafts.c.user == user,
            drafts.c.response.is_not(None),
            drafts.c.context.is_not(None),
            edits.c.revision == last.scalar_subquery(),
            edits.c.discarded.is_not(True),
            drafts.c.non_answer.is_(None) | changed,
            func.length(kept) <= longest,
            func.length(drafts.c.context) <= context,
        )
        .order_by(drafts.c.time.desc(), drafts.c.response_id)
        .limit(limit)
    )
    return connection.execute(query).all()


def preferences_of(connection: Connection, response_ids: Sequence[str], arm: str) -> Sequence[Row[Any]]:
    """Return what the edits of these responses say of their users' preferences, in the words of a policy."""
    which = preferences.c.response_id.in_(response_ids) & (preferences.c.arm == arm)
    return connection.execute(select(preferences).where(which)).all()


def edit_by_key(connection: Connection, key: str) -> Row[Any] | None:
    """Return the edit that came with an idempotency key; None if none did."""
    return connection.execute(_EDIT_BY_KEY, {"key": key}).first()


def removable_drafts(
    connection: Connection,
    limit: int,
    *,
    user: str | None = None,
    after: float | None = None,
    until: float | None = None,
) -> list[str]:
    """Return the ids of drafts that still have texts: those of a user, or those begun in (after, until]."""
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
    """Return all policies that ever were arms, the oldest first."""
    return connection.execute(select(policies).order_by(policies.c.time)).all()


def policy_locations(connection: Connection) -> dict[str, tuple[str, str]]:
    """Return the run folder of each policy and its name in it, by arm."""
    rows = connection.execute(select(policies.c.arm, policies.c.run, policies.c.name))
    return {row.arm: (row.run, row.name) for row in rows}


def arm_names(connection: Connection) -> set[str]:
    """Return the names of all policies that ever were arms."""
    return set(connection.scalars(select(policies.c.arm)))


def first_seen(connection: Connection, user: str, scope: str) -> float | None:
    """Return when a user first had a draft, or feedback in a scope of their own; None if never.

    The scope is empty if all users share one. Both are looked up, because the texts may have been removed
    already while their costs stay.
    """
    first: float | None = connection.scalar(select(func.min(drafts.c.time)).where(drafts.c.user == user))
    if scope:
        learned = connection.scalar(select(func.min(events.c.time)).where(events.c.scope == scope))
        first = min(filter(None, (first, learned)), default=None)
    return first


def runs_trained_since(connection: Connection, moment: float) -> list[str]:
    """Return the runs that read this store's log at or after a time, in alphabetical order."""
    query = select(policies.c.run).where(policies.c.read_until >= moment)
    return sorted(set(connection.scalars(query)))


def all_keys(connection: Connection) -> Sequence[Row[Any]]:
    """Return all bearer keys, the oldest first."""
    return connection.execute(select(keys).order_by(keys.c.created)).all()
