"""The losses of the paper as pure functions of log-probabilities (natural log).

They know nothing of models, batches or devices. Each is a mean, and `count` is its divisor. A part of an
optimiser step (gradient accumulation, several processes) is given the count of the whole step, so that the
losses of the parts add up to the loss of the whole. With several processes the count may be a fraction: it is
divided by their number, because the library averages their gradients instead of adding them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from editloop.offline.methods.sft import Reduction

__all__ = [
    "displacement",
    "dpo_loss",
    "early_ensemble_loss",
    "pairwise_regression_loss",
    "preference_margin",
    "sft_loss",
    "weighted_likelihood_loss",
]

MIN_COUNT = 1e-9
"""The least divisor. It replaces a count of 0, where the sum is 0 as well, so the loss is 0 instead of 0/0.
Counts can be fractions of 1, so a minimum of 1 would change losses."""


def sft_loss(
    log_prob: Tensor, lengths: Tensor, *, reduction: Reduction = "token", count: Tensor | float | None = None
) -> Tensor:
    """Negative log-likelihood of the edits (Eq. 3).

    Args:
        log_prob: log π(y'|x), summed over the tokens of each edit [n].
        lengths: Number of tokens of each edit [n].
        reduction: `sequence` is the mean over edits of Eq. 3; `token` is the mean over the tokens of all
            edits, in which long edits weigh more.
        count: Number of edits (`sequence`) or tokens (`token`) in the whole step.

    Returns:
        A scalar; 0 for n = 0.
    """
    if count is None:
        count = lengths.sum() if reduction == "token" else float(len(log_prob))
    return _divided(-log_prob.sum(), count)


def preference_margin(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """log π/π_ref (y'|x) − log π/π_ref (y|x), the argument of σ in Eq. 4 before β [n].

    Args:
        chosen: log π(y'|x) [n].
        rejected: log π(y|x) [n].
        ref_chosen: log π_ref(y'|x) [n].
        ref_rejected: log π_ref(y|x) [n].
    """
    # Each bracket is a difference within one model. The log-probability of the prefix that y' and y share
    # cancels there, so a bracket is the same whether tokens are counted from the start or from the fork. In
    # training the policy is counted from the fork, which saves the logits of the prefix; the cached reference
    # is counted from the start.
    return (chosen - rejected) - (ref_chosen - ref_rejected)


def displacement(log_prob: Tensor, reference: Tensor, lengths: Tensor) -> Tensor:
    """How far texts fell below their likelihood under the reference, in nats per token; 0 if they rose.

    Args:
        log_prob: log π of each text, summed over its tokens [n].
        reference: log π_ref of each [n].
        lengths: Number of tokens of each [n].

    Returns:
        A scalar; 0 for n = 0.
    """
    # Of all texts together, so that a few that fall among many that rise do not count.
    return _divided((reference - log_prob).sum().clamp(min=0), lengths.sum())


def dpo_loss(margin: Tensor, *, beta: float, count: Tensor | float | None = None) -> Tensor:
    """−log σ(β margin), mean over pairs (Eq. 4).

    Args:
        margin: From `preference_margin` [n].
        beta: β > 0; the greater, the closer the policy stays to the reference.
        count: Number of pairs in the whole step.

    Returns:
        A scalar; 0 for n = 0.
    """
    # `logsigmoid` computes log σ(x) as min(x, 0) − log(1 + e^−|x|). The logarithm of `sigmoid` would be −∞
    # below about −100 in float32, and its gradient NaN.
    total = -F.logsigmoid(beta * margin).sum()
    return _divided(total, float(len(margin)) if count is None else count)


def pairwise_regression_loss(
    log_ratio: Tensor, cost: Tensor, group: Tensor, *, beta: float, count: Tensor | float | None = None
) -> Tensor:
    """The square of β[log π/π_ref(a) − log π/π_ref(b)] − [f̄(b) − f̄(a)], for Eq. 6.

    The mean is over all pairs (a, b) of a context's completions, and over contexts. On full support its
    minimiser is that of Eq. 6: π_ref e^{−f̄/β}/Z.

    Args:
        log_ratio: log π/π_ref of k completions [k].
        cost: Pessimistic cost f̄ of each [k].
        group: The context of each, ascending from 0 [k]; a context with one completion has no pair.
        beta: β > 0.
        count: Number of contexts with two completions or more in the whole step.

    Returns:
        A scalar; 0 for no pairs.
    """
    # The minimiser of Eq. 6 is π* = π_ref e^{−f̄/β}/Z(x), so v = β log π*/π_ref + f̄ = −β log Z(x) is the same
    # for all completions of a context. The unknown Z cancels in the difference v(a) − v(b), which is the
    # argument of the square. Unlike the expectation over π in Eq. 6, this needs no samples from the policy
    # in training, so completions, their costs and log π_ref are computed once.
    #
    # The mean of (v_i − v_j)² over the pairs of m values is 2/(m − 1) Σ (v_i − v̄)², twice their sample
    # variance, which takes O(m) steps instead of O(m²).
    value = beta * log_ratio + cost
    sizes, mean = _group_means(value, group)
    # A context with one completion has value = mean, and adds zero; the clamp only avoids 0/0 there.
    each = 2 * (value - mean[group]) ** 2 / (sizes[group] - 1).clamp(min=1)
    return _divided(each.sum(), float((sizes > 1).sum()) if count is None else count)


def weighted_likelihood_loss(
    log_prob: Tensor, cost: Tensor, group: Tensor, *, beta: float, count: Tensor | float | None = None
) -> Tensor:
    """The negative log-likelihood of completions, each weighted by e^{−f̄/β} among those of its context.

    Its minimiser on the given completions is e^{−f̄/β}/Z. If all of them were sampled from π_ref and repeated
    samples were kept, that would be π_ref e^{−f̄/β}/Z, the minimiser of Eq. 6. But the edit and the response
    are among them, and each completion is there only once, so the policy is pulled towards edits and
    responses.

    Args:
        log_prob: log π of k completions [k].
        cost: As for `pairwise_regression_loss` [k].
        group: As for `pairwise_regression_loss` [k].
        beta: β > 0.
        count: As for `pairwise_regression_loss`.

    Returns:
        A scalar; 0 if no context has two completions.
    """
    contexts = int(group[-1]) + 1 if len(group) else 0
    score = -cost / beta
    # A softmax within each context. The maximum is subtracted first, so that the exponentials neither
    # overflow nor all vanish.
    highest = score.new_full((contexts,), -torch.inf).scatter_reduce(0, group, score, "amax")
    weight = (score - highest[group]).exp()
    total = weight.new_zeros(contexts).index_add(0, group, weight)
    sizes, _ = _group_means(score, group)
    # A context's only completion would have weight 1 whatever its cost, which would be SFT on it.
    each = -weight / total[group] * log_prob * (sizes[group] > 1)
    return _divided(each.sum(), float((sizes > 1).sum()) if count is None else count)


def early_ensemble_loss(
    sft: Tensor, dpo: Tensor, rl: Tensor | float = 0.0, *, dpo_weight: float, rl_weight: float = 0.0
) -> Tensor:
    """The joint loss of EarlyEnsemble: SFT + λ · DPO + λ_RL · RL (Eq. 7), a scalar.

    Args:
        sft: The SFT loss, a scalar.
        dpo: The DPO loss, a scalar.
        rl: The RL loss, a scalar.
        dpo_weight: λ ≥ 0.
        rl_weight: λ_RL ≥ 0.
    """
    return sft + dpo_weight * dpo + rl_weight * rl


def _divided(total: Tensor, count: Tensor | float) -> Tensor:
    """A sum divided by a count that may be 0 or a fraction, a scalar."""
    return total / torch.as_tensor(count, device=total.device).clamp(min=MIN_COUNT)


def _group_means(values: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """The size and the mean of each group [g], [g]."""
    groups = int(group[-1]) + 1 if len(group) else 0  # groups ascend, so the last one has the highest number
    sizes = values.new_zeros(groups).index_add(0, group, torch.ones_like(values))
    return sizes, values.new_zeros(groups).index_add(0, group, values) / sizes
