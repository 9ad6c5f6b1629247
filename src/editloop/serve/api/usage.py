"""`/v1/usage`: how long the policies' drafts took and how many tokens they are; and what they saved.

The saving is what the base alone would have cost, less what the drafts did cost. The base answers some
requests itself, drawn with probabilities that are known, and from these the rest is estimated (doubly robust;
see `editloop.online.off_policy`). Where that is not possible, there is no figure.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray

from editloop.errors import BanditError
from editloop.intervals import mean_interval
from editloop.online.off_policy import ESTIMATORS, LoggedChoices, arm_means, check_overlap
from editloop.serve.api.parameters import LATEST, Since, Until
from editloop.serve.api.state import get_state
from editloop.store import reads
from editloop.store.database import Connection
from editloop.store.rounds import MAX_ROUNDS, rounds
from editloop.store.usage import MAX_DRAFTS, newest_drafts

__all__ = ["KnownRounds", "estimate_saving", "router"]

router = APIRouter()


@router.get("/v1/usage", tags=["policies"])
async def usage(request: Request, since: Since = None, until: Until = None) -> dict[str, Any]:
    """Show by arm how long the drafts of a period took and how many tokens they are, of the newest 20,000."""
    begin, end = since or 0.0, LATEST if until is None else until
    rows = await get_state(request).loop.read(lambda c: newest_drafts(c, begin, end))
    by_arm: dict[str, list[Any]] = {}
    for row in rows:
        by_arm.setdefault(row.policy, []).append(row)
    data = [{"arm": arm, "drafts": len(mine), **_figures(mine)} for arm, mine in sorted(by_arm.items())]
    return {"object": "list", "drafts": len(rows), "cut": len(rows) == MAX_DRAFTS, "data": data}


def _figures(rows: Sequence[Any]) -> dict[str, Any]:
    """The median time and that which 95% do not exceed, and the tokens, each of the drafts that have it."""
    took = [row.seconds for row in rows if row.seconds is not None]
    median, most = np.quantile(took, (0.5, 0.95)) if took else (None, None)
    found = {"timed": len(took), "seconds_median": median, "seconds_95": most}
    for name in ("prompt_tokens", "completion_tokens"):
        known = [count for row in rows if (count := getattr(row, name)) is not None]
        found |= {name: sum(known), f"{name}_drafts": len(known)}
    return found


class KnownRounds(NamedTuple):
    """Rounds whose cost is known, with the arm that answered and the probability with which it was chosen."""

    arms: list[str]
    propensity: list[float]
    cost: list[float]


@router.get("/v1/saving", tags=["policies"])
async def saving(request: Request, since: Since = None, until: Until = None) -> dict[str, Any]:
    """Estimate what a draft of a period cost less than one of the base would have, of the newest 20,000."""
    begin, end = since or 0.0, time.time() if until is None else until

    def look(connection: Connection) -> tuple[Sequence[Any], Sequence[Any]]:
        return reads.policy_rows(connection), rounds(connection, begin, until=end)

    policies, found = await get_state(request).loop.read(look)
    bases = {row.arm for row in policies if row.name == "base"}
    usable = [
        row
        for row in found
        if row.cost is not None
        and row.propensity is not None
        and row.chosen == row.arm
        and row.propensity > 0
    ]
    known = KnownRounds(
        [row.arm for row in usable], [row.propensity for row in usable], [row.cost for row in usable]
    )
    return {"object": "saving", "cut": len(found) == MAX_ROUNDS, **estimate_saving(known, bases)}


def estimate_saving(known: KnownRounds, bases: set[str]) -> dict[str, Any]:
    """The mean saving of a draft with its 95% interval (Student's), or the reason why there is none.

    Args:
        known: The rounds.
        bases: The arms that are a base. The one with the most rounds is compared.
    """
    none = {"base": None, "drafts": len(known.arms), "mean": None, "interval": None, "reason": None}
    arms = sorted(set(known.arms))
    played = [arm for arm in arms if arm in bases]
    if not played:
        return none | {
            "reason": "the base itself has answered no request of this period whose edit came back"
        }
    if len(arms) == 1:
        return none | {"base": arms[0], "reason": "only the base has answered"}
    base = max(played, key=known.arms.count)
    chosen = np.array([arms.index(arm) for arm in known.arms], np.int64)
    target = np.zeros((len(chosen), len(arms)))
    target[:, arms.index(base)] = 1.0
    cost: NDArray[np.float64] = np.array(known.cost, np.float64)
    try:
        log = LoggedChoices(arms, chosen, np.array(known.propensity, np.float64), cost, target)
        check_overlap(log)
    except BanditError as error:
        return none | {"base": base, "reason": str(error)}
    by_base, _ = ESTIMATORS["dr"](log, arm_means(log))
    saved = by_base - cost
    mean, se = float(saved.mean()), float(saved.std(ddof=1) / np.sqrt(len(saved)))
    return none | {"base": base, "mean": mean, "interval": mean_interval(mean, se, len(saved))}
