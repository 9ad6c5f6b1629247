"""What a policy's own drafts would cost, from drafts that other policies wrote and users edited.

A logged draft y of the policy μ has a known log-probability log μ(y|x), and its edit a cost c. Under the
policy π that is evaluated it weighs w = π(y|x) / μ(y|x), and

    Σ w c / Σ w

is what drafts of π would cost (self-normalised importance sampling). Which policy was chosen for a request
does not matter, because each draft is compared with the one that wrote it. Unlike the distance of a new draft
to an edit that began from another one, it is not biased toward what users saw.

But w is a product over all tokens. Two policies that differ a little in each of a hundred tokens share hardly
any draft, and a few rows have all of the weight. So the effective number of rows, (Σ w)² / Σ w², comes with
the estimate, and with too few there is none. Drafts that were sampled with another temperature or a top-p
have other probabilities than the logged ones; then the weights are not 1 on average, and there is none
either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from editloop.edits import Cost, context_text
from editloop.estimates import Estimate, ratio
from editloop.offline.examples import RESPONSE, Example

__all__ = ["DraftWeights", "estimate_by_weights", "weigh_drafts"]

LEAST_EFFECTIVE = 20.0
"""With fewer rows' worth of weight, nothing is estimated; as for rules of choice (`online.off_policy`)."""

MOST_ERRORS = 3.0
"""By how many times 1/√(effective rows) the mean weight may differ from 1; as for rules of choice."""


@dataclass(frozen=True)
class DraftWeights:
    """What a policy's own drafts would cost.

    Attributes:
        rows: The drafts whose log-probability was logged.
        effective: How many rows their weights are worth, (Σ w)² / Σ w².
        logged: The mean cost of these drafts, which other policies wrote.
        cost: The estimate, with its 95% interval; None if there is none.
        refused: Why there is none; empty if there is one.
    """

    rows: int
    effective: float
    logged: float
    cost: Estimate | None
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """The estimate as JSON types."""
        return asdict(self) | {"cost": None if self.cost is None else self.cost._asdict()}


def estimate_by_weights(
    log_weights: ArrayLike, costs: ArrayLike, contexts: Sequence[str], *, seed: int = 0
) -> DraftWeights:
    """Estimate what drafts of a policy would cost.

    Args:
        log_weights: log π(y|x) − log μ(y|x) of each draft [n], n at least 1.
        costs: What its edit cost [n].
        contexts: The context of each [n]; rows of one context are resampled together.
        seed: The seed of the bootstrap.
    """
    given, c = np.asarray(log_weights, np.float64), np.asarray(costs, np.float64)
    n, logged = len(c), float(c.mean())
    if not np.isfinite(given).all():  # a policy that diverged
        return DraftWeights(n, 0.0, logged, None, "the policy gives a draft no probability that is a number")
    # The estimate and the effective rows do not depend on the scale of the weights, and exp(800) is infinite.
    w = np.exp(given - given.max())
    effective = float(w.sum() ** 2 / (w * w).sum())
    if effective < LEAST_EFFECTIVE:
        why = f"too little overlap with the log: {effective:.1f} effective of {n} rows"
        return DraftWeights(n, effective, logged, None, why)
    log_mean = float(given.max()) + math.log(float(w.mean()))
    if abs(math.expm1(min(log_mean, 700.0))) > MOST_ERRORS / math.sqrt(effective):
        why = f"a mean weight of e^{log_mean:.1f} in place of 1"
        return DraftWeights(n, effective, logged, None, why)
    cost = ratio(w * c, w, contexts, np.random.default_rng(seed))
    why = "" if cost is not None else "the drafts of too few contexts are all alike"
    return DraftWeights(n, effective, logged, cost, why)


def weigh_drafts(
    examples: Sequence[Example], log_probs: Sequence[Sequence[float]], cost: Cost, *, end: int
) -> DraftWeights | None:
    """Estimate what drafts of a policy would cost from the drafts of a log.

    Args:
        examples: The rows of the log as examples [n].
        log_probs: For each example the policy's log-probabilities of the continuations of its tree [n][K].
        cost: The cost Δ. Its scale, if it has one, is the most that a row counts for: a mean of costs that
            have no bound is decided by a few of them.
        end: The token that ends a turn; a draft that was cut to the window has other probabilities.

    Returns:
        None where no row has a logged log-probability.
    """
    kept = [
        (each, each.logprob, values[each.completions.of(RESPONSE)])
        for each, values in zip(examples, log_probs, strict=True)
        if each.logprob is not None and each.tree.continuations[each.completions.of(RESPONSE)][-1] == end
    ]
    if not kept:
        return None
    rows = [each for each, _, _ in kept]
    costs = np.minimum(cost([e.response for e in rows], [e.edit for e in rows]), cost.scale or math.inf)
    weights = [own - logged for _, logged, own in kept]
    return estimate_by_weights(weights, costs, [context_text(each.context) for each in rows])
