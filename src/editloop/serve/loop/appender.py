"""The event appender, with which commands write: it appends events, and remembers them with their numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from editloop.autopilot.ledger import epoch_columns, write_transitions
from editloop.autopilot.stages import Transition
from editloop.online import Arms, BanditConfig, Decided, Event, Feedback, Rerouted
from editloop.online.events import Outcome
from editloop.store import reads, writes
from editloop.store.database import Connection
from editloop.store.schema import COST, FORGOTTEN, SALT

__all__ = ["PRICES", "CostFunction", "EventAppender", "Prices", "outcome_of"]

CostFunction = Callable[[str, str], float]
"""A function of a response and its edit that returns the cost of the edit."""


class Prices(NamedTuple):
    """What costs something whatever the texts are.

    Attributes:
        discarded: The cost of a draft that was thrown away.
        non_answer: The least cost of a draft that is no answer, unless it is thrown away.
    """

    discarded: float = 1.0
    non_answer: float = 0.0

    @classmethod
    def of(cls, config: BanditConfig) -> Prices:
        """The prices of a configuration."""
        return cls(config.discarded, min(config.non_answer_cost, config.bound))


PRICES = Prices()


def outcome_of(response: str | None, edit: str | None, *, discarded: bool) -> Outcome:
    """What a user did with a response; without an edit, it was accepted unchanged or thrown away.

    While the response's text is not known (None), an edit counts as a change.
    """
    if discarded:
        return "discarded"
    return "accepted" if edit in (None, response) else "edited"


class EventAppender:
    """Appends events in a transaction that excludes other writers, as far as its commands need it.

    One appender serves one transaction, and is thrown away with it after a rollback. So no event is passed to
    the fold that is not on the disk.

    Args:
        connection: The connection of the transaction.
        edit_cost: The cost of an edit.
        facts: The facts about the store that commands depend on, as they are in this transaction.
        prices: What costs something whatever the texts are.

    Attributes:
        connection: As above.
        facts: As above.
        appended: The events appended so far, with their numbers; None for one that nobody folds.
    """

    def __init__(
        self,
        connection: Connection,
        edit_cost: CostFunction,
        facts: Mapping[str, str],
        prices: Prices = PRICES,
    ) -> None:
        self.connection, self.facts = connection, facts
        self._edit_cost, self._prices = edit_cost, prices
        self.appended: list[tuple[int, Event | Transition | None]] = []

    def append(
        self, event: Event, time: float, *, revision: int | None = None, scope: str = "", arm: str = ""
    ) -> None:
        """Append an event.

        A row of feedback repeats the scope and the arm of its decision, so that costs can be summed by them
        without a join.
        """
        row: dict[str, Any] = {"time": time, "revision": revision}
        if isinstance(event, Arms):
            row |= epoch_columns(event, self.facts.get(COST))
        elif isinstance(event, Decided):
            row |= {"kind": "decided", **event._asdict()}
        elif isinstance(event, Rerouted):
            row |= {"kind": "rerouted", "scope": scope, **event._asdict()}
        else:
            row |= {"kind": event.outcome, "scope": scope, "arm": arm, "cost": event.cost}
            row |= {"response_id": event.response_id, "revision": event.revision}
        self._insert(row, event)

    def append_transitions(self, transitions: Sequence[Transition]) -> Arms | None:
        """Append transitions of policies, and return the epoch that begins with them, if one does.

        Raises:
            AutopilotError: One does not follow the last one, or no arm would be left. Nothing was written.
        """
        written = write_transitions(self.connection, transitions)
        self.appended += written
        return next((each for _, each in reversed(written) if isinstance(each, Arms)), None)

    def append_edit_cost(
        self, response_id: str, revision: int, time: float, cost: float, outcome: Outcome
    ) -> None:
        """Append the cost of an edit: as feedback on the decision, if one of the arms wrote the response.

        The cost of an edit of any other text becomes an event `external`, which no bandit learns from.
        """
        found = reads.decision(self.connection, response_id)
        if found is None:
            draft = reads.draft(self.connection, response_id)
            row = {"kind": "external", "response_id": response_id, "time": time, "revision": revision}
            arm = draft.policy if draft is not None else None
            self._insert({**row, "cost": cost, "arm": arm or "", "scope": ""}, None)
            return
        feedback = Feedback(response_id, outcome, cost, revision)
        self.append(feedback, time, scope=found[0], arm=found[1])

    def _insert(self, row: Mapping[str, Any], event: Event | None) -> None:
        self.appended.append((writes.insert_event(self.connection, row), event))

    def edit_cost(
        self,
        response: str,
        edit: str | None,
        *,
        discarded: bool = False,
        non_answer: str | None = None,
        measured: float | None = None,
    ) -> float:
        """The cost of an edit.

        Args:
            response: The text that was edited.
            edit: What the user left; None stands for a response that was accepted unchanged, or thrown away.
            discarded: Whether it was thrown away.
            non_answer: By which rule the response is no answer.
            measured: The cost by the two texts, if it was computed before.
        """
        if discarded:
            return self._prices.discarded
        if measured is None:
            measured = 0.0 if edit is None else self._edit_cost(response, edit)
        return measured if non_answer is None else max(measured, self._prices.non_answer)

    # Users who were forgotten

    def note_forgotten(self, user: str, time: float) -> None:
        """Note when a user was forgotten, under a digest that does not reveal who it was."""
        writes.set_fact(self.connection, self._tombstone(user), repr(time))
        latest = repr(max(time, float(self.facts.get(FORGOTTEN, 0.0))))
        writes.set_fact(self.connection, FORGOTTEN, latest)
        self.facts = {**self.facts, FORGOTTEN: latest}  # for later commands of the same transaction

    def is_forgotten(self, user: str | None, time: float) -> bool:
        """Whether a user was forgotten after a decision at this time, which was in a spool until now."""
        latest = self.facts.get(FORGOTTEN)
        # Nearly every decision is younger than the last request to forget anyone, whose time was read with
        # the other facts of this transaction. That saves a query for each decision.
        if user is None or latest is None or time > float(latest):
            return False
        since = reads.fact(self.connection, self._tombstone(user))
        return since is not None and time <= float(since)

    def _tombstone(self, user: str) -> str:
        """The name of the fact that a user was forgotten."""
        salt = reads.fact(self.connection, SALT) or ""
        return f"{FORGOTTEN}:{hashlib.blake2b(f'{salt}:{user}'.encode(), digest_size=16).hexdigest()}"
