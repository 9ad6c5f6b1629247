"""Offline RL: make completions likely whose predicted cost is low (Eq. 5 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from editloop.offline.methods.base import Hyperparameters, Method, Need, hyperparameter, learning_rate

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.methods.batch import Batch

__all__ = ["METHOD", "RL", "RLHyperparameters", "RLLoss", "choice_loss"]

RLLoss = Literal["pairwise", "weighted"]


class RLHyperparameters(Hyperparameters):
    """The hyperparameters of one trial of RL."""

    learning_rate: float = learning_rate(5e-5, 2e-4)
    beta: float = hyperparameter(
        0.1,
        symbol="beta",
        description="β of Eq. 6, in units of the train part's mean cost; the greater, the closer the policy "
        "stays to the reference.",
        gt=0,
    )
    kappa: float = hyperparameter(
        1.0,
        symbol="kappa",
        description="κ, the pessimism: how many standard deviations u are added to the predicted cost f̂.",
        ge=0,
    )
    loss: RLLoss = hyperparameter(
        "pairwise",
        symbol="loss",
        description="Regression on the log-ratios of pairs, or likelihood weighted by e^(−f̄/β).",
    )


class RL(Method):
    """KL-regularised RL on the estimated costs of the completions of each context.

    The expectation over π in Eq. 6 would need fresh samples after each step. Here the policy is trained on
    fixed completions of each context (the edit, the response, and samples from the reference), by a loss
    whose minimiser is known in closed form. A pessimistic cost keeps the policy from completions that only
    look cheap because the cost model has seen nothing like them.
    """

    name = "rl"
    title = "RL"
    summary = "prefers completions whose edits are predicted to cost little"
    learns_from = "rows that were edited or accepted"
    colour = "#b23a63"
    hyperparameters = RLHyperparameters
    roles: ClassVar = ("edit", "response", "sampled")

    def needs(self, hyperparameters: Any) -> frozenset[Need]:
        """Sampled completions, their log π_ref, and their estimated costs."""
        return frozenset({"reference", "cost_model"})

    def loss(self, batch: Batch, hyperparameters: RLHyperparameters) -> Tensor:
        """The regression of log-ratios on costs, or the weighted likelihood, mean over contexts (Eq. 6)."""
        chosen = hyperparameters
        return choice_loss(batch, kind=chosen.loss, beta=chosen.beta, kappa=chosen.kappa)


def choice_loss(batch: Batch, *, kind: RLLoss, beta: float, kappa: float) -> Tensor:
    """The RL loss on the completions of a batch (see `editloop.offline.losses`), a scalar.

    Both losses look at whole completions: costs are of whole texts, so log-probabilities are sums over
    tokens, and the loss gives no credit to single tokens.

    Args:
        batch: The batch, with estimated costs.
        kind: `pairwise` or `weighted`.
        beta: β of Eq. 6.
        kappa: κ of the pessimistic cost.
    """
    from editloop.offline.losses import pairwise_regression_loss, weighted_likelihood_loss

    log_probs, bound = batch.log_probs.to(batch.exact), batch.bound(kappa)
    count = batch.totals["choices"]  # a context with one completion adds nothing, so it is not counted either
    if kind == "pairwise":
        log_ratio = log_probs - batch.reference
        loss = pairwise_regression_loss(log_ratio, bound, batch.context, beta=beta, count=count)
    else:
        loss = weighted_likelihood_loss(log_probs, bound, batch.context, beta=beta, count=count)
    return loss.to(batch.log_probs.dtype)


METHOD = RL()
