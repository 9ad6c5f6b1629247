"""Commands that record users' edits: of the loop's own responses, and of texts from elsewhere."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from editloop.online.events import Outcome
from editloop.serve.loop.appender import EventAppender, outcome_of
from editloop.serve.loop.commands import of_response
from editloop.serve.loop.unstored import Texts
from editloop.serve.problem import Problem
from editloop.store import reads, references, writes
from editloop.store.database import Connection, Row
from editloop.store.schema import UNSTORED

__all__ = ["EditResult", "RecordEdit", "RecordExternal", "RecordSpan"]


@dataclass(frozen=True)
class EditResult:
    """What became of an edit.

    Attributes:
        response_id: The response that was edited.
        revision: The number of this edit among the edits of the response, from 1.
        cost: The cost of the edit; None while the response's text is not known yet.
        policy: The policy that wrote the response.
        outcome: What the user did with the response.
        repeated: Whether the edit had been recorded before.
    """

    response_id: str
    revision: int
    cost: float | None
    policy: str | None
    outcome: Outcome
    repeated: bool


@dataclass(frozen=True)
class RecordEdit:
    """A user's edit of a response, its acceptance, or that it was thrown away.

    Attributes:
        response_id: The response that was edited.
        edit: The text that the user left; None if the response was accepted unchanged, or thrown away.
        revision: The revision number that the client gives it; None for the next one.
        key: The client's idempotency key.
        time: When, in seconds since 1970.
        cost: The cost of the edit by the two texts, if it was computed before this command is applied.
        discarded: Whether the user threw the response away.
        reason: Why the user did that; None if it is not known.
        seconds: The seconds of work on it since the last revision; None if they are not known.
        limit: The revisions that the response may have; None sets no limit.
        draft: The response, if it comes from elsewhere with the edit.
        outcome: What the user did, if `edit` does not show it, because it is not kept.
        texts: The texts by which it is priced if those of the response are not kept. They are never written.
    """

    response_id: str
    edit: str | None
    revision: int | None
    key: str | None
    time: float
    cost: float | None = None
    discarded: bool = False
    reason: str | None = None
    seconds: float | None = None
    limit: int | None = None
    draft: RecordExternal | None = None
    outcome: Outcome | None = None
    texts: Texts | None = None

    @property
    def names(self) -> Collection[str]:
        """What it depends on: the response, and the edit that has come with the same key."""
        key = () if self.key is None else (f"key {self.key}",)
        return (*of_response(self.response_id), *key)

    def apply(self, appender: EventAppender) -> EditResult:
        """Write the text and its cost, unless the edit was recorded before.

        The idempotency key is looked at first: it identifies a repetition even if later edits have followed.

        Raises:
            Problem: 404 for an unknown response, 410 for one without a text, 409 for a key or a revision
                that belongs to another edit, or for one revision too many.
        """
        connection = appender.connection
        if self.key is not None and (known := reads.edit_by_key(connection, self.key)) is not None:
            same = (self.response_id, self.edit, self.discarded)
            if (known.response_id, known.edit, bool(known.discarded)) == same:
                return self._repeated(connection, known.revision)
            raise Problem(409, "this key belongs to another edit", code="key_reused", seen=self.key)
        if self.draft is not None:
            self.draft.apply(appender)
        draft = self._draft(connection)
        there = {
            row.revision: (row.edit, bool(row.discarded))
            for row in reads.revisions(connection, self.response_id)
        }
        # Without texts, only a key or a number shows a repetition; without these, the cost replaces itself.
        comparable = draft.finish != UNSTORED or self.revision is not None
        repeated = self._find_repeated(there, draft.response) if comparable else None
        if repeated is not None:
            return self._repeated(connection, repeated)
        if self.limit is not None and len(there) >= self.limit:
            raise Problem(409, f"this response has {len(there)} revisions", code="too_many_revisions")
        revision = self.revision or max(there, default=0) + 1
        row = {"response_id": self.response_id, "revision": revision, "time": self.time}
        row |= {"edit": self.edit, "key": self.key, "discarded": self.discarded or None}
        # A reason is a text, too.
        row |= {"reason": None if draft.finish == UNSTORED else self.reason, "seconds": self.seconds}
        writes.insert_edit(connection, row)
        cost, outcome = None, self.outcome or outcome_of(draft.response, self.edit, discarded=self.discarded)
        if draft.finish is not None:  # otherwise `RecordResponse` computes the cost when the text is there
            cost = appender.edit_cost(
                draft.response or "",
                self.edit,
                discarded=self.discarded,
                non_answer=draft.non_answer,
                measured=self.cost,
            )
            appender.append_edit_cost(self.response_id, revision, self.time, cost, outcome)
        return EditResult(self.response_id, revision, cost, draft.policy, outcome, repeated=False)

    def _draft(self, connection: Connection) -> Row[Any]:
        """The draft of the response.

        Raises:
            Problem: There is no such draft, or it has no text and will never get one.
        """
        draft = reads.draft(connection, self.response_id)
        if draft is None:
            raise Problem(
                404, "no such response", code="response_not_found", param="response_id", seen=self.response_id
            )
        if draft.response is None and draft.finish not in (None, UNSTORED):
            what = {"removed": "was removed", "failed": "has failed"}.get(draft.finish, "has no text")
            raise Problem(410, f"this response {what}", code=f"response_{draft.finish}", param="response_id")
        return draft

    def _find_repeated(self, there: dict[int, tuple[str | None, bool]], response: str | None) -> int | None:
        """The revision that this edit repeats; None if it is a new one.

        Without a key and a revision number, an edit that equals any earlier revision counts as a late
        repetition of that one, by a client that got no answer and sent it again. An edit with a new key is a
        new edit, which may go back to an earlier wording, unless it equals the last revision.

        Args:
            there: The texts of the revisions so far, and whether they threw the response away, by number and
                in that order.
            response: The text of the response, if it is known.

        Raises:
            Problem: 409, the revision number belongs to another edit.
        """
        highest = max(there, default=0)
        if self.revision is None:
            same = [number for number, each in there.items() if self._is_same(*each, response)]
            if same and (self.key is None or same[-1] == highest):  # the latest of several equal ones
                return same[-1]
        elif self.revision <= highest:
            if there.get(self.revision) == (self.edit, self.discarded):
                return self.revision
            what = f"there is a revision {highest} already"
            raise Problem(409, what, code="revision_conflict", param="revision", seen=self.revision)
        return None

    def _is_same(self, edit: str | None, discarded: bool, response: str | None) -> bool:
        """Whether another revision says the same; without an edit, the response stayed unchanged."""
        if discarded or self.discarded:
            return discarded == self.discarded
        mine, other = (response if text is None else text for text in (self.edit, edit))
        return mine == other

    def _repeated(self, connection: Connection, revision: int) -> EditResult:
        row = reads.feedback_event(connection, self.response_id, revision)
        outcome = outcome_of(None, self.edit, discarded=self.discarded)
        if row is None:  # the response's text is not known yet
            return EditResult(self.response_id, revision, None, None, outcome, repeated=True)
        if row.kind != "external":  # the event of a text from elsewhere does not name the outcome
            outcome = row.kind
        return EditResult(self.response_id, revision, row.cost, row.arm, outcome, repeated=True)


@dataclass(frozen=True)
class RecordExternal:
    """A response that was generated elsewhere, kept as a draft of its own.

    Attributes:
        response_id: Its identity.
        user: Who edits it.
        policy: What wrote it.
        context: The prompt or the messages, as JSON.
        response: Its text.
        metadata: What the client wants to be kept with it, as JSON.
        request: Digest of its content, by which a repetition is recognised.
        time: When, in seconds since 1970.
    """

    response_id: str
    user: str | None
    policy: str | None
    context: str
    response: str
    metadata: str | None
    request: str
    time: float

    @property
    def names(self) -> Collection[str]:
        """What it depends on."""
        return of_response(self.response_id)

    def apply(self, appender: EventAppender) -> None:
        """Write the draft, unless it is there already.

        Raises:
            Problem: 409, another response has this identity.
        """
        there = reads.draft(appender.connection, self.response_id)
        if there is None:
            writes.insert_draft(appender.connection, asdict(self) | {"finish": "external"})
        elif there.request != self.request:
            raise Problem(409, "another response has this id", code="id_reused", seen=self.response_id)


@dataclass(frozen=True)
class RecordSpan:
    """A response that was generated elsewhere, which a span reports.

    Attributes:
        draft: The response.
        alias: The other name of the response, that of the span.
    """

    draft: RecordExternal
    alias: str

    @property
    def names(self) -> Collection[str]:
        """What it depends on: the response, and whatever else is to have the other name."""
        return (*self.draft.names, f"alias {self.alias}")

    def apply(self, appender: EventAppender) -> bool:
        """Write the draft and its other name, and return whether the draft is new.

        A response that is there already only gets the name: an application's spans report the responses that
        it had from this server, too.
        """
        connection, response_id = appender.connection, self.draft.response_id
        is_new = reads.draft(connection, response_id) is None
        if is_new:
            self.draft.apply(appender)
        if self.alias != response_id and not references.aliased(connection, [self.alias]):
            writes.insert_alias(connection, self.alias, response_id)
        return is_new
