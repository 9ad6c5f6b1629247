"""Log-probabilities of the continuations of context trees, by one forward of a causal LM.

This module knows how a model takes a tree's mask, and nothing of losses or text.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from editloop.policy.packing import TreeBatch

__all__ = ["batch_features", "batch_log_probs", "context_columns", "tree_mask"]

DEPTHS = (1 / 3, 2 / 3, 1.0)
"""Relative depths of the layers whose states are features: 0 is the embedding, 1 the last layer."""

WIDTH = 256
"""Limit on the numbers kept of a state; wider states are projected at random."""


def tree_mask(subtree_end: Tensor) -> Tensor:
    """The attention mask of packed trees: token i attends to token j exactly if j <= i < subtree_end[j].

    Args:
        subtree_end: int64 [B, R].

    Returns:
        bool [B, 1, R, R], query by key.
    """
    # In depth-first order the subtree of j is the stretch from j to subtree_end[j]. That i lies in it means
    # that j is i itself or one of its ancestors: exactly the tokens that i would see in a plain sequence.
    index = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    query, key = index[:, None], index[None, :]
    return ((key <= query) & (query < subtree_end[:, None, :])).unsqueeze(1)


def batch_log_probs(model: nn.Module, batch: TreeBatch) -> Tensor:
    """Log-probability of every continuation: the sum over its counted tokens, natural log.

    Args:
        model: A causal LM with the `transformers` interface, which PEFT or a distribution library may have
            wrapped.
        batch: K continuations, from `pack`.

    Returns:
        float32 [K], differentiable.
    """
    return _forward(model, batch)[0]


def batch_features(model: nn.Module, batch: TreeBatch) -> tuple[Tensor, Tensor]:
    """Log-probabilities and features of each continuation in its context.

    The features are the last layer's state right before the continuation, which has seen the context alone;
    the mean of the states that predict the continuation's tokens, at a third and two thirds of the depth and
    at the last layer; the mean log-probability of a token; and the logarithm of the number of tokens. States
    of more than `WIDTH` numbers go through a fixed random projection.

    Args:
        model: As for `batch_log_probs`.
        batch: K continuations of at least one token each, with all their tokens counted.

    Returns:
        Log-probabilities, float32 [K], and features, float32 [K, F], both differentiable. The first
        `context_columns(F)` features depend on the context alone.
    """
    log_probs, layers = _forward(model, batch, states=True)
    device = log_probs.device
    owner, member = torch.from_numpy(batch.owner).to(device), torch.from_numpy(batch.member).to(device)
    predictor = torch.from_numpy(batch.predictor).to(device)
    lengths = torch.from_numpy(batch.lengths).to(device)[:, None]
    # A continuation's first entry in `owner` stands for its first token. That is predicted by the context's
    # last token, whose state has seen nothing of the continuation.
    first = torch.from_numpy(np.unique(batch.owner, return_index=True)[1]).to(device)
    means = []
    for depth in DEPTHS:
        layer = layers[round(depth * (len(layers) - 1))]
        # In float32, because a sum over hundreds of tokens in bf16 would lose the smaller terms.
        mine = layer.flatten(0, 1)[predictor].float()[member]
        total = torch.zeros(len(batch.lengths), mine.shape[1], device=device).index_add(0, owner, mine)
        means.append(total / lengths)
    states = [mine[first], *means]  # the loop ends with the last layer, so `mine` has its states
    # The seed is the part's place, so that every batch is projected in the same way.
    narrow = [_narrowed(part, seed) for seed, part in enumerate(states)]
    return log_probs, torch.cat([*narrow, log_probs[:, None] / lengths, lengths.log()], dim=1)


def context_columns(features: int) -> int:
    """How many of the F columns of `batch_features` depend on the context alone; they come first."""
    # The columns are equally wide parts, one for the context and one for each depth, and two single numbers.
    return (features - 2) // (1 + len(DEPTHS))


def _narrowed(states: Tensor, seed: int) -> Tensor:
    """At most `WIDTH` numbers for each state, with distances about as they were (Johnson-Lindenstrauss)."""
    width = states.shape[1]
    if width <= WIDTH:
        return states
    # Drawn on the CPU from a fixed seed: features that were cached on one device serve on any other.
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(width, WIDTH, generator=generator) / WIDTH**0.5
    narrow: Tensor = states @ projection.to(states.device)
    return narrow


def _forward(
    model: nn.Module, batch: TreeBatch, *, states: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Log-probabilities [K], and with `states` the hidden states [B, R, d] of every layer."""
    device = next(model.parameters()).device

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(array).to(device)

    core = _unwrapped(model)
    with _logits_at(core, tensor(batch.predictor)) as head_is_hooked:
        output = model(
            input_ids=tensor(batch.input_ids),
            # A token's position is its depth, not its column: each branch continues right after its prefix.
            position_ids=tensor(batch.position_ids),
            attention_mask=_attention_mask(core, batch, tensor),
            use_cache=False,
            **({"output_hidden_states": True} if states else {}),
        )
    logits = output.logits.flatten(0, 1)
    if not head_is_hooked:
        logits = logits[tensor(batch.predictor)]
    # Cross-entropy in float32 whatever the model's dtype: a log-softmax over a vocabulary in bf16 is off by
    # more than the differences that the losses are about.
    token_log_probs = -F.cross_entropy(logits.float(), tensor(batch.target), reduction="none")
    # `member` repeats the prediction of a shared token for each continuation that contains it.
    total = torch.zeros(len(batch.lengths), device=device)
    log_probs = total.index_add(0, tensor(batch.owner), token_log_probs[tensor(batch.member)])
    return log_probs, output.hidden_states if states else ()


def _unwrapped(model: nn.Module) -> Any:
    """The model without the wrappers of a distribution library."""
    inner: Any = model
    while hasattr(inner, "module"):
        inner = inner.module
    return inner


@contextmanager
def _logits_at(model: Any, flat_index: Tensor) -> Iterator[bool]:
    """A context in which the model computes logits at these positions only.

    Args:
        model: The model without the wrappers of distribution.
        flat_index: Positions as row * R + column [n].

    Yields:
        Whether that is so, and the logits have the shape [1, n, vocabulary]; False for a model that does not
        expose its output embedding.
    """
    # The logits of all positions are by far the largest tensor of a forward, and most positions (the context,
    # padding, prefixes that are not counted) need none. A hook gathers the states right before the output
    # embedding. Calling the inner model and the embedding by hand would save as much, but skip what a family
    # does to its logits afterwards (scaling, soft caps), which works on each position and so still applies.
    # The hook relies on the model to give the embedding the states of all positions, [B, R, d], as it does
    # while `logits_to_keep` is not set.
    head = model.get_output_embeddings()
    if head is None:
        yield False
        return

    thread = threading.get_ident()

    def gather(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        # The module belongs to all threads that use the model, and so does the hook: another thread's forward
        # has other positions, and must keep its logits.
        if threading.get_ident() != thread:
            return None
        return (args[0].flatten(0, 1)[flat_index].unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(gather)
    try:
        yield True
    finally:
        handle.remove()


def _attention_mask(model: Any, batch: TreeBatch, tensor: Any) -> Any:
    """What to pass as `attention_mask`: [B, R] for plain rows, else a 4-d mask or a dict of them."""
    if batch.plain:
        return tensor(batch.filled)
    config = model.config.get_text_config()
    mask = tree_mask(tensor(batch.subtree_end))
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if window is None or batch.position_ids.max() < window:  # no token is out of another's window
        return _as_model_takes_it(model, mask)
    # The library builds windowed masks from columns. In a tree the distance of two tokens is that of their
    # positions, so a window has to be cut here.
    positions = tensor(batch.position_ids)
    near = (positions[:, :, None] - positions[:, None, :] < window).unsqueeze(1)
    masks = {"full_attention": mask, "sliding_attention": mask & near}
    if len(kinds) > 1:
        return {kind: _as_model_takes_it(model, masks[kind]) for kind in masks if kind in kinds}
    return _as_model_takes_it(
        model, masks["full_attention" if kinds == {"full_attention"} else "sliding_attention"]
    )


def _as_model_takes_it(model: Any, allowed: Tensor) -> Tensor:
    """The mask in the form that the attention takes: boolean for SDPA, a term of the scores for eager."""
    if model.config._attn_implementation == "sdpa":
        return allowed
    # The smallest finite number, as in the library's own masks: minus infinity could turn into NaN.
    dtype = next(model.parameters()).dtype
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
