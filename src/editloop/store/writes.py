"""What is written to the store, with one function for each statement.

A function takes a connection of `Store.transaction` first. Whether something may be written is decided by the
commands of `editloop.serve.loop`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from editloop.store.schema import (
    DECIDED,
    aliases,
    audit,
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
    "finish_draft",
    "insert_alias",
    "insert_audit",
    "insert_draft",
    "insert_edit",
    "insert_event",
    "insert_key",
    "insert_policy",
    "insert_shadow",
    "move_policy",
    "name_costs",
    "note_key_use",
    "remove_texts",
    "reroute_draft",
    "revoke_key",
    "set_costs",
    "set_fact",
    "set_preference",
    "set_reason",
]

# The statements of every request are built once, because building one takes several times as long as running
# it. SQLAlchemy compiles an insert anew for other columns, so those that a row lacks are filled with None.
_NO_EVENT = dict.fromkeys(set(events.columns.keys()) - {"seq"})
_EVENT = insert(events).returning(events.c.seq)
_NEXT = select(func.coalesce(func.max(events.c.seq), 0) + 1).scalar_subquery()
_EVENT_ON_SQLITE = insert(events).values(seq=_NEXT).returning(events.c.seq)
_DRAFT, _NO_DRAFT = insert(drafts), dict.fromkeys(drafts.columns.keys())
_EDIT, _NO_EDIT = insert(edits), dict.fromkeys(edits.columns.keys())
_SHADOW, _NO_SHADOW = insert(shadows), dict.fromkeys(shadows.columns.keys())
_FINISH = (
    update(drafts)
    .where(drafts.c.response_id == bindparam("id"), drafts.c.finish.is_(None))
    .values(
        response=bindparam("text"),
        finish=bindparam("reason"),
        non_answer=bindparam("rule"),
        compared=bindparam("others"),
        seconds=bindparam("took"),
        logprob=bindparam("log_mu"),
        prompt_tokens=bindparam("tokens_in"),
        completion_tokens=bindparam("tokens_out"),
        message=bindparam("said"),
        text_digest=bindparam("digest"),
    )
    .returning(drafts.c.policy)
)
_COST = (
    update(events)
    .where(events.c.seq == bindparam("number"))
    .values(kind=bindparam("new_kind"), cost=bindparam("new_cost"))
)

_REMOVED: Mapping[str, Any] = {
    **dict.fromkeys(("user", "request", "context", "response", "metadata", "compared", "logprob")),
    **dict.fromkeys(("client_key", "message", "text_digest")),
    "finish": "removed",
}
"""The columns of a draft whose texts are removed. Its time, policy and propensity stay."""


def insert_event(connection: Connection, row: Mapping[str, Any]) -> int:
    """Append an event, and return its number; columns that `row` does not name are null."""
    statement = _EVENT_ON_SQLITE if connection.dialect.name == "sqlite" else _EVENT
    seq: int = connection.execute(statement, {**_NO_EVENT, **row}).scalar_one()
    return seq


def insert_draft(connection: Connection, row: Mapping[str, Any], *, removed: bool = False) -> None:
    """Write a draft, without its texts if they are `removed` already."""
    connection.execute(_DRAFT, {**_NO_DRAFT, **row, **(_REMOVED if removed else {})})


def finish_draft(
    connection: Connection,
    response_id: str,
    response: str | None,
    reason: str,
    *,
    non_answer: str | None = None,
    compared: str | None = None,
    seconds: float | None = None,
    logprob: float | None = None,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
    message: str | None = None,
    text_digest: str | None = None,
) -> str | None:
    """Write the text of a draft that is not finished yet, and return its arm; None without such a draft."""
    values: dict[str, Any] = {"id": response_id, "text": response, "reason": reason}
    values |= {"rule": non_answer, "others": compared, "took": seconds, "log_mu": logprob}
    values |= {"tokens_in": prompt_tokens, "tokens_out": completion_tokens}
    values |= {"said": message, "digest": text_digest}
    found = connection.execute(_FINISH, values).first()
    return None if found is None else str(found.policy)


def reroute_draft(connection: Connection, response_id: str, arm: str) -> None:
    """Give a draft to another arm. The probability of that is unknown, so the propensity becomes null."""
    statement = update(drafts).where(drafts.c.response_id == response_id)
    connection.execute(statement.values(policy=arm, propensity=None))


def insert_alias(connection: Connection, alias: str, response_id: str) -> None:
    """Give a response another name."""
    connection.execute(insert(aliases).values(alias=alias, response_id=response_id))


def insert_edit(connection: Connection, row: Mapping[str, Any]) -> None:
    """Write a revision of an edit."""
    connection.execute(_EDIT, {**_NO_EDIT, **row})


def set_reason(connection: Connection, response_id: str, revision: int, reason: str | None) -> None:
    """Write why a draft was edited; None takes the reason away."""
    which = (edits.c.response_id == response_id) & (edits.c.revision == revision)
    connection.execute(update(edits).where(which).values(reason=reason))


def insert_shadow(connection: Connection, row: Mapping[str, Any]) -> None:
    """Write a draft that nobody saw."""
    connection.execute(_SHADOW, {**_NO_SHADOW, **row})


def remove_texts(connection: Connection, response_ids: Sequence[str]) -> None:
    """Remove all texts of these responses, the names of their users, and what was taken from the texts."""
    connection.execute(update(drafts).where(drafts.c.response_id.in_(response_ids)).values(**_REMOVED))
    for table in (edits, shadows, preferences):
        connection.execute(delete(table).where(table.c.response_id.in_(response_ids)))
    decided = events.c.response_id.in_(response_ids) & (events.c.revision == DECIDED)
    connection.execute(update(events).where(decided).values(features=None))


def insert_policy(connection: Connection, row: Mapping[str, Any]) -> None:
    """Write a policy that has become an arm for the first time."""
    connection.execute(insert(policies).values(**row))


def move_policy(connection: Connection, arm: str, run: str, name: str) -> None:
    """Write where a policy lies now."""
    connection.execute(update(policies).where(policies.c.arm == arm).values(run=run, name=name))


def set_fact(connection: Connection, name: str, value: str) -> None:
    """Write a fact about the whole store, in place of an earlier value."""
    # Safe in two steps, because a transaction that writes excludes all others.
    if not connection.execute(update(facts).where(facts.c.name == name).values(value=value)).rowcount:
        connection.execute(insert(facts).values(name=name, value=value))


def set_preference(connection: Connection, row: Mapping[str, Any]) -> None:
    """Write what an edit says of its user's preferences, in place of what an earlier revision said."""
    same = (preferences.c.response_id == row["response_id"]) & (preferences.c.arm == row["arm"])
    connection.execute(delete(preferences).where(same))
    connection.execute(insert(preferences).values(**row))


def name_costs(connection: Connection, cost: str) -> None:
    """Write into every epoch which cost its edits are measured by."""
    connection.execute(update(events).where(events.c.kind == "arms").values(cost_name=cost))


def set_costs(connection: Connection, changes: Sequence[tuple[int, str, float | None]]) -> None:
    """Change the kind and the cost of events; a change is (number of the event, kind, cost)."""
    if changes:
        values = [{"number": seq, "new_kind": kind, "new_cost": cost} for seq, kind, cost in changes]
        connection.execute(_COST, values)


def insert_key(connection: Connection, row: Mapping[str, Any]) -> None:
    """Write a bearer key."""
    connection.execute(insert(keys).values(**row))


def revoke_key(connection: Connection, name: str, moment: float) -> bool:
    """Revoke a key; returns whether there was one of that name that was not revoked yet."""
    which = (keys.c.name == name) & keys.c.revoked.is_(None)
    return bool(connection.execute(update(keys).where(which).values(revoked=moment)).rowcount)


def note_key_use(connection: Connection, digest: str, moment: float) -> None:
    """Write when a key was used, unless a later use is known."""
    earlier = keys.c.last_used.is_(None) | (keys.c.last_used < moment)
    statement = update(keys).where(keys.c.digest == digest, earlier)
    connection.execute(statement.values(last_used=moment))


def insert_audit(connection: Connection, row: Mapping[str, Any]) -> None:
    """Write what an admin did, unless it is written already."""
    if connection.execute(select(audit.c.id).where(audit.c.id == row["id"])).first() is None:
        connection.execute(insert(audit).values(**row))
