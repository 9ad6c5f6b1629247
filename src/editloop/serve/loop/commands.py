"""Commands: what can be written to the store. Each knows what it does to the tables, and does it once.

A command is applied in a transaction of which there is one at a time, so what it reads still holds when it
writes. It refuses before it writes anything. Applying one twice has the same effect as applying it once,
because a client, or the spool, may send it again. Edits are in `edit_commands`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from editloop.online import Arms, Decided, Feedback, Rerouted
from editloop.serve.loop.appender import EventAppender
from editloop.serve.problem import Problem
from editloop.store import reads, writes
from editloop.store.schema import DECIDED, EXPIRED

__all__ = [
    "Command",
    "ExpireResponses",
    "ForgetUser",
    "RecordDecision",
    "RecordReroute",
    "RecordResponse",
    "RemoveTexts",
    "StartEpoch",
]

T_co = TypeVar("T_co", covariant=True)


class Command(Protocol[T_co]):
    """What a writer can apply."""

    def apply(self, appender: EventAppender) -> T_co:
        """Write it, in a transaction that excludes all other writers.

        Raises:
            Problem: It is refused; nothing was written.
        """
        ...


@dataclass(frozen=True)
class RecordDecision:
    """A decision, and what was asked.

    Attributes:
        decision: The event.
        time: When it was made, in seconds since 1970.
        user: Who asked.
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

    def apply(self, appender: EventAppender) -> None:
        """Write the event and the draft; without texts, if the user was forgotten since."""
        decision = self.decision
        if reads.decision(appender.connection, decision.response_id) is not None:
            return
        appender.append(decision, self.time, revision=DECIDED)
        row = {"response_id": decision.response_id, "time": self.time, "user": self.user}
        row |= {"policy": decision.arm, "propensity": decision.propensity}
        row |= {"request": self.request, "context": self.context, "metadata": self.metadata}
        forgotten = appender.is_forgotten(self.user, self.time)
        writes.insert_draft(appender.connection, row, removed=forgotten)
        if forgotten:
            ExpireResponses((decision.response_id,), self.time).apply(appender)


@dataclass(frozen=True)
class RecordReroute:
    """Another arm answers in place of the one that was chosen.

    Attributes:
        response_id: The response that it answers with.
        arm: The arm that answers now.
        attempt: Which attempt this is: 1 for the first reroute of a request.
        time: When, in seconds since 1970.
    """

    response_id: str
    arm: str
    attempt: int
    time: float

    def apply(self, appender: EventAppender) -> None:
        """Write the event, and give the draft to the other arm.

        A request that is sent again after the server was killed may have reroutes from before, which hold the
        revisions that its own attempts would get: it goes on after the last of them.
        """
        connection = appender.connection
        found = reads.decision(connection, self.response_id)
        rows = reads.decision_events(connection, self.response_id)
        if found is None or any((row.arm, row.time) == (self.arm, self.time) for row in rows):
            return
        revision = min(DECIDED - self.attempt, min(row.revision for row in rows) - 1)
        event = Rerouted(self.response_id, self.arm)
        appender.append(event, self.time, revision=revision, scope=found[0])
        writes.reroute_draft(connection, self.response_id, self.arm)


@dataclass(frozen=True)
class RecordResponse:
    """A response has come to its end.

    Attributes:
        response_id: Which response.
        response: Its text; None if nothing can be learned from it, because it failed or was broken off.
        finish: `stop`, `length` ..., or `failed`.
        time: When, in seconds since 1970.
    """

    response_id: str
    response: str | None
    finish: str
    time: float

    def apply(self, appender: EventAppender) -> str | None:
        """Write the text, and the costs of edits that came before it.

        Returns:
            The text that is there already, if another attempt finished first.
        """
        connection = appender.connection
        if not writes.finish_draft(connection, self.response_id, self.response, self.finish):
            draft = reads.draft(connection, self.response_id)
            return None if draft is None else draft.response
        if self.response is None:
            ExpireResponses((self.response_id,), self.time).apply(appender)
            return None
        for row in reads.revisions(connection, self.response_id):
            cost, accepted = appender.edit_cost(self.response, row.edit), row.edit in (None, self.response)
            appender.append_edit_cost(self.response_id, row.revision, row.time, cost, accepted=accepted)
        return None


@dataclass(frozen=True)
class ExpireResponses:
    """No edit of these responses is expected any more.

    Attributes:
        response_ids: Which responses.
        time: When, in seconds since 1970.
    """

    response_ids: Sequence[str]
    time: float

    def apply(self, appender: EventAppender) -> int:
        """Write an event for each that has no feedback yet; returns for how many."""
        expired = 0
        for response_id in self.response_ids:
            found = reads.decision(appender.connection, response_id)
            if found is not None and not reads.has_feedback(appender.connection, response_id):
                event = Feedback(response_id, "expired", None, EXPIRED)
                appender.append(event, self.time, scope=found[0], arm=found[1])
                expired += 1
        return expired


@dataclass(frozen=True)
class StartEpoch:
    """Other arms are played from here on.

    Attributes:
        change: From the arms that are played to those that are to be played.
        added: Rows of the table `policies`, for arms that are new.
        time: When, in seconds since 1970.
    """

    change: Callable[[tuple[str, ...]], tuple[str, ...]]
    added: Sequence[dict[str, Any]]
    time: float

    def apply(self, appender: EventAppender) -> Arms:
        """Write the event, unless the arms stay the same.

        Raises:
            Problem: No arm would be left.
        """
        row = reads.last_epoch(appender.connection)
        epoch, arms = (0, ()) if row is None else (row.epoch, tuple(json.loads(row.arms)))
        wanted = self.change(arms)
        if not wanted:
            raise Problem(409, "no arm would be left", code="last_arm", do="promote another run first")
        known = reads.arm_names(appender.connection)
        for each in self.added:
            if each["arm"] not in known:
                writes.insert_policy(appender.connection, each)
            else:  # the run folder may have been moved
                writes.move_policy(appender.connection, each["arm"], each["run"], each["name"])
        if wanted == arms:
            return Arms(epoch, arms)
        event = Arms(epoch + 1, wanted)
        appender.append(event, self.time)
        return event


@dataclass(frozen=True)
class RemoveTexts:
    """The texts of these responses are removed; their costs, which hold no text, stay.

    Attributes:
        response_ids: Which responses.
        time: When, in seconds since 1970.
    """

    response_ids: Sequence[str]
    time: float

    def apply(self, appender: EventAppender) -> None:
        """Remove the texts; responses that are still pending expire."""
        ExpireResponses(self.response_ids, self.time).apply(appender)
        writes.remove_texts(appender.connection, self.response_ids)


@dataclass(frozen=True)
class ForgetUser:
    """Whatever arrives of a user later, but is older, has no texts: it was in a replica's spool meanwhile.

    Attributes:
        user: Who is forgotten.
        time: When, in seconds since 1970.
    """

    user: str
    time: float

    def apply(self, appender: EventAppender) -> None:
        """Note when that was, so that `RecordDecision` can tell."""
        appender.note_forgotten(self.user, self.time)
