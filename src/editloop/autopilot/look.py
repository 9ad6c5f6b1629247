"""What the autopilot reads at a look, in one transaction: transitions, arms, rounds.

**Times.** A clock may jump, and several servers have several clocks. The numbers of the events tell what came
first, whatever the clocks said. So a time that contradicts them is replaced by one that does not, here and
only here: whoever asks for the rounds since a transition gets those that came after it, also in the hour
after a clock was put back by an hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from editloop.autopilot.ledger import NOTICED, PAUSED, arms_of, transition_of
from editloop.autopilot.stages import Stage, Stages
from editloop.autopilot.watch import Round, Watch
from editloop.edits import get_cost
from editloop.edits.non_answers import find_non_answer
from editloop.online import Arms
from editloop.store import reads
from editloop.store.database import Connection
from editloop.store.rounds import newest_edits, rounds, stage_rows
from editloop.store.schema import COST, SALT

__all__ = ["LOOK_BACK", "Look", "look", "steady_times"]

LOOK_BACK = 90 * 86_400.0
"""Seconds for which rounds are looked at. Older costs say little of today's users."""

NEWEST_EDITS = 500
"""The edits that are read to see whether users want what the rules take for no answer."""

TICK = 1e-6
"""Seconds from one event to the next where the clock stood still or went back."""


class Look(NamedTuple):
    """What was seen.

    Attributes:
        rows: The events of all transitions, as of `stage_rows`.
        noticed: The number of the last of them of which a notice was sent.
        is_paused: Whether the autopilot is to take no step. Then no rounds are read.
        stages: Where the policies stand. The times of the transitions are in order.
        arms: The arms that are played for everybody.
        owners: The arms of single users, and the keys of these.
        watch: The rounds. Their times are in order, also with those of the transitions.
        shadow_since: The clock's time from which on the drafts of the policy in the shadow were written.
    """

    rows: Sequence[Any]
    noticed: int
    is_paused: bool
    stages: Stages
    arms: tuple[str, ...]
    owners: Mapping[str, str]
    watch: Watch
    shadow_since: float


def look(connection: Connection, now: float) -> Look:
    """Read everything that a step needs, with the rounds of the time before `now`.

    Raises:
        AutopilotError: The store holds a transition that this version does not know.
    """
    rows = stage_rows(connection)
    noticed = int(reads.fact(connection, NOTICED) or 0)
    is_paused = bool(reads.fact(connection, PAUSED))
    found = [] if is_paused else rounds(connection, now - LOOK_BACK)
    transitions = [transition_of(row) for row in rows]
    times = steady_times(
        [
            *((row.seq, each.time) for row, each in zip(rows, transitions, strict=True)),
            *((row.seq, row.time) for row in found),
        ]
    )
    stages = Stages(each._replace(time=times[row.seq]) for row, each in zip(rows, transitions, strict=True))
    last = stages.the(Stage.SHADOW)
    since = 0.0
    if last is not None:
        seq, begun = max((row.seq, each.time) for row, each in zip(rows, transitions, strict=True)
                         if each.subject == last.subject)  # fmt: skip
        since = min([begun, *(row.time for row in found if row.seq > seq)])
    epoch = reads.last_epoch(connection)
    arms = Arms(0, ()) if epoch is None else arms_of(epoch)
    salt, bound = reads.fact(connection, SALT) or "", _scale(connection)
    ordered = sorted(found, key=lambda row: row.seq)
    read = [] if is_paused else newest_edits(connection, NEWEST_EDITS)
    wanted = {row.response_id: find_non_answer(row.edit) is not None for row in read}
    watch = Watch(
        Round.of(row, salt, bound, times[row.seq], wants_none=wanted.get(row.response_id)) for row in ordered
    )
    return Look(rows, noticed, is_paused, stages, arms.shared, arms.owners, watch, since)


def steady_times(clocked: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Times that grow with the numbers of the events, by number.

    Args:
        clocked: The number of each event, and the time that a clock gave it.
    """
    times: dict[int, float] = {}
    last = -math.inf
    for seq, time in sorted(clocked):
        last = times[seq] = max(time, last + TICK)
    return times


def _scale(connection: Connection) -> float:
    """The most that a cost counts for."""
    name = reads.fact(connection, COST)
    return get_cost(name).scale or math.inf if name else math.inf
