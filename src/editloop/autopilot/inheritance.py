"""How many pulls of the champion's evidence a new policy may begin with, by how far its drafts are from it.

In the shadow both write a draft of the same requests, and each is compared with what the user ended with. The
differences d of the two costs say how much the policies differ where it matters, on live requests and in the
unit of the evidence: their mean δ̂, its variance e², and the variance ω² by which users differ in it. Beside
the chance, the comparison has a bias of at most b, because the edit began from another draft. So the change
is known with the variance

    ε² = e² + ω² + b²,

and the champion's evidence is worth at most κ = σ²/ε² pulls (`editloop.online.heirs`), where σ² is the
variance of a cost around its user's mean.

A distance between the distributions of both policies would bound the change for every cost, and is of no use
here: the probability of a text of fifty tokens is another one after every fit, so that their total variation
is near 1, and allows for less than one pull.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from editloop.autopilot.comparison import (
    SMALLEST_VARIANCE,
    Cost,
    excess_variance,
    sums_by_unit,
    variance_within,
)

__all__ = ["inheritance"]


def inheritance(
    parent: str, changes: Sequence[Cost], costs: Sequence[Cost], bias: float
) -> dict[str, Any] | None:
    """Return what a policy begins with as an arm: the fields of `editloop.online.Heir`; None for nothing.

    Args:
        parent: The champion.
        changes: For each request with both drafts the difference of their costs, with its user.
        costs: Costs of the champion, with their users.
        bias: b, the most by which the shadow may be wrong.
    """
    spread, noise = _spread(costs), _spread(changes)
    if math.isinf(spread) or math.isinf(noise):
        return None
    found = sums_by_unit(changes)
    own = noise / found.n
    between = excess_variance([found.mean], [own])
    weights = 1 / (own + between)
    change = float((weights * found.mean).sum() / weights.sum())
    uncertain = 1 / float(weights.sum()) + between + bias * bias
    return {"parent": parent, "pulls": spread / uncertain, "change": change}


def _spread(costs: Sequence[Cost]) -> float:
    """The variance around the mean of each unit; around that of all where no unit has two."""
    within = variance_within(sums_by_unit(costs))
    if math.isinf(within) and len(costs) > 1:
        return max(SMALLEST_VARIANCE, float(np.var([each.cost for each in costs], ddof=1)))
    return within
