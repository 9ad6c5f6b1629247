"""How often a policy's draft wins over the reference's for the same context, a tie being half a win.

Who wins is decided by what the user's edit of each draft costs, or by a judge who is asked. The second
write-up reports its writing assistant in this way; the cost itself says more, because it knows by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from editloop.intervals import share_interval

__all__ = ["Judge", "cost_wins", "win_rate", "wins_of"]


class Judge(Protocol):
    """Somebody who says which of two drafts is better; `editloop.users.LLMJudge` is one."""

    def wins_many(
        self, contexts: Sequence[str], drafts: Sequence[str], others: Sequence[str]
    ) -> tuple[NDArray[np.float64], list[str]]:
        """Return 1, 0 or 1/2 for each pair, NaN where there is no verdict; and why there is none, a line
        each."""
        ...


def cost_wins(costs: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 where a draft costs less than the other one, 0 where it costs more, 1/2 where it costs as
    much.

    Args:
        costs: What the edit of each draft costs [n].
        others: What the edit of the other draft for the same context costs [n].
    """
    # Equal counts of changes may have been divided in another order.
    return wins_of(others - costs, tie=1e-9)


def wins_of(differences: NDArray[np.float64], *, tie: float) -> NDArray[np.float64]:
    """Return 1 where a difference is positive, 0 where it is negative, 1/2 where it is zero up to rounding.

    Args:
        differences: By how much something is better than what it is compared with [n].
        tie: The size up to which a difference may be rounding.
    """
    return (np.sign(np.where(np.abs(differences) < tie, 0.0, differences)) + 1) / 2


def win_rate(wins: NDArray[np.float64]) -> dict[str, Any] | None:
    """Return the mean of wins with its standard error, the number of verdicts and their 95% interval.

    Nothing if there is no verdict; of a single one there is no standard error.

    Args:
        wins: 1, 0 or 1/2 for each pair, NaN where there is no verdict [n].
    """
    known = wins[~np.isnan(wins)]
    if not len(known):
        return None
    mean = float(known.mean())
    se = float(known.std(ddof=1) / len(known) ** 0.5) if len(known) > 1 else None
    return {"mean": mean, "se": se, "n": len(known), "interval": share_interval(mean, len(known))}
