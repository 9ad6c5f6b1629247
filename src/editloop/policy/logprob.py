"""Log-probabilities of the continuations of context trees, by one forward of a causal LM.

It knows how a tree's mask is told to a model, and nothing of losses or of text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from editloop.policy.tree import TreeBatch

__all__ = ["batch_features", "batch_log_probs", "context_columns", "tree_mask"]

DEPTHS = (1 / 3, 2 / 3, 1.0)
"""Of the layers whose states are features, from the embedding (0) to the last (1)."""

WIDTH = 256
"""Most numbers that are kept of a state; wider ones are projected at random."""


def tree_mask(subtree_end: Tensor) -> Tensor:
    """The attention mask of packed trees: token i sees token j if j <= i < subtree_end[j].

    Args:
        subtree_end: int64 [B, R].

    Returns:
        bool [B, 1, R, R], query by key.
    """
    index = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    query, key = index[:, None], index[None, :]
    return ((key <= query) & (query < subtree_end[:, None, :])).unsqueeze(1)


def batch_log_probs(model: nn.Module, batch: TreeBatch) -> Tensor:
    """Log-probability of every continuation: the sum over its counted tokens, natural log.

    Args:
        model: A causal LM in the `transformers` interface; may be wrapped by PEFT or for
            distribution.
        batch: K continuations, from `pack`.

    Returns:
        float32 [K], differentiable.
    """
    return _forward(model, batch)[0]


def batch_features(model: nn.Module, batch: TreeBatch) -> tuple[Tensor, Tensor]:
    """Log-probabilities, and what the hidden states say of each continuation in its context.

    The last layer's state before the continuation, which has seen the context alone; and the mean of the
    states that predict the continuation's tokens, at a third and two thirds of the depth and at the last
    layer. States of more than `WIDTH` numbers go through a fixed random projection. At the end how likely
    a token is on average, and the logarithm of how many there are.

    Args:
        model: As for `batch_log_probs`.
        batch: K continuations, all their tokens counted.

    Returns:
        float32 [K], and float32 [K, F], differentiable; the first `context_columns(F)` are the context's.
    """
    log_probs, layers = _forward(model, batch, states=True)
    device = log_probs.device
    owner, member = torch.from_numpy(batch.owner).to(device), torch.from_numpy(batch.member).to(device)
    predictor = torch.from_numpy(batch.predictor).to(device)
    lengths = torch.from_numpy(batch.lengths).to(device)[:, None]
    first = torch.from_numpy(np.unique(batch.owner, return_index=True)[1]).to(device)
    means = []
    for depth in DEPTHS:
        layer = layers[round(depth * (len(layers) - 1))]
        mine = layer.flatten(0, 1)[predictor].float()[member]
        total = torch.zeros(len(batch.lengths), mine.shape[1], device=device).index_add(0, owner, mine)
        means.append(total / lengths)
    states = [mine[first], *means]  # of the last layer, where the loop has ended
    narrow = [_narrowed(part, seed) for seed, part in enumerate(states)]
    return log_probs, torch.cat([*narrow, log_probs[:, None] / lengths, lengths.log()], dim=1)


def context_columns(features: int) -> int:
    """How many of so many columns of `batch_features`, the first, say what the context is."""
    return (features - 2) // (1 + len(DEPTHS))


def _narrowed(states: Tensor, seed: int) -> Tensor:
    """At most `WIDTH` numbers of each state: distances are kept about as they were."""
    width = states.shape[1]
    if width <= WIDTH:
        return states
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(width, WIDTH, generator=generator) / WIDTH**0.5
    narrow: Tensor = states @ projection.to(states.device)
    return narrow


def _forward(
    model: nn.Module, batch: TreeBatch, *, states: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Log-probabilities [K], and the hidden states [B, R, d] of every layer if they are asked for."""
    device = next(model.parameters()).device

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(array).to(device)

    core = _unwrapped(model)
    with _logits_at(core, tensor(batch.predictor)) as head_is_hooked:
        output = model(
            input_ids=tensor(batch.input_ids),
            position_ids=tensor(batch.position_ids),
            attention_mask=_attention_mask(core, batch, tensor),
            use_cache=False,
            **({"output_hidden_states": True} if states else {}),
        )
    logits = output.logits.flatten(0, 1)
    if not head_is_hooked:
        logits = logits[tensor(batch.predictor)]
    token_log_probs = -F.cross_entropy(logits.float(), tensor(batch.target), reduction="none")
    total = torch.zeros(len(batch.lengths), device=device)
    log_probs = total.index_add(0, tensor(batch.owner), token_log_probs[tensor(batch.member)])
    return log_probs, output.hidden_states if states else ()


def _unwrapped(model: nn.Module) -> Any:
    """The model without the wrappers of distribution."""
    inner: Any = model
    while hasattr(inner, "module"):
        inner = inner.module
    return inner


@contextmanager
def _logits_at(model: Any, flat_index: Tensor) -> Iterator[bool]:
    """Compute logits at these positions only, by gathering before the output embedding.

    Everything that a family does to its logits afterwards (scaling, soft caps) works per position
    and stays the family's own. The logits come out as [1, n, vocabulary].
    """
    head = model.get_output_embeddings()
    if head is None:
        yield False
        return

    def gather(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].flatten(0, 1)[flat_index].unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(gather)
    try:
        yield True
    finally:
        handle.remove()


def _attention_mask(model: Any, batch: TreeBatch, tensor: Any) -> Any:
    """What the model takes as `attention_mask`: [B, R] for plain rows, else 4-d or a dict of 4-d masks."""
    if batch.plain:
        return tensor(batch.filled)
    config = model.config.get_text_config()
    mask = tree_mask(tensor(batch.subtree_end))
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if window is None or batch.position_ids.max() < window:
        return _as_model_takes_it(model, mask)
    positions = tensor(batch.position_ids)
    near = (positions[:, :, None] - positions[:, None, :] < window).unsqueeze(1)
    masks = {"full_attention": mask, "sliding_attention": mask & near}
    if len(kinds) > 1:
        return {kind: _as_model_takes_it(model, masks[kind]) for kind in masks if kind in kinds}
    return _as_model_takes_it(
        model, masks["full_attention" if kinds == {"full_attention"} else "sliding_attention"]
    )


def _as_model_takes_it(model: Any, allowed: Tensor) -> Tensor:
    """SDPA takes a boolean mask; the eager attention adds it to the scores."""
    if model.config._attn_implementation == "sdpa":
        return allowed
    dtype = next(model.parameters()).dtype
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
