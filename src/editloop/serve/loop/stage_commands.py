"""Commands for the stages of policies: a transition that somebody asks for, and a draft that nobody sees."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from editloop.autopilot.ledger import PAUSED, read_stages
from editloop.autopilot.stages import Stage
from editloop.errors import AutopilotError
from editloop.online import Arms
from editloop.serve.loop.appender import EventAppender
from editloop.serve.loop.commands import of_response
from editloop.serve.problem import Problem
from editloop.store import reads, writes

__all__ = ["ChangeStage", "PauseAutopilot", "RecordShadow"]


@dataclass(frozen=True)
class ChangeStage:
    """Somebody moves a policy to another stage.

    Attributes:
        subject: The policy.
        stage: The stage.
        time: When, in seconds since 1970.
        by: Who.
        reason: Why.
    """

    subject: str
    stage: Stage
    time: float
    by: str
    reason: str = ""

    def apply(self, appender: EventAppender) -> Arms | None:
        """Write the transition, and return the epoch that begins with it, if one does.

        Raises:
            Problem: 404, no such policy was ever in a stage; 409, it cannot get to this one from its own.
        """
        stages = read_stages(appender.connection)
        if stages.of(self.subject) is None:
            raise Problem(404, "no such policy has a stage", code="arm_not_found", seen=self.subject)
        try:
            steps = stages.moved_by_hand(self.subject, self.stage, self.time, self.by, self.reason)
            return appender.append_transitions(steps)
        except AutopilotError as error:
            raise Problem(409, str(error), code="stage_refused", seen=self.subject) from error


@dataclass(frozen=True)
class PauseAutopilot:
    """The autopilot takes no step, or goes on.

    Attributes:
        note: Since when, and by whom; empty to go on.
    """

    note: str

    def apply(self, appender: EventAppender) -> None:
        """Write the fact that the autopilot looks at before each step."""
        writes.set_fact(appender.connection, PAUSED, self.note)


@dataclass(frozen=True)
class RecordShadow:
    """A draft that nobody sees, of a request that another policy has answered.

    Attributes:
        response_id: The response that the user saw.
        arm: The policy that wrote this draft.
        response: Its text.
        finish: Why it ended.
        time: When, in seconds since 1970.
    """

    response_id: str
    arm: str
    response: str
    finish: str
    time: float

    @property
    def names(self) -> Collection[str]:
        """What it depends on."""
        return of_response(self.response_id)

    def apply(self, appender: EventAppender) -> None:
        """Write the draft, unless the texts of the response were removed, or it is there already."""
        draft = reads.draft(appender.connection, self.response_id)
        if draft is None or draft.context is None:
            return
        if not reads.has_shadow(appender.connection, self.response_id, self.arm):
            row = {"response_id": self.response_id, "arm": self.arm, "time": self.time}
            writes.insert_shadow(
                appender.connection, {**row, "response": self.response, "finish": self.finish}
            )
