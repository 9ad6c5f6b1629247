"""The losses of the paper as pure functions of log-probabilities (natural log).

They know nothing of models, batches or devices. `count` is for a part of a batch (gradient
accumulation, several processes): the number of items in the whole batch, so that the parts' losses
add up to the loss of the whole. It may be a fraction, where the parts are averaged over processes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from editloop.offline.methods.sft import Reduction

__all__ = [
    "dpo_loss",
    "early_ensemble_loss",
    "pairwise_regression_loss",
    "preference_margin",
    "sft_loss",
    "weighted_likelihood_loss",
]

NOTHING = 1e-9  # a count of nothing, whose sum is 0 anyway; real counts may be shares of 1


def sft_loss(
    log_prob: Tensor, lengths: Tensor, *, reduction: Reduction = "token", count: Tensor | float | None = None
) -> Tensor:
    """Negative log-likelihood of the edits (Eq. 3).

    Args:
        log_prob: log π(y'|x), summed over the tokens of each edit [n].
        lengths: Number of tokens of each edit [n].
        reduction: `sequence` is Eq. 3's mean over edits; `token` divides by the tokens of all edits
            together, so that a long edit weighs as much as its tokens do.
        count: Edits (`sequence`) or tokens (`token`) of the whole batch.

    Returns:
        A scalar; 0 for n = 0.
    """
    if count is None:
        count = lengths.sum() if reduction == "token" else float(len(log_prob))
    return -log_prob.sum() / torch.as_tensor(count, device=log_prob.device).clamp(min=NOTHING)


def preference_margin(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """log π/π_ref (y'|x) − log π/π_ref (y|x), the argument of σ in Eq. 4 before β [n].

    Whatever `chosen` and `rejected` have in common cancels, and so it does in the reference's two: each
    pair may be counted from where edit and response part.
    """
    return (chosen - rejected) - (ref_chosen - ref_rejected)


def dpo_loss(margin: Tensor, *, beta: float, count: Tensor | float | None = None) -> Tensor:
    """−log σ(β margin), mean over pairs (Eq. 4).

    Args:
        margin: From `preference_margin` [n].
        beta: β > 0, how strongly the reference holds.
        count: Pairs in the whole batch.

    Returns:
        A scalar; 0 for n = 0.
    """
    total = -F.logsigmoid(beta * margin).sum()
    count = float(len(margin)) if count is None else count
    return total / torch.as_tensor(count, device=margin.device).clamp(min=NOTHING)


def pairwise_regression_loss(
    log_ratio: Tensor, cost: Tensor, group: Tensor, *, beta: float, count: Tensor | float | None = None
) -> Tensor:
    """Square loss that brings β[log π/π_ref(a) − log π/π_ref(b)] to f̄(b) − f̄(a), for Eq. 6.

    The mean over all pairs of a context's candidates, and over contexts. On full support its minimiser is
    that of Eq. 6: π_ref e^{−f̄/β}/Z.

    Args:
        log_ratio: log π/π_ref of k candidates [k].
        cost: Their pessimistic cost f̄ [k].
        group: The context of each, ascending from 0 [k]; a context with one candidate counts for nothing.
        beta: β > 0.
        count: Contexts of two candidates or more in the whole batch.

    Returns:
        A scalar; 0 for no pairs.
    """
    value = beta * log_ratio + cost
    sizes, mean = _means(value, group)
    # The mean square difference of pairs is twice the variance.
    each = 2 * (value - mean[group]) ** 2 / (sizes[group] - 1).clamp(min=1)
    count = float((sizes > 1).sum()) if count is None else count
    return each.sum() / torch.as_tensor(count, device=log_ratio.device).clamp(min=NOTHING)


def weighted_likelihood_loss(
    log_prob: Tensor, cost: Tensor, group: Tensor, *, beta: float, count: Tensor | float | None = None
) -> Tensor:
    """SFT on candidates, each weighted by e^{−f̄/β} among those of its context.

    Its minimiser among the candidates is e^{−f̄/β}/Z. That is Eq. 6's π_ref e^{−f̄/β}/Z where they were drawn
    from π_ref and are counted as often as they came; edits and responses beside them pull toward those.

    Arguments are as of `pairwise_regression_loss`, with log π [k] in place of the log-ratio.
    """
    contexts = int(group[-1]) + 1 if len(group) else 0
    score = -cost / beta
    highest = score.new_full((contexts,), -torch.inf).scatter_reduce(0, group, score, "amax")
    weight = (score - highest[group]).exp()
    total = weight.new_zeros(contexts).index_add(0, group, weight)
    sizes, _ = _means(score, group)
    each = -weight / total[group] * log_prob * (sizes[group] > 1)
    count = float((sizes > 1).sum()) if count is None else count
    return each.sum() / torch.as_tensor(count, device=log_prob.device).clamp(min=NOTHING)


def _means(values: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Size and mean of each group [g]."""
    groups = int(group[-1]) + 1 if len(group) else 0
    sizes = values.new_zeros(groups).index_add(0, group, torch.ones_like(values))
    return sizes, values.new_zeros(groups).index_add(0, group, values) / sizes


def early_ensemble_loss(
    sft: Tensor, dpo: Tensor, rl: Tensor | float = 0.0, *, dpo_weight: float, rl_weight: float = 0.0
) -> Tensor:
    """The joint loss of EarlyEnsemble: SFT + λ · DPO + λ_RL · RL (Eq. 7)."""
    return sft + dpo_weight * dpo + rl_weight * rl
