"""The stages of a policy, as a fold over transitions: each is written once, with its evidence.

A policy earns its traffic. A generation is fitted, and its best policy passes the offline gates; in the
*shadow* it writes drafts that nobody sees; in the *canary* a share of the users gets all their drafts from
it; then it is an *arm* among others, and the best of the arms is the *champion*. A policy leaves at any
point: *rejected* before it is an arm, *retired* when it is worse than others, *rolled back* when something is
wrong.

This module knows no database and no test: only which transitions there are, and where everything stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from editloop.errors import AutopilotError
from editloop.online.events import Heir

__all__ = ["ALLOWED", "BY_HAND", "PLAYED", "Lineage", "Stage", "Stages", "Transition"]


class Stage(StrEnum):
    """Where a policy, or the generation that it comes from, stands."""

    FITTING = "fitting"
    FITTED = "fitted"
    FAILED = "failed"
    REJECTED = "rejected"
    SHADOW = "shadow"
    CANARY = "canary"
    ARM = "arm"
    CHAMPION = "champion"
    RETIRED = "retired"
    ROLLED_BACK = "rolled back"


PLAYED = frozenset({Stage.ARM, Stage.CHAMPION})
"""The stages in which the bandit may choose a policy."""

_OUT = {Stage.RETIRED, Stage.ROLLED_BACK}

ALLOWED: Mapping[Stage | None, frozenset[Stage]] = {
    None: frozenset({Stage.FITTING, Stage.SHADOW, Stage.REJECTED, Stage.ARM}),
    Stage.FITTING: frozenset({Stage.FITTED, Stage.FAILED}),
    Stage.SHADOW: frozenset({Stage.CANARY, Stage.REJECTED, Stage.ROLLED_BACK}),
    Stage.CANARY: frozenset({Stage.ARM, Stage.REJECTED, Stage.ROLLED_BACK}),
    Stage.ARM: frozenset({Stage.CHAMPION, *_OUT}),
    Stage.CHAMPION: frozenset({Stage.ARM, *_OUT}),
}
"""The stages that may follow a stage by themselves; None is that of a policy without any transition.

A policy that somebody promoted without the autopilot begins as an arm.
"""

BY_HAND: Mapping[Stage | None, frozenset[Stage]] = {
    **ALLOWED,
    Stage.SHADOW: ALLOWED[Stage.SHADOW] | {Stage.ARM},
    Stage.REJECTED: frozenset({Stage.SHADOW, Stage.CANARY, Stage.ARM}),
    Stage.RETIRED: frozenset({Stage.CANARY, Stage.ARM}),
    Stage.ROLLED_BACK: frozenset({Stage.SHADOW, Stage.CANARY, Stage.ARM}),
    Stage.ARM: ALLOWED[Stage.ARM] | {Stage.CANARY},
    Stage.CANARY: ALLOWED[Stage.CANARY] | {Stage.SHADOW},
}
"""What somebody may also ask for, to undo a transition or to hurry one."""

_TERMS: Mapping[str, Any] = {"share": 0.2, "unit": "user", "rounds": 400, "draw": 0}
"""The terms of a canary that somebody begins in a store that never had one."""

SHARED = frozenset({Stage.SHADOW, Stage.CANARY, Stage.CHAMPION})
"""The stages in which everybody may get a policy, or its drafts are compared for everybody. An arm of one
user has none of them."""

_ONE_AT_A_TIME = (Stage.FITTING, Stage.SHADOW, Stage.CANARY, Stage.CHAMPION)
"""Of these there is one policy at a time, for users would otherwise see several novelties at once."""


class Lineage(NamedTuple):
    """Where a generation comes from.

    Attributes:
        generation: Its number, from 1.
        parents: The arms that were played when it was fitted, which wrote much of what it learns from.
        start: The base or the arm from which its weights began.
        until: Its rows are older than this, in seconds since 1970.
        run: Its run folder.
        rows: The number of its rows; 0 while it is not known.
        fingerprint: The SHA-256 of its rows; empty while it is not known.
        minutes: What its fit took.
        owner: The key of the user of whose rows it is, and who alone gets it; empty for everybody.
    """

    generation: int
    parents: tuple[str, ...] = ()
    start: str = ""
    until: float = 0.0
    run: str = ""
    rows: int = 0
    fingerprint: str = ""
    minutes: float = 0.0
    owner: str = ""


class Transition(NamedTuple):
    """A policy, or a generation, has reached a stage.

    Attributes:
        subject: The arm, `early@1f2e3d4c`, or `generation-3` while it is fitted.
        before: The stage that it had; None for none. A transition of anything else is refused.
        stage: The stage that it has now.
        time: When, in seconds since 1970.
        by: Who decided: `autopilot`, or the name of a key, or `somebody`.
        reason: Why, in a sentence.
        evidence: The figures behind it, as JSON types.
        lineage: Where it comes from.
    """

    subject: str
    before: Stage | None
    stage: Stage
    time: float
    by: str = "autopilot"
    reason: str = ""
    evidence: Mapping[str, Any] = {}
    lineage: Lineage | None = None

    def to_text(self) -> str:
        """Return the transition as JSON, from which `from_text` restores it."""
        row = {**self._asdict(), "lineage": self.lineage and self.lineage._asdict()}
        return json.dumps(row, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_text(cls, text: str) -> Transition:
        """Return what `to_text` wrote.

        Raises:
            AutopilotError: It is no transition.
        """
        try:
            row = json.loads(text)
            before, lineage = row.pop("before"), row.pop("lineage", None)
            row["stage"], row["before"] = Stage(row["stage"]), None if before is None else Stage(before)
            if lineage is not None:
                lineage = Lineage(**{**lineage, "parents": tuple(lineage["parents"])})
            return cls(**row, lineage=lineage)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise AutopilotError("a transition cannot be read", seen=text[:200]) from error

    @property
    def sentence(self) -> str:
        """The transition in one line."""
        line = f"{self.subject}: {self.before or 'new'} → {self.stage}"
        return f"{line} ({self.reason})" if self.reason else line


class Stages:
    """Where everything stands after some transitions.

    Args:
        transitions: The transitions so far, in order.

    Attributes:
        history: All transitions that were applied.
    """

    def __init__(self, transitions: Iterable[Transition] = ()) -> None:
        self.history: list[Transition] = []
        self._last: dict[str, Transition] = {}
        for each in transitions:
            self.apply(each)

    def apply(self, transition: Transition) -> None:
        """Apply a transition.

        Raises:
            AutopilotError: It does not follow the subject's last one, there is no such transition, or another
                policy is in a stage that takes one at a time.
        """
        subject, before, stage = transition.subject, transition.before, transition.stage
        if self.of(subject) != before:
            now = self.of(subject) or "new"
            raise AutopilotError(f"{subject} is {now} by now, not {before or 'new'}", seen=str(stage))
        if stage not in (ALLOWED if transition.by == "autopilot" else BY_HAND).get(before, frozenset()):
            raise AutopilotError(f"{subject} cannot become {stage} from {before or 'new'}")
        if stage in SHARED and self.owner(subject):
            raise AutopilotError(f"an arm of one user cannot become {stage}", seen=subject)
        if stage in _ONE_AT_A_TIME and (other := self.the(stage)) is not None:
            raise AutopilotError(f"another one is in this stage: {stage}", seen=other.subject)
        self._last[subject] = transition
        self.history.append(transition)

    def of(self, subject: str) -> Stage | None:
        """Return the stage of a policy or a generation; None if it has no transition."""
        last = self._last.get(subject)
        return None if last is None else last.stage

    def last(self, subject: str) -> Transition | None:
        """Return the last transition of a policy or a generation."""
        return self._last.get(subject)

    def the(self, stage: Stage) -> Transition | None:
        """Return the transition by which the one policy of a stage reached it; None if there is none."""
        return next((each for each in self._last.values() if each.stage == stage), None)

    def tried(self, subject: str) -> Stage | None:
        """The shadow or the canary, if the policy is in it; None otherwise."""
        stage = self.of(subject)
        return stage if stage in (Stage.SHADOW, Stage.CANARY) else None

    def having(self, *stages: Stage) -> list[str]:
        """Return what is in one of these stages, in the order in which it first appeared."""
        return [subject for subject, last in self._last.items() if last.stage in stages]

    @property
    def subjects(self) -> list[str]:
        """Everything that has a stage, in the order in which it first appeared."""
        return list(self._last)

    def may_become(self, subject: str) -> frozenset[Stage]:
        """Return the stages to which somebody may move a policy now; another champion steps down."""
        wanted = BY_HAND.get(self.of(subject), frozenset())
        if self.of(subject) in (None, Stage.FITTING):
            return frozenset()
        taken = {stage for stage in _ONE_AT_A_TIME if self.the(stage) is not None} - {Stage.CHAMPION}
        taken |= SHARED if self.owner(subject) else set()
        return wanted - taken

    def moved_by_hand(
        self, subject: str, stage: Stage, time: float, by: str, reason: str = ""
    ) -> list[Transition]:
        """Return the transitions by which somebody moves a policy to a stage.

        Raises:
            AutopilotError: The policy has no stage, so that nothing is known of it.
        """
        before = self.of(subject)
        if before is None:
            raise AutopilotError("no such policy has a stage", seen=subject, do="see the status")
        steps = []
        if stage is Stage.CHAMPION and (other := self.champion) not in (None, subject):
            steps.append(Transition(str(other), stage, Stage.ARM, time, by, f"{subject} takes its place"))
        terms, lineage = self.terms(subject, stage), self.lineage(subject)
        return [*steps, Transition(subject, before, stage, time, by, reason, terms, lineage)]

    def terms(self, subject: str, stage: Stage) -> Mapping[str, Any]:
        """Return the terms of a stage that somebody asks for: the last ones, with today's champion."""
        terms: dict[str, Any] = {}
        for each in self.history:
            if each.stage == stage and (each.subject == subject or not terms):
                terms = {name: each.evidence[name] for name in _TERMS if name in each.evidence}
        return {**_TERMS, **terms, "champion": self.champion} if stage is Stage.CANARY else terms

    def owner(self, subject: str) -> str:
        """Return the key of the user whose arm a policy is; empty if it is for everybody."""
        lineage = self.lineage(subject)
        return "" if lineage is None else lineage.owner

    def heir(self, subject: str) -> Heir | None:
        """Return what a policy begins with as an arm, by what its transitions say; None for nothing."""
        for each in reversed(self.history):
            if each.subject == subject and (found := each.evidence.get("inherits")):
                return Heir(**found)
        return None

    @property
    def champion(self) -> str | None:
        """The champion; None before the first."""
        found = self.the(Stage.CHAMPION)
        return None if found is None else found.subject

    @property
    def generation(self) -> int:
        """The number of the last generation; 0 before the first."""
        return max((each.lineage.generation for each in self.history if each.lineage), default=0)

    @property
    def was_lost(self) -> bool:
        """Whether the last generation ended before users had a draft of its policy.

        What it should have learned from is still to be learned.
        """
        for subject, last in self._last.items():
            lineage = self.lineage(subject)
            if lineage is not None and lineage.generation == self.generation and not lineage.owner:
                rejected = last.stage is Stage.REJECTED and last.before is not Stage.CANARY
                if rejected or last.stage is Stage.FAILED:
                    return True
        return False

    def lineage(self, subject: str) -> Lineage | None:
        """Return where a policy comes from; None if it was made by hand."""
        return next(
            (each.lineage for each in reversed(self.history) if each.subject == subject and each.lineage),
            None,
        )
