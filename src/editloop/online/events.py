"""Events: what was decided and what came back, each written once and never changed.

Everything that a bandit knows is a fold over its events (`editloop.online.state`). This module does not know
how an arm is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from editloop.errors import BanditError
from editloop.journal import append_rows, read_rows

__all__ = [
    "Arms",
    "Decided",
    "Event",
    "Feedback",
    "Heir",
    "Outcome",
    "Rerouted",
    "append_events",
    "event_from_json",
    "read_events",
]

Outcome = Literal["edited", "accepted", "discarded", "expired", "void"]
UNKNOWN: tuple[Outcome, ...] = ("expired", "void")
"""The outcomes without a cost."""


class Heir(NamedTuple):
    """What an arm begins with: the evidence on the arm that it was made from (`editloop.online.heirs`).

    Attributes:
        parent: The other arm.
        pulls: The most pulls that its evidence counts for, however many it has.
        change: What this arm is expected to cost more than the other one; below 0 if it is better.
    """

    parent: str
    pulls: float
    change: float = 0.0


class Arms(NamedTuple):
    """A new epoch begins. An arm's counts are kept while it is retired.

    Attributes:
        epoch: Its number.
        arms: The arms that are played.
        canaries: Policies of which some users get all their drafts. They are never chosen otherwise.
        heirs: What arms begin with, by arm.
        owners: The scope to which an arm belongs, by arm. It is played nowhere else; an arm that is not
            named is for everybody.
    """

    epoch: int
    arms: tuple[str, ...]
    canaries: tuple[str, ...] = ()
    heirs: Mapping[str, Heir] = {}
    owners: Mapping[str, str] = {}

    @property
    def shared(self) -> tuple[str, ...]:
        """The arms that are for everybody."""
        return tuple(arm for arm in self.arms if arm not in self.owners)

    def detail(self) -> dict[str, Any]:
        """Return what the event has beside its arms, as JSON types; empty if it has nothing."""
        found = {
            "canaries": list(self.canaries),
            "heirs": {arm: list(heir) for arm, heir in self.heirs.items()},
            "owners": dict(self.owners),
        }
        return {name: each for name, each in found.items() if each}

    def with_detail(self, detail: Mapping[str, Any]) -> Arms:
        """Return the event with what `detail` returned.

        Raises:
            KeyError, TypeError, ValueError: It did not return this.
        """
        heirs = {
            str(arm): Heir(str(parent), float(pulls), float(change))
            for arm, (parent, pulls, change) in detail.get("heirs", {}).items()
        }
        owners = {str(arm): str(owner) for arm, owner in detail.get("owners", {}).items()}
        return self._replace(canaries=tuple(map(str, detail.get("canaries", ()))), heirs=heirs, owners=owners)

    def next(
        self,
        arms: Sequence[str],
        *,
        canaries: Sequence[str] | None = None,
        heirs: Mapping[str, Heir] | None = None,
        owners: Mapping[str, str] | None = None,
    ) -> Arms:
        """Return the epoch after this one, in which what is known of arms that are not in it is left out.

        Args:
            arms: Its arms.
            canaries: The policies in a canary; by default those of this epoch that do not become arms.
            heirs: What arms begin with, beside those of this epoch.
            owners: Whose arms there are, beside those of this epoch; empty for an arm that is now for
                everybody.
        """
        wanted = tuple(arms)
        kept = self.canaries if canaries is None else canaries
        return Arms(
            self.epoch + 1,
            wanted,
            tuple(arm for arm in kept if arm not in wanted),
            {arm: heir for arm, heir in {**self.heirs, **(heirs or {})}.items() if arm in wanted},
            {arm: each for arm, each in {**self.owners, **(owners or {})}.items() if each and arm in wanted},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON types."""
        return {"event": "arms", "epoch": self.epoch, "arms": list(self.arms), **self.detail()}


class Decided(NamedTuple):
    """An arm was chosen for a response that will be written now.

    Attributes:
        response_id: The key under which feedback comes.
        scope: Whose bandit chose: a user, a segment, or the empty text for one bandit for all.
        arm: The policy that was chosen.
        propensity: The probability with which it was chosen, in (0, 1]; None if there is none, because the
            algorithm does not draw or the client asked for this arm.
        epoch: The epoch of the arms at that time.
        features: What was known of the request (`editloop.online.features.encoded`); None for nothing.
    """

    response_id: str
    scope: str
    arm: str
    propensity: float | None
    epoch: int
    features: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON types."""
        row = {"event": "decided", **self._asdict()}
        if self.features is None:
            del row["features"]
        return row


class Rerouted(NamedTuple):
    """The arm that was chosen could not answer, and this arm did: the pull counts for this one."""

    response_id: str
    arm: str

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON types."""
        return {"event": "rerouted", **self._asdict()}


class Feedback(NamedTuple):
    """What the user did with a response.

    Attributes:
        response_id: The key of the decision.
        outcome: `edited`, `accepted` and `discarded` (the user threw the draft away) have a cost. `expired`
            means that none will come, although the user saw a draft; `void`, that there was no draft to edit:
            it failed, or it is a tool call.
        cost: The cost of the edit; 0 for a response that was accepted unchanged, None where there is none.
        revision: Feedback of a higher revision replaces that of a lower one.
    """

    response_id: str
    outcome: Outcome
    cost: float | None
    revision: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON types."""
        return {"event": self.outcome, **{k: v for k, v in self._asdict().items() if k != "outcome"}}


Event = Arms | Decided | Rerouted | Feedback


def check_cost(cost: float | None, outcome: Outcome) -> None:
    """Refuse a cost that no edit can have.

    Raises:
        BanditError: The cost is NaN, infinite or negative; or an outcome of `UNKNOWN` has one, or another has
            none.
    """
    if outcome in UNKNOWN:
        if cost is not None:
            raise BanditError(f"a response that is {outcome} has no cost", seen=cost, do="send it as edited")
    elif cost is None or isinstance(cost, bool) or not math.isfinite(cost) or cost < 0:
        raise BanditError("a cost is a finite number, at least 0", seen=cost)


def _propensity(value: Any) -> float:
    """A propensity, which is in (0, 1].

    Raises:
        ValueError: It is not.
    """
    propensity = float(value)
    if not 0 < propensity <= 1:
        raise ValueError("a propensity is above 0 and at most 1")
    return propensity


def event_from_json(row: Mapping[str, Any]) -> Event:
    """Return the event that `to_json` wrote.

    Raises:
        BanditError: The row is no such event.
    """
    try:
        kind = row["event"]
        if kind == "arms":
            return Arms(int(row["epoch"]), tuple(map(str, row["arms"]))).with_detail(row)
        if kind == "decided":
            return Decided(
                str(row["response_id"]),
                str(row["scope"]),
                str(row["arm"]),
                None if row["propensity"] is None else _propensity(row["propensity"]),
                int(row["epoch"]),
                None if row.get("features") is None else str(row["features"]),
            )
        if kind == "rerouted":
            return Rerouted(str(row["response_id"]), str(row["arm"]))
        if kind in get_args(Outcome):
            cost = None if row["cost"] is None else float(row["cost"])
            check_cost(cost, kind)
            return Feedback(str(row["response_id"]), kind, cost, int(row["revision"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BanditError(
            "an event is incomplete", seen=dict(row) if isinstance(row, Mapping) else row
        ) from error
    raise BanditError("unknown event", seen=kind, do="check whether another version wrote the file")


def append_events(path: Path, events: Iterable[Event]) -> None:
    """Append events to a JSONL file.

    They have reached the operating system when this returns: they survive a kill of the process, but a loss
    of power perhaps not.
    """
    append_rows(path, (event.to_json() for event in events))


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of a JSONL file. A last line that was cut short by a kill is ignored.

    Raises:
        BanditError: A line is damaged and was not cut short, or the file is missing or cannot be read.
    """
    if not path.exists():
        raise BanditError("there is no such file of events", seen=str(path))
    return map(event_from_json, read_rows(path, BanditError))
