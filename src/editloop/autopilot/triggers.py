"""When it pays to fit again: enough new edits, or fewer where one should not wait; hours, and a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from editloop.autopilot.comparison import Cost, between_groups, mixture_bound
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.stages import Stage, Stages

__all__ = [
    "EARLY_SHARE",
    "Supply",
    "has_risen",
    "may_fit",
    "minutes_spent",
    "refit_reason",
    "under_way",
    "waits_for",
]

DAY, HOUR = 86_400.0, 3_600.0
"""Seconds."""

EARLY_SHARE = 0.25
"""The share of the edits that are enough for a fit once costs have risen, or the last generation was lost."""

LAST_COSTS = 200
"""The newest costs of the champion, which are compared with those before."""


@dataclass(frozen=True)
class Supply:
    """What there is to learn from.

    Attributes:
        learned: Edits of different requests that the last fit could read.
        new: Those that have come since. A request that was edited twice counts once.
    """

    learned: int
    new: int


def refit_reason(
    stages: Stages, supply: Supply, config: AutopilotConfig, now: float, *, risen: bool = False
) -> str | None:
    """Why to fit now; None if it would not pay, or may not be.

    A generation that is fitted, in the shadow or in the canary is waited for: two at a time would need twice
    the rounds.

    Args:
        stages: Where the policies stand.
        supply: What there is to learn from.
        config: The configuration.
        now: The time, in seconds since 1970.
        risen: Whether costs have risen, as of `has_risen`.
    """
    if under_way(stages) or supply.new < _needed(stages, supply, config, risen):
        return None
    if not may_fit(stages, config, now):
        return None
    reason = f"{supply.new} new edits"
    if risen:
        return f"costs have risen, and there are {reason}"
    return f"the last generation was lost, and there are {reason}" if stages.was_lost else reason


def may_fit(stages: Stages, config: AutopilotConfig, now: float) -> bool:
    """Whether it is the hour of fits, and minutes are left for one."""
    return _is_hour(config.fit_at, now) and minutes_spent(stages, now) < config.fit_minutes


def waits_for(
    stages: Stages, supply: Supply, config: AutopilotConfig, now: float, *, risen: bool = False
) -> str:
    """For what the next fit waits, where `refit_reason` has none to begin; the arguments are the same."""
    if (tried := under_way(stages)) is not None:
        return tried
    needed = math.ceil(_needed(stages, supply, config, risen))
    if supply.new < needed:
        since = " since the last fit" if stages.generation else ""
        return f"{supply.new} of {needed} edits of new requests{since}"
    if not _is_hour(config.fit_at, now):
        return f"it begins within an hour from {config.fit_at}"
    spent = minutes_spent(stages, now)
    return f"{spent:.0f} of {config.fit_minutes:.0f} minutes of fits in 24 hours are spent"


def under_way(stages: Stages) -> str | None:
    """What is tried now, so that the next fit waits for it; None if nothing is."""
    tried = {
        Stage.FITTING: "is being fitted",
        Stage.SHADOW: "is in the shadow",
        Stage.CANARY: "is in the canary",
    }
    found = ((stages.the(stage), what) for stage, what in tried.items())
    return next((f"{last.subject} {what}" for last, what in found if last is not None), None)


def _needed(stages: Stages, supply: Supply, config: AutopilotConfig, risen: bool) -> float:
    """The new edits that are enough."""
    share = EARLY_SHARE if risen or stages.was_lost else 1.0
    return max(config.min_edits, config.growth * supply.learned) * share


def minutes_spent(stages: Stages, now: float) -> float:
    """The minutes of fits that began in the last 24 hours, or the next ones: a clock may have been ahead."""
    began: dict[str, float] = {}
    spent = 0.0
    for each in stages.history:
        if each.stage is Stage.FITTING:
            began[each.subject] = each.time
        elif each.before is Stage.FITTING and abs(now - began.get(each.subject, 0.0)) < DAY:
            spent += each.lineage.minutes if each.lineage else 0.0
    return spent


def has_risen(costs: Sequence[Cost], error: float) -> bool:
    """Whether the newest costs of a policy are higher than those before, beyond chance.

    Each user is compared with their own past, so that other users alone are no drift.

    Args:
        costs: All costs of the policy, in the order of time.
        error: The probability, at most, of a false alarm at each look.
    """
    if len(costs) < 2 * LAST_COSTS:
        return False
    before, last = costs[:-LAST_COSTS], costs[-LAST_COSTS:]
    half = len(before) // 2
    # The past is cut in two: one half tells what each user costs, the other is compared with.
    found = between_groups(before[:half], last, before[half:])
    return found.z > mixture_bound(LAST_COSTS, error)


def _is_hour(start: str | None, now: float) -> bool:
    """Whether it is within an hour from a time of day, in local time."""
    if start is None:
        return True
    hours, _, minutes = start.partition(":")
    moment = datetime.fromtimestamp(now)
    since = (moment.hour * 60 + moment.minute - int(hours) * 60 - int(minutes)) % 1440
    return since < 60
