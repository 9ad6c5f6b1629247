"""Cost gradient: an off-policy policy gradient on what the edits of the logged drafts cost.

Let d be the cost of a draft y that policy μ wrote for context x, and w = π(y|x)/μ(y|x). The expected cost of
π is J(π) = E_x E_{y~μ} [w d], and as E_{y~μ} [w b(x) ∇ log π] = b(x) Σ_y ∇π(y|x) = 0 for any baseline b,

    ∇J = E_x E_{y~μ} [w (d − b(x)) ∇ log π(y|x)].

At π = μ this is the d(y, y') ∇ log π(y|x) of the second write-up, less the baseline, without which a cost,
which is never negative, would make every draft of the log unlikely. It is another thing than Eq. 6 as `rl`
minimises it: that regresses on predicted costs of several texts for each context, this one looks at the one
draft that a user has seen and at its true cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from editloop.offline.methods.base import Hyperparameters, Method, Need, hyperparameter, learning_rate

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.examples import Completions, Example
    from editloop.offline.methods.batch import Batch

__all__ = ["METHOD", "CostGradient", "CostGradientHyperparameters"]

Floats = NDArray[np.float64]

MOST_LOG_RATIO = 30.0
"""Nats above which the ratio of a draft is taken to be e^30, so that it cannot overflow."""


class CostGradientHyperparameters(Hyperparameters):
    """The hyperparameters of one trial of the cost gradient."""

    learning_rate: float = learning_rate(5e-5, 2e-4)
    beta: float = hyperparameter(
        0.1,
        symbol="beta",
        description="Weight of the KL divergence to the reference, in units of the train part's mean cost.",
        gt=0,
    )
    clip: float = hyperparameter(
        0.2,
        symbol="clip",
        description="ε: how far the ratio w of a draft may go from 1 before it stops counting for more.",
        gt=0,
    )
    baseline: Literal["context", "model"] = hyperparameter(
        "context",
        symbol="baseline",
        description="b(x): the mean cost of the other drafts of the context, or of all others where there is "
        "none; or the mean cost that the cost model predicts for drafts of the reference.",
    )


class CostGradient(Method):
    """A draft that cost more than the baseline becomes less likely, one that cost less becomes more likely.

    The policy μ that wrote a draft is the row's reference: the base, or with `--reference logged` the policy
    that is named in the log. The ratio is clipped as in PPO (arXiv 1707.06347), so that a draft stops
    counting once it is clearly likelier, or clearly less likely, than it was.
    """

    # max(w a, clip(w) a) for an excess cost a = d − b is the greater of two estimates of the change of the
    # cost: the loss has no gradient where the clipped one is the greater, and never promises more than w
    # itself does.

    name = "cost_gradient"
    title = "Cost gradient"
    summary = "makes drafts whose edits cost more than usual less likely, and the others more likely"
    learns_from = "rows that were edited or accepted"
    colour = "#8c4a2f"
    hyperparameters = CostGradientHyperparameters
    roles: ClassVar = ("response",)

    def needs(self, hyperparameters: CostGradientHyperparameters) -> frozenset[Need]:
        """Log μ and the cost of each draft, and the cost model if it gives the baseline."""
        if hyperparameters.baseline == "model":
            return frozenset({"reference", "cost", "cost_model"})
        return frozenset({"reference", "cost"})

    def completions(
        self, examples: Sequence[Example], hyperparameters: CostGradientHyperparameters
    ) -> list[Completions]:
        """The draft of each example, with its excess cost d − b(x) as its cost.

        Raises:
            ValueError: An example has no cost, or none of the estimates that the baseline needs.
        """
        costs = [example.cost for example in examples]
        if any(cost is None for cost in costs):
            raise ValueError(f"{self.name} needs the costs of the edits")
        incurred = np.array(costs, np.float64)
        excess = incurred - (
            _by_model(examples) if hyperparameters.baseline == "model" else _by_context(examples, incurred)
        )
        return [
            replace(each.completions.only(*self.roles), cost=(float(value),), spread=(0.0,))
            for each, value in zip(examples, excess, strict=True)
        ]

    def loss(self, batch: Batch, hyperparameters: CostGradientHyperparameters) -> Tensor:
        """mean of max(w a, clip(w) a) + β/2 log²(π/π_ref), with the excess costs a.

        The second term's gradient is β log(π/π_ref) ∇ log π. In expectation over μ = π_ref that is the
        gradient of β KL(π ‖ π_ref) to first order in the log-ratio, and it is never negative for a single
        draft.
        """
        log_ratio = batch.log_probs.to(batch.exact) - batch.reference
        ratio = log_ratio.clamp(max=MOST_LOG_RATIO).exp()
        excess, epsilon = batch.bound(0.0), hyperparameters.clip
        clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
        cost = (ratio * excess).maximum(clipped * excess)
        penalty = hyperparameters.beta / 2 * log_ratio**2
        total = (cost + penalty).sum() / max(batch.totals["contexts"], 1e-9)
        return total.to(batch.log_probs.dtype)


def _by_context(examples: Sequence[Example], costs: Floats) -> Floats:
    """The mean cost of the other drafts of each example's context, or of all others [n]; 0 for a single one.

    Others, because a baseline that a draft's own cost is part of would take a part of it away.
    """
    numbers: dict[str, int] = {}
    group = np.array([numbers.setdefault(repr(e.context), len(numbers)) for e in examples], np.int64)
    sizes, sums = np.bincount(group), np.bincount(group, weights=costs)
    among = (sums[group] - costs) / np.maximum(sizes[group] - 1, 1)
    overall = (costs.sum() - costs) / max(len(costs) - 1, 1)
    return np.asarray(np.where(sizes[group] > 1, among, overall), np.float64)


def _by_model(examples: Sequence[Example]) -> Floats:
    """The mean estimated cost of the completions that were sampled for each example's context [n]."""
    found = []
    for example in examples:
        if example.sampled is None or example.sampled.cost is None:
            raise ValueError(
                f"the baseline by the cost model needs estimates, and example {example.id} has none"
            )
        # Where no sample is new, what was written anyway stands for them.
        own = example.sampled.roles.get("sampled") or range(len(example.sampled))
        found.append(np.mean([example.sampled.cost[index] for index in own]))
    return np.array(found, np.float64)


METHOD = CostGradient()
