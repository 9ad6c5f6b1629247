"""Log-probabilities of targets straight from hidden states, without the logits of all positions at once.

With a vocabulary of 50,000 to 250,000 tokens, the logits of a batch and their gradient are its largest
tensors. Here they exist for a few positions at a time. This module knows linear algebra only; which models
have such an output embedding is found out by `editloop.policy.probe`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["has_linear_head", "target_log_probs", "target_log_squares"]

CHUNK_POSITIONS, CHUNK_LOGITS = 256, 2**23
"""The positions whose logits are held at a time: 256, or more if their logits are fewer than 2^23 (32 MB).

With fewer than about 200 positions, reading the output embedding once a chunk takes longer than computing.
"""


def has_linear_head(model: Any) -> bool:
    """Whether a model's output embedding is a plain linear layer, and not one that an adapter has wrapped.

    Args:
        model: A causal LM of `transformers`.
    """
    head = model.get_output_embeddings()
    # By the exact type: quantised and adapted layers are subclasses or wrappers, whose forward does more.
    return type(head) is nn.Linear and type(head.weight) in (nn.Parameter, Tensor)


def target_log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    """log softmax(h Wᵀ + b) at each position's target.

    Beside the arguments, this needs the memory of the states once more and that of one chunk's logits. The
    softmax is computed in float32 at least.

    Args:
        hidden: The states h that predict the targets [n, d].
        weight: The output embedding W [V, d].
        bias: Its bias b [V], or None.
        target: Token ids [n].

    Returns:
        float32 [n], or float64 for states in float64; differentiable by states, weight and bias.
    """
    found: Tensor
    found, _ = _TargetLogProbs.apply(hidden, weight, bias, target, False)  # type: ignore[no-untyped-call]
    return found


def target_log_squares(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor]:
    """`target_log_probs`, and log Σ_v p_v² of each position's softmax p, without gradient [n], [n].

    The memory of one chunk's logits is needed twice.
    """
    both: tuple[Tensor, Tensor]
    both = _TargetLogProbs.apply(hidden, weight, bias, target, True)  # type: ignore[no-untyped-call]
    return both


class _TargetLogProbs(torch.autograd.Function):
    """With p = softmax(h Wᵀ + b), the gradient of log p_t is W_t − Wᵀp by h, and (1_t − p) hᵀ by W.

    Each position has one number only, so whatever comes from above is one factor g of its gradient. The
    gradient by h can therefore be computed in the forward, while the logits are there, and is only scaled by
    g in the backward: no logits are computed twice unless the weight is trained, too.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, squares: bool
    ) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        log_probs = torch.empty(len(target), dtype=exact, device=hidden.device)
        log_normaliser = torch.empty_like(log_probs)
        log_squares = torch.empty_like(log_probs) if squares else log_probs.new_empty(0)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for part in _chunks(len(target), len(weight)):
            logits = F.linear(hidden[part], weight, bias).to(exact)
            at_target = logits.gather(1, target[part, None]).squeeze(1)
            greatest = logits.amax(1)
            probs = logits.sub_(greatest[:, None]).exp_()
            total = probs.sum(1)
            log_normaliser[part] = greatest + total.log()
            # In this order, because the difference of the first two is exact where the target is likely.
            log_probs[part] = at_target - greatest - total.log()
            if squares:
                log_squares[part] = probs.square().sum(1).log() - 2 * total.log()
            if slope is not None:
                mean = probs.div_(total[:, None]).to(weight.dtype) @ weight
                slope[part] = (weight[target[part]] - mean).to(slope.dtype)
        ctx.save_for_backward(hidden, weight, bias, target, log_normaliser, slope)
        ctx.mark_non_differentiable(log_squares)
        return log_probs, log_squares

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, above: Tensor, _: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        hidden, weight, bias, target, log_normaliser, slope = ctx.saved_tensors
        by_hidden = None if slope is None else (slope * above[:, None]).to(hidden.dtype)
        by_weight = by_bias = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            by_weight, by_bias = _by_head(hidden, weight, bias, target, log_normaliser, above)
        return by_hidden, by_weight, by_bias, None, None


def _by_head(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, log_normaliser: Tensor, above: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The gradients by weight and bias; the logits are computed again, chunk by chunk."""
    by_weight = torch.zeros_like(weight)
    by_bias = None if bias is None else torch.zeros_like(bias)
    for part in _chunks(len(target), len(weight)):
        logits = F.linear(hidden[part], weight, bias).to(above.dtype)
        factor = logits.sub_(log_normaliser[part, None]).exp_().mul_(-above[part, None])
        factor.scatter_add_(1, target[part, None], above[part, None])
        by_weight.addmm_(factor.to(weight.dtype).T, hidden[part].to(weight.dtype))
        if by_bias is not None:
            by_bias += factor.sum(0).to(by_bias.dtype)
    return by_weight, by_bias


def _chunks(positions: int, vocabulary: int) -> list[slice]:
    """Stretches of positions whose logits are held at the same time."""
    size = max(CHUNK_POSITIONS, CHUNK_LOGITS // vocabulary)
    return [slice(start, start + size) for start in range(0, positions, size)]
