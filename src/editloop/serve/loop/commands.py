"""What is written to the store: each entry knows what it does to the tables, and does it once.

An entry is applied in a transaction of which there is one at a time, so what it looks up still holds when
it writes. It refuses before it writes. Entries of a response that is on its way (`Spooled`) are kept in a
file while the database is down, and applied later; twice is as good as once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from editloop.online import Arms, Decided, Event, Feedback, Rerouted
from editloop.online.events import Outcome
from editloop.serve.problem import Problem
from editloop.store.schema import (
    COST,
    DECIDED,
    EXPIRED,
    FORGOTTEN,
    drafts,
    edits,
    events,
    facts,
    keep_fact,
    policies,
)

__all__ = [
    "Ask",
    "Edit",
    "Edited",
    "Epoch",
    "Expire",
    "External",
    "Finish",
    "Forget",
    "ForgetUser",
    "Pen",
    "Price",
    "Route",
    "Spooled",
    "spooled_from_json",
    "spooled_to_json",
]

Price = Callable[[str, str], float]
"""A response and its edit to the edit's cost."""


# Statements of the hot path, built once: building one takes several times as long as running it.
_EVENT, _NOTHING = insert(events), dict.fromkeys(events.columns.keys())
_DRAFT, _EDIT = insert(drafts), insert(edits)
_DECISION = (
    select(events.c.scope, events.c.arm)
    .where(events.c.response_id == bindparam("id"), events.c.revision <= DECIDED)
    .order_by(events.c.revision)
    .limit(1)
)
_FINISH = (
    update(drafts)
    .where(drafts.c.response_id == bindparam("id"), drafts.c.finish.is_(None))
    .values(response=bindparam("text"), finish=bindparam("reason"))
)
_EDITS = select(edits).where(edits.c.response_id == bindparam("id")).order_by(edits.c.revision)
_MINE = select(drafts).where(drafts.c.response_id == bindparam("id"))
_KEY = select(edits).where(edits.c.key == bindparam("key"))
_FACT = select(facts.c.value).where(facts.c.name == bindparam("name"))


class Pen:
    """Appends events in a transaction.

    Attributes:
        connection: Of the transaction.
        seq: Number of the last event.
        price: What an edit costs.
        facts: Those of the store that entries look at, as they are in this transaction.
        added: The events appended.
    """

    def __init__(self, connection: Connection, seq: int, price: Price, facts: Mapping[str, str]) -> None:
        self.connection, self.seq, self.price, self.facts = connection, seq, price, facts
        self.added: list[tuple[int, Event]] = []

    def append(
        self, event: Event, time: float, *, revision: int | None = None, scope: str = "", arm: str = ""
    ) -> None:
        """Append an event; scope and arm stand beside feedback, so that costs can be summed by them."""
        row: dict[str, Any] = {"time": time, "revision": revision}
        if isinstance(event, Arms):
            row |= {"kind": "arms", "epoch": event.epoch, "arms": json.dumps(event.arms, allow_nan=False)}
            row |= {"cost_name": self.facts.get(COST)}
        elif isinstance(event, Decided):
            row |= {"kind": "decided", **event._asdict()}
        elif isinstance(event, Rerouted):
            row |= {"kind": "rerouted", "scope": scope, **event._asdict()}
        else:
            row |= {"kind": event.outcome, "scope": scope, "arm": arm, "cost": event.cost}
            row |= {"response_id": event.response_id, "revision": event.revision}
        self._write(row)
        self.added.append((self.seq, event))

    def append_external(self, response_id: str, time: float, revision: int, cost: float, arm: str) -> None:
        """Append the cost of a text that no arm of the loop wrote: nothing for a bandit to learn from."""
        row = {"kind": "external", "response_id": response_id, "time": time, "revision": revision}
        self._write({**row, "cost": cost, "arm": arm, "scope": ""})

    def _write(self, row: dict[str, Any]) -> None:
        self.seq += 1
        self.connection.execute(_EVENT, _NOTHING | {"seq": self.seq, **row})

    def first(self, query: Any, **values: Any) -> Row[Any] | None:
        """The first row that a query finds."""
        return self.connection.execute(query, values).first()

    def decision(self, response_id: str) -> tuple[str, str] | None:
        """Scope of a decision and the arm that answered at last; None for a response that was not decided."""
        row = self.first(_DECISION, id=response_id)
        return None if row is None else (row.scope, row.arm)

    def fact(self, name: str) -> str | None:
        """What is kept under a name beside the tables; None if nothing is."""
        found: str | None = self.connection.scalar(_FACT, {"name": name})
        return found

    def keep(self, name: str, value: str) -> None:
        """Keep something under a name, in place of what was there."""
        keep_fact(self.connection, name, value)

    def is_forgotten(self, user: str | None, time: float) -> bool:
        """Whether a user was forgotten after this time: an entry of theirs has waited in a spool since."""
        latest = self.facts.get(FORGOTTEN)
        if user is None or latest is None or time > float(latest):
            return False
        since = self.fact(_tombstone(self.fact("salt") or "", user))
        return since is not None and time <= float(since)


def _tombstone(salt: str, user: str) -> str:
    """Under which name it is kept when a user was forgotten; it does not tell who."""
    return f"{FORGOTTEN}:{hashlib.blake2b(f'{salt}:{user}'.encode(), digest_size=16).hexdigest()}"


@dataclass(frozen=True)
class Ask:
    """A decision, and what was asked.

    Attributes:
        decision: The event.
        time: When.
        user: Who asks.
        request: Digest of the request.
        context: JSON.
        metadata: JSON.
    """

    decision: Decided
    time: float
    user: str | None
    request: str
    context: str
    metadata: str | None

    def apply(self, pen: Pen) -> None:
        """Write event and draft; without texts, if the user was forgotten since."""
        one = self.decision
        if pen.decision(one.response_id) is not None:
            return
        pen.append(one, self.time, revision=DECIDED)
        row = {"response_id": one.response_id, "time": self.time, "user": self.user, "policy": one.arm}
        row |= {"propensity": one.propensity, "request": self.request, "context": self.context}
        row |= {"metadata": self.metadata, "response": None, "finish": None}
        forgotten = pen.is_forgotten(self.user, self.time)
        pen.connection.execute(_DRAFT, row | REMOVED if forgotten else row)
        if forgotten:
            Expire((one.response_id,), self.time).apply(pen)


@dataclass(frozen=True)
class Route:
    """Another arm answers in place of the one that was chosen."""

    response_id: str
    arm: str
    attempt: int
    time: float

    def apply(self, pen: Pen) -> None:
        """Write the event; the draft is the other arm's, chosen with no known probability.

        A question that came again after a kill has routes of its first try, whose numbers are taken.
        """
        found = pen.decision(self.response_id)
        before = (events.c.response_id == self.response_id) & (events.c.revision <= DECIDED)
        rows = pen.connection.execute(select(events).where(before)).all()
        if found is None or any((row.arm, row.time) == (self.arm, self.time) for row in rows):
            return
        revision = min(DECIDED - self.attempt, min(row.revision for row in rows) - 1)
        pen.append(Rerouted(self.response_id, self.arm), self.time, revision=revision, scope=found[0])
        mine = drafts.c.response_id == self.response_id
        pen.connection.execute(update(drafts).where(mine).values(policy=self.arm, propensity=None))


@dataclass(frozen=True)
class Finish:
    """A response has come to its end.

    Attributes:
        response_id: Whose.
        response: Its text; None if it is not to be learned from, as it failed or was broken off.
        finish: `stop`, `length` ..., or `failed`.
        time: When.
    """

    response_id: str
    response: str | None
    finish: str
    time: float

    def apply(self, pen: Pen) -> str | None:
        """Write the text; an edit that came before it gets its cost now. Returns another's that is there."""
        values = {"id": self.response_id, "text": self.response, "reason": self.finish}
        if not pen.connection.execute(_FINISH, values).rowcount:
            there = pen.first(_MINE, id=self.response_id)
            return None if there is None else there.response
        if self.response is None:
            Expire((self.response_id,), self.time).apply(pen)
            return None
        for row in pen.connection.execute(_EDITS, {"id": self.response_id}).all():
            cost = _price(pen, self.response, row.edit)
            _count(pen, self.response_id, row.revision, row.time, cost, row.edit in (None, self.response))
        return None


Spooled = Ask | Route | Finish
"""Entries that wait in a file while the database is down."""


def spooled_to_json(entry: Spooled) -> dict[str, Any]:
    """An entry as a row of the spool."""
    return {"entry": type(entry).__name__, **asdict(entry)}


def spooled_from_json(row: dict[str, Any]) -> Spooled:
    """The entry of a row."""
    fields = {key: value for key, value in row.items() if key != "entry"}
    if row["entry"] == "Ask":
        fields["decision"] = Decided(*fields["decision"])
    kinds: dict[str, type[Spooled]] = {"Ask": Ask, "Route": Route, "Finish": Finish}
    return kinds[row["entry"]](**fields)


@dataclass(frozen=True)
class Edited:
    """What became of an edit.

    Attributes:
        response_id: Of the response.
        revision: That it was given.
        cost: None while the response's text is not known yet.
        policy: Who wrote the response.
        accepted: Whether the response was left as it was.
        repeated: Whether it was known already.
    """

    response_id: str
    revision: int
    cost: float | None
    policy: str | None
    accepted: bool
    repeated: bool


@dataclass(frozen=True)
class Edit:
    """A user's edit, or acceptance.

    Without key and revision, what an earlier revision said already is a repetition of it that came late.

    Attributes:
        response_id: Of what.
        edit: The text; None for accepted as it was.
        revision: That the client gives it; None for the next.
        key: By which the client knows it.
        time: When.
        cost: What it costs, if the response was finished when it came.
    """

    response_id: str
    edit: str | None
    revision: int | None
    key: str | None
    time: float
    cost: float | None = None

    def apply(self, pen: Pen) -> Edited:
        """Write text and cost.

        Raises:
            Problem: An unknown or removed response, or a key or revision that has another edit.
        """
        if self.key is not None:
            known = pen.first(_KEY, key=self.key)
            if known is not None:
                if known.response_id == self.response_id and known.edit == self.edit:
                    return self._again(pen, known.revision)
                raise Problem(409, "this key has another edit", code="key_reused", seen=self.key)
        draft = pen.first(_MINE, id=self.response_id)
        if draft is None:
            raise Problem(
                404, "no such response", code="response_not_found", param="response_id", seen=self.response_id
            )
        if draft.response is None and draft.finish is not None:
            what = {"removed": "was removed", "failed": "has failed"}.get(draft.finish, "has no text")
            raise Problem(410, f"this response {what}", code=f"response_{draft.finish}", param="response_id")
        there = {row.revision: row.edit for row in pen.connection.execute(_EDITS, {"id": self.response_id})}
        highest = max(there, default=0)
        revision = self.revision or highest + 1
        if self.revision is None:
            same = [number for number, edit in there.items() if self._is_same(edit, draft.response)]
            # With a key of its own it is a new edit, and may go back to what an earlier one said.
            if same and (self.key is None or same[-1] == highest):
                return self._again(pen, same[-1])
        if revision <= highest:
            if revision in there and there[revision] == self.edit:
                return self._again(pen, revision)
            what = f"revision {highest} is there already"
            raise Problem(409, what, code="revision_conflict", param="revision", seen=revision)
        row = {"response_id": self.response_id, "revision": revision, "time": self.time}
        pen.connection.execute(_EDIT, row | {"edit": self.edit, "key": self.key})
        cost, accepted = self.cost, self.edit is None or self.edit == draft.response
        if draft.response is not None:
            if cost is None:
                cost = _price(pen, draft.response, self.edit)
            _count(pen, self.response_id, revision, self.time, cost, accepted)
        return Edited(self.response_id, revision, cost, draft.policy, accepted, repeated=False)

    def _is_same(self, edit: str | None, response: str | None) -> bool:
        """Whether another revision says the same: None stands for the response as it was."""
        mine, other = (response if text is None else text for text in (self.edit, edit))
        return mine == other

    def _again(self, pen: Pen, revision: int) -> Edited:
        row = pen.first(
            select(events).where(events.c.response_id == self.response_id, events.c.revision == revision)
        )
        if row is None:  # the response's text is not known yet
            return Edited(self.response_id, revision, None, None, self.edit is None, repeated=True)
        accepted = self.edit is None or row.kind == "accepted"
        return Edited(self.response_id, revision, row.cost, row.arm, accepted, repeated=True)


def _price(pen: Pen, response: str, edit: str | None) -> float:
    return 0.0 if edit is None else pen.price(response, edit)


def _count(pen: Pen, response_id: str, revision: int, time: float, cost: float, accepted: bool) -> None:
    """Append the cost of an edit."""
    found = pen.decision(response_id)
    if found is None:
        policy = pen.connection.scalar(select(drafts.c.policy).where(drafts.c.response_id == response_id))
        pen.append_external(response_id, time, revision, cost, policy or "")
        return
    scope, arm = found
    outcome: Outcome = "accepted" if accepted else "edited"
    pen.append(Feedback(response_id, outcome, cost, revision), time, scope=scope, arm=arm)


@dataclass(frozen=True)
class External:
    """A response that was generated elsewhere, as a draft of its own."""

    response_id: str
    user: str | None
    policy: str | None
    context: str
    response: str
    metadata: str | None
    request: str
    time: float

    def apply(self, pen: Pen) -> None:
        """Write the draft, unless it is there.

        Raises:
            Problem: Another response has this id.
        """
        there = pen.first(select(drafts.c.request).where(drafts.c.response_id == self.response_id))
        if there is not None:
            if there.request == self.request:
                return
            raise Problem(409, "another response has this id", code="id_reused", seen=self.response_id)
        values = asdict(self) | {"finish": "external"}
        pen.connection.execute(insert(drafts).values(**values))


@dataclass(frozen=True)
class Expire:
    """Responses for which no edit is waited for any more."""

    response_ids: Sequence[str]
    time: float

    def apply(self, pen: Pen) -> int:
        """Write an event for each that has no feedback yet; returns how many."""
        done = 0
        for response_id in self.response_ids:
            query = select(events.c.seq).where(
                events.c.response_id == response_id, events.c.revision >= EXPIRED
            )
            found = pen.decision(response_id)
            if found is not None and pen.first(query) is None:
                pen.append(
                    Feedback(response_id, "expired", None, EXPIRED), self.time, scope=found[0], arm=found[1]
                )
                done += 1
        return done


@dataclass(frozen=True)
class Epoch:
    """Other arms from here on.

    Attributes:
        change: The arms that are played to those that are to be.
        added: Rows of `policies` for arms that are new.
        time: When.
    """

    change: Callable[[tuple[str, ...]], tuple[str, ...]]
    added: Sequence[dict[str, Any]]
    time: float

    def apply(self, pen: Pen) -> Arms:
        """Write the event, unless nothing changes.

        Raises:
            Problem: No arm would be left.
        """
        query = select(events).where(events.c.kind == "arms").order_by(events.c.seq.desc()).limit(1)
        row = pen.first(query)
        epoch, arms = (0, ()) if row is None else (row.epoch, tuple(json.loads(row.arms)))
        wanted = self.change(arms)
        if not wanted:
            raise Problem(409, "no arm would be left", code="last_arm", do="promote another run first")
        known = set(pen.connection.scalars(select(policies.c.arm)))
        for each in self.added:
            if each["arm"] not in known:
                pen.connection.execute(insert(policies).values(**each))
            else:  # the run folder may have moved
                mine = policies.c.arm == each["arm"]
                pen.connection.execute(
                    update(policies).where(mine).values(run=each["run"], name=each["name"])
                )
        if wanted == arms:
            return Arms(epoch, arms)
        event = Arms(epoch + 1, wanted)
        pen.append(event, self.time)
        return event


REMOVED = dict.fromkeys(("user", "request", "context", "response", "metadata")) | {"finish": "removed"}


@dataclass(frozen=True)
class Forget:
    """Texts of these responses go; costs without texts stay."""

    response_ids: Sequence[str]
    time: float

    def apply(self, pen: Pen) -> None:
        """Remove; what is still waited for expires."""
        Expire(self.response_ids, self.time).apply(pen)
        mine = drafts.c.response_id.in_(self.response_ids)
        pen.connection.execute(update(drafts).where(mine).values(**REMOVED))
        pen.connection.execute(delete(edits).where(edits.c.response_id.in_(self.response_ids)))


@dataclass(frozen=True)
class ForgetUser:
    """What comes of a user from here on, though it is older, has no texts: it waited in a replica's spool."""

    user: str
    time: float

    def apply(self, pen: Pen) -> None:
        """Keep when that was, under a name that does not tell who."""
        pen.keep(_tombstone(pen.fact("salt") or "", self.user), repr(self.time))
        pen.keep(FORGOTTEN, repr(max(self.time, float(pen.facts.get(FORGOTTEN, 0.0)))))
