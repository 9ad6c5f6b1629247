"""Commands: what can be written to the store. Each knows what it does to the tables, and does it once.

Three rules hold for every command.

- It is applied in a transaction that excludes all other writers, or all that write about the same responses,
  so what it reads still holds when it writes. Commands of every request name what they depend on (`names`).
  Those without names depend on more: all drafts of a user, the arms, or what is long pending.
- It refuses before it writes anything, because a refused command shares its transaction with others.
- Applying it twice has the same effect as applying it once, because a client may send it again, and the spool
  does after a kill or a lost connection.

The commands for edits are in `edit_commands`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from editloop.autopilot.assignment import user_key
from editloop.autopilot.ledger import arms_of, by_hand, read_stages
from editloop.online import Arms, Decided, Feedback, Heir, Rerouted
from editloop.serve.loop.appender import EventAppender, outcome_of
from editloop.serve.problem import Problem
from editloop.store import reads, writes
from editloop.store.schema import DECIDED, EXPIRED, SALT

__all__ = [
    "Command",
    "ExpireResponses",
    "ForgetUser",
    "RecordDecision",
    "RecordReroute",
    "RecordResponse",
    "RemoveTexts",
    "StartEpoch",
    "names_of",
    "of_response",
]

T_co = TypeVar("T_co", covariant=True)


class Command(Protocol[T_co]):
    """Something that the writer can apply."""

    def apply(self, appender: EventAppender) -> T_co:
        """Write to the store, in a transaction that excludes other writers as the command's names say.

        Raises:
            Problem: The command is refused, and nothing was written.
        """
        ...


def names_of(commands: Iterable[object]) -> frozenset[str] | None:
    """Return what commands depend on, all together; None if one of them excludes all other writers.

    It is what their attribute `names` says. A command that has none excludes all others.
    """
    names: set[str] = set()
    for command in commands:
        own: Collection[str] | None = getattr(command, "names", None)
        if own is None:
            return None
        names.update(own)
    return frozenset(names)


def of_response(response_id: str) -> tuple[str, ...]:
    """Return the names of a command that depends on one response: its decision, draft, edits and shadows."""
    return (f"response {response_id}",)


@dataclass(frozen=True)
class RecordDecision:
    """A decision, and what was asked.

    Attributes:
        decision: The event.
        time: When it was made, in seconds since 1970.
        user: Who asked.
        request: Digest of the request, by which a repetition is recognised.
        context: The prompt or the messages, as JSON; None if they are not kept.
        metadata: What the client wants to be kept with the response, as JSON.
        client_key: By which the client finds the response.
        has_instructions: As of `CompletionRequest`.
        store: Whether texts are kept.
    """

    decision: Decided
    time: float
    user: str | None
    request: str
    context: str | None
    metadata: str | None
    client_key: str | None = None
    has_instructions: bool | None = None
    store: bool = True

    @property
    def names(self) -> Collection[str]:
        """What it depends on."""
        return of_response(self.decision.response_id)

    def apply(self, appender: EventAppender) -> str | None:
        """Write the event and the draft, without texts if the user has been forgotten in the meantime.

        Returns:
            The arm that is in the store already, if another replica was asked for the same response and has
            decided first; else None.
        """
        decision = self.decision
        found = reads.decision(appender.connection, decision.response_id)
        if found is not None:
            return found[1]  # a repetition: out of the spool, or of a request that two replicas got
        forgotten = appender.is_forgotten(self.user, self.time)
        # What a decision knew of its request goes with the texts.
        event = decision._replace(features=None) if forgotten or not self.store else decision
        appender.append(event, self.time, revision=DECIDED)
        row = {"response_id": decision.response_id, "time": self.time, "user": self.user}
        row |= {"policy": decision.arm, "propensity": decision.propensity}
        row |= {"request": self.request, "context": self.context, "metadata": self.metadata}
        row |= {"client_key": self.client_key, "has_instructions": self.has_instructions}
        row |= {"text_digest": None if self.store else ""}
        writes.insert_draft(appender.connection, row, removed=forgotten)
        if forgotten:  # a response without texts takes no edits, so it must not stay pending
            ExpireResponses((decision.response_id,), self.time, "void").apply(appender)
        return None


@dataclass(frozen=True)
class RecordReroute:
    """Another arm answers in place of the one that was chosen.

    Attributes:
        response_id: The response.
        arm: The arm that answers now.
        attempt: Which attempt this is: 1 for the first reroute of a request.
        time: When, in seconds since 1970.
    """

    response_id: str
    arm: str
    attempt: int
    time: float

    @property
    def names(self) -> Collection[str]:
        """What it depends on."""
        return of_response(self.response_id)

    def apply(self, appender: EventAppender) -> None:
        """Write the event, and give the draft to the other arm.

        Revisions must be unique within a response, and the lowest one is the last reroute. A request that is
        sent again after the server was killed may already have reroutes, which hold the revisions that its
        own attempts would get. So the new one goes below all of them.
        """
        connection = appender.connection
        found = reads.decision(connection, self.response_id)
        rows = reads.decision_events(connection, self.response_id)
        # The time tells a command that is applied again from a second reroute to the same arm.
        if found is None or any((row.arm, row.time) == (self.arm, self.time) for row in rows):
            return
        revision = min(DECIDED - self.attempt, min(row.revision for row in rows) - 1)
        event = Rerouted(self.response_id, self.arm)
        appender.append(event, self.time, revision=revision, scope=found[0])
        writes.reroute_draft(connection, self.response_id, self.arm)


@dataclass(frozen=True)
class RecordResponse:
    """A response has ended.

    Attributes:
        response_id: The response.
        response: Its text; None if it has none that could be edited, because it failed or is a tool call.
        finish: `stop`, `length` ..., or `failed`.
        time: When, in seconds since 1970.
        non_answer: By which rule it is no answer (`editloop.edits.non_answers`); None if it is one.
        compared: All drafts of which it was chosen, as JSON; None if it is the only one.
        seconds: The time that the policy took; None if it is not known.
        logprob: Its log-probability by the policy that wrote it, in nats; None if it is not known.
        prompt_tokens: The tokens of what was asked; None if the backend did not say.
        completion_tokens: The tokens of the response; None if the backend did not say.
        message: The assistant's message as JSON, if it is a tool call.
        text_digest: Digest of its text, which is not kept; None if there is no text, or it is kept.
        arm: Who wrote it; None if that is whose the draft is. It is another one if two replicas were asked
            for the same response, and the one whose decision came second has finished first.
    """

    response_id: str
    response: str | None
    finish: str
    time: float
    non_answer: str | None = None
    compared: str | None = None
    seconds: float | None = None
    logprob: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    message: str | None = None
    text_digest: str | None = None
    arm: str | None = None

    @property
    def names(self) -> Collection[str]:
        """What it depends on."""
        return of_response(self.response_id)

    def apply(self, appender: EventAppender) -> tuple[str, str] | None:
        """Write the text and who wrote it, and the costs of edits that came before it.

        An application that streams may send an edit before the last part of the response has arrived.

        Returns:
            The text that is in the store already, and its arm, if another attempt finished first; else None.
        """
        connection = appender.connection
        # It updates only a draft without an end, so of several attempts the first to finish is kept.
        arm = writes.finish_draft(
            connection,
            self.response_id,
            self.response,
            self.finish,
            non_answer=self.non_answer,
            compared=self.compared,
            seconds=self.seconds,
            logprob=self.logprob,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            message=self.message,
            text_digest=self.text_digest,
        )
        if arm is None:
            draft = reads.draft(connection, self.response_id)
            return None if draft is None or draft.response is None else (draft.response, draft.policy)
        if (
            self.arm is not None and self.arm != arm
        ):  # in this transaction: an edit must not find the other arm
            RecordReroute(self.response_id, self.arm, 1, self.time).apply(appender)
        if self.response is None and self.text_digest is None:
            ExpireResponses((self.response_id,), self.time, "void").apply(appender)
            return None
        for row in reads.revisions(connection, self.response_id):
            discarded = bool(row.discarded)
            cost = appender.edit_cost(
                self.response or "", row.edit, discarded=discarded, non_answer=self.non_answer
            )
            outcome = outcome_of(self.response, row.edit, discarded=discarded)
            appender.append_edit_cost(self.response_id, row.revision, row.time, cost, outcome)
        return None


@dataclass(frozen=True)
class ExpireResponses:
    """No edit of these responses is expected any more.

    Attributes:
        response_ids: The responses.
        time: When, in seconds since 1970.
        outcome: `expired` if their users saw a draft, `void` if there is none that could be edited.
    """

    response_ids: Sequence[str]
    time: float
    outcome: Literal["expired", "void"] = "expired"

    def apply(self, appender: EventAppender) -> int:
        """Write an event for each response without feedback, and return how many there were."""
        expired = 0
        for response_id in self.response_ids:
            found = reads.decision(appender.connection, response_id)
            if found is not None and not reads.has_feedback(appender.connection, response_id):
                event = Feedback(response_id, self.outcome, None, EXPIRED)
                appender.append(event, self.time, scope=found[0], arm=found[1])
                expired += 1
        return expired


@dataclass(frozen=True)
class StartEpoch:
    """Other arms are played from here on.

    Attributes:
        change: A function that returns the arms to be played, given the last epoch. A function and not a list
            of arms, because another replica may have changed the arms since the request came.
        added: Rows of the table `policies` for the new arms.
        time: When, in seconds since 1970.
        heirs: What arms begin with, by arm.
        owners: The keys of the users to whom arms belong, by arm; empty for one that is now for everybody.
    """

    change: Callable[[Arms], tuple[str, ...]]
    added: Sequence[dict[str, Any]]
    time: float
    heirs: Mapping[str, Heir] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)

    def apply(self, appender: EventAppender) -> Arms:
        """Write the event, unless the arms stay the same.

        Raises:
            Problem: 409, no arm would be left.
        """
        row = reads.last_epoch(appender.connection)
        now = Arms(0, ()) if row is None else arms_of(row)
        arms, wanted = now.arms, self.change(now)
        if not wanted:
            raise Problem(409, "no arm would be left", code="last_arm", do="promote another run first")
        known = reads.arm_names(appender.connection)
        for each in self.added:
            if each["arm"] not in known:
                writes.insert_policy(appender.connection, each)
            else:  # the same weights, but the run folder may have been moved
                writes.move_policy(appender.connection, each["arm"], each["run"], each["name"])
        stages = read_stages(appender.connection)
        for arm, owner in self.owners.items():
            if (own := stages.owner(arm)) and own != owner:
                raise Problem(409, "it is the arm of one user", code="arm_personal", seen=arm)
        event = now.next(wanted, heirs=self.heirs, owners=self.owners)
        if (wanted, event.owners) == (arms, now.owners):  # a repetition must not begin another epoch
            return now
        if not event.shared:
            raise Problem(409, "no arm for everybody would be left", code="last_arm", do="keep another one")
        appender.append(event, self.time)
        appender.append_transitions(by_hand(stages, now, event, self.time))
        return event


@dataclass(frozen=True)
class RemoveTexts:
    """The texts of these responses are removed; their costs, which hold no text, stay.

    Attributes:
        response_ids: The responses.
        time: When, in seconds since 1970.
    """

    response_ids: Sequence[str]
    time: float

    def apply(self, appender: EventAppender) -> None:
        """Remove the texts. Pending responses expire first, because no edit of them is taken any more."""
        ExpireResponses(self.response_ids, self.time).apply(appender)
        writes.remove_texts(appender.connection, self.response_ids)


@dataclass(frozen=True)
class ForgetUser:
    """A user is forgotten: older decisions of theirs that arrive later are written without texts.

    Such decisions were in the spool of a replica when the texts were removed from the store.

    Attributes:
        user: Who is forgotten.
        time: When, in seconds since 1970.
    """

    user: str
    time: float

    def apply(self, appender: EventAppender) -> None:
        """Note the time, which `RecordDecision` compares with that of each decision; retire their arms."""
        appender.note_forgotten(self.user, self.time)
        row = reads.last_epoch(appender.connection)
        if row is None:
            return
        now, key = arms_of(row), user_key(reads.fact(appender.connection, SALT) or "", self.user)
        left = [arm for arm in now.arms if now.owners.get(arm) != key]
        if len(left) < len(now.arms):
            event = now.next(left)
            appender.append(event, self.time)
            appender.append_transitions(by_hand(read_stages(appender.connection), now, event, self.time))
