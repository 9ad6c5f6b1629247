"""The ledger: transitions in the store, each with the epoch of arms that it begins, in one transaction.

A transition is written only if its subject is still in the stage that it leaves, so that a stage is neither
skipped nor taken twice, whoever writes and however often a process is killed and starts again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from editloop.autopilot.stages import PLAYED, Stage, Stages, Transition
from editloop.errors import AutopilotError
from editloop.online import Arms
from editloop.store import reads, writes
from editloop.store.database import Connection, Row
from editloop.store.rounds import stage_rows
from editloop.store.schema import COST

__all__ = [
    "NOTICED",
    "PAUSED",
    "SOMEBODY",
    "STAGE",
    "WAITS",
    "arms_of",
    "by_hand",
    "epoch_columns",
    "read_stages",
    "transition_of",
    "write_transitions",
]

SOMEBODY = "somebody"
"""Who decided, where no name is known."""

STAGE = "stage"
"""The kind of the events that hold transitions."""

PAUSED = "autopilot-paused"
"""The fact of the store that says since when, and by whom, the autopilot is paused; empty if it is not."""

NOTICED = "autopilot-noticed"
"""The fact of the store with the number of the last transition of which a notice was sent."""

WAITS = "autopilot-waits"
"""The fact of the store that says since when, and for what, the next fit waits."""


def transition_of(row: Row[Any]) -> Transition:
    """The transition of an event of the store.

    Raises:
        AutopilotError: The event holds none.
    """
    return Transition.from_text(row.detail)


def read_stages(connection: Connection) -> Stages:
    """Where all policies stand by the transitions of a store.

    Raises:
        AutopilotError: The store holds a transition that this version does not know.
    """
    return Stages(transition_of(row) for row in stage_rows(connection))


def arms_of(row: Row[Any]) -> Arms:
    """The epoch of arms of an event of the store."""
    detail = json.loads(row.detail) if row.detail else {}
    return Arms(row.epoch, tuple(json.loads(row.arms))).with_detail(detail)


def write_transitions(
    connection: Connection, transitions: Sequence[Transition], added: Sequence[Mapping[str, Any]] = ()
) -> list[tuple[int, Transition | Arms]]:
    """Write transitions, and the epoch of arms that follows from them.

    All are checked before the first one is written.

    Args:
        connection: Of a transaction that excludes all other writers.
        transitions: What is written, in this order.
        added: Rows of the table `policies` for policies that the store does not know yet.

    Returns:
        The events that were written, with their numbers.

    Raises:
        AutopilotError: A transition does not follow the last one, or no arm would be left.
    """
    stages, row = read_stages(connection), reads.last_epoch(connection)
    now = arms_of(row) if row is not None else Arms(0, ())
    wanted = now
    for each in transitions:
        stages.apply(each)
        wanted = _arms_after(wanted, each, stages)
    if now.arms and not wanted.shared:
        raise AutopilotError("no arm would be left", seen=now.arms[0], do="promote another one first")
    known = reads.arm_names(connection)
    for policy in added:
        if policy["arm"] not in known:
            writes.insert_policy(connection, policy)
    written: list[tuple[int, Transition | Arms]] = []
    for each in transitions:
        about = {"time": each.time, "kind": STAGE, "arm": each.subject, "detail": each.to_text()}
        written.append((writes.insert_event(connection, about), each))
    if wanted != now:
        epoch = wanted._replace(epoch=now.epoch + 1)
        columns = epoch_columns(epoch, reads.fact(connection, COST))
        seq = writes.insert_event(connection, {"time": transitions[-1].time, **columns})
        written.append((seq, epoch))
    return written


def by_hand(stages: Stages, before: Arms, after: Arms, time: float) -> list[Transition]:
    """The transitions that make stages agree with an epoch that somebody began without them."""
    found = []
    for arm in before.arms:
        if arm not in after.arms and (stage := stages.of(arm)) in PLAYED:
            found.append(Transition(arm, stage, Stage.RETIRED, time, SOMEBODY, "retired by hand"))
    for arm in after.arms:
        stage = stages.of(arm)
        if arm not in before.arms and stage is not None and stage not in PLAYED:
            found.append(Transition(arm, stage, Stage.ARM, time, SOMEBODY, "promoted by hand"))
    return found


def epoch_columns(epoch: Arms, cost: str | None) -> dict[str, Any]:
    """What the event of an epoch holds beside its number and time; `arms_of` reads it.

    Args:
        epoch: The epoch.
        cost: The name of the cost by which the store's edits are measured.
    """
    row = {"kind": "arms", "epoch": epoch.epoch, "arms": json.dumps(epoch.arms), "cost_name": cost}
    detail = epoch.detail()
    return row | ({"detail": json.dumps(detail)} if detail else {})


def _arms_after(now: Arms, transition: Transition, stages: Stages) -> Arms:
    """The epoch after a transition, by the number of the one before it.

    Args:
        now: The epoch before it.
        transition: The transition.
        stages: Where everything stands with it.
    """
    subject = transition.subject
    arms = tuple(arm for arm in now.arms if arm != subject)
    canaries = tuple(arm for arm in now.canaries if arm != subject)
    heirs, owners = {}, {}
    if transition.stage in PLAYED:
        if subject in now.arms:
            return now
        arms = (*arms, subject)
        if (heir := stages.heir(subject)) is not None:
            heirs[subject] = heir
        if owner := stages.owner(subject):
            owners[subject] = owner
    elif transition.stage is Stage.CANARY:
        canaries = (*canaries, subject)
    return now.next(arms, canaries=canaries, heirs=heirs, owners=owners)._replace(epoch=now.epoch)
