"""Log-probabilities of the continuations of context trees, by one forward of a causal LM.

This module knows how a model takes a tree's mask, and nothing of losses or text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from editloop.policy.head import has_linear_head, target_log_probs, target_log_squares
from editloop.policy.packing import TreeBatch

__all__ = ["batch_features", "batch_log_probs", "batch_log_squares", "context_columns", "tree_mask"]

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


def batch_log_probs(model: nn.Module, batch: TreeBatch, *, linear_head: bool = False) -> Tensor:
    """Log-probability of every continuation: the sum over its counted tokens, by their weights, natural log.

    Args:
        model: A causal LM with the `transformers` interface, which PEFT or a distribution library may have
            wrapped.
        batch: K continuations, from `pack`.
        linear_head: Whether the model's logits are a linear function of its last states (`probe_head`). Then
            the logits of few positions are held at a time, and otherwise those of all counted tokens.

    Returns:
        float32 [K], differentiable.
    """
    return _forward(model, batch, linear_head)[0]


def batch_log_squares(
    model: nn.Module, batch: TreeBatch, *, linear_head: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probabilities, and Σ_t log Σ_v π(v|x, y_<t)², of every continuation over its counted tokens.

    Σ_v π(v)² is the mean probability of a token that is drawn from the policy itself, so the two sums are
    about equal for a text that the policy has written, however sure it was (arXiv 2406.11827).

    Args:
        model: As for `batch_log_probs`.
        batch: K continuations, from `pack`.
        linear_head: As for `batch_log_probs`.

    Returns:
        float32 [K], differentiable, and float32 [K], without gradient.
    """
    log_probs, _, log_squares = _forward(model, batch, linear_head, squares=True)
    assert log_squares is not None
    return log_probs, log_squares


def batch_features(model: nn.Module, batch: TreeBatch, *, linear_head: bool = False) -> tuple[Tensor, Tensor]:
    """Log-probabilities and features of each continuation in its context.

    The features are the last layer's state right before the continuation, which has seen the context alone;
    the mean of the states that predict the continuation's tokens, at a third and two thirds of the depth and
    at the last layer; the mean log-probability of a token; and the logarithm of the number of tokens. States
    of more than `WIDTH` numbers go through a fixed random projection.

    Args:
        model: As for `batch_log_probs`.
        batch: K continuations of at least one token each, with all their tokens counted.
        linear_head: As for `batch_log_probs`.

    Returns:
        Log-probabilities, float32 [K], and features, float32 [K, F], both differentiable. The first
        `context_columns(F)` features depend on the context alone.
    """
    log_probs, layers, _ = _forward(model, batch, linear_head, states=True)
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
    model: nn.Module, batch: TreeBatch, linear_head: bool, *, states: bool = False, squares: bool = False
) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
    """Log-probabilities [K]; with `states` the hidden states [B, R, d] of every layer.

    With `squares`, also the logs of the sums of squared probabilities, summed over the counted tokens [K].
    """
    device = next(model.parameters()).device

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(array).to(device)

    core = _unwrapped(model)
    # An adapter on the output embedding makes it another one than the one that was tried.
    scored_by = _scored_at_head if linear_head and has_linear_head(core) else _scored_by_logits
    with scored_by(core, tensor(batch.predictor), tensor(batch.target), squares) as token_figures:
        output = model(
            input_ids=tensor(batch.input_ids),
            # A token's position is its depth, not its column: each branch continues right after its prefix.
            position_ids=tensor(batch.position_ids),
            attention_mask=_attention_mask(core, batch, tensor),
            use_cache=False,
            **({"output_hidden_states": True} if states else {}),
        )

    def summed(values: Tensor) -> Tensor:
        total = torch.zeros(len(batch.lengths), device=device)
        counted = values[tensor(batch.member)]
        if batch.weight is not None:
            counted = counted * tensor(batch.weight).to(counted.dtype)
        return total.index_add(0, tensor(batch.owner), counted)

    log_probs, log_squares = token_figures(output.logits)
    hidden = output.hidden_states if states else ()
    return summed(log_probs), hidden, None if log_squares is None else summed(log_squares)


def _unwrapped(model: nn.Module) -> Any:
    """The model without the wrappers of a distribution library."""
    inner: Any = model
    while hasattr(inner, "module"):
        inner = inner.module
    return inner


TokenFigures = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""From a forward's logits to float32 log-probabilities of the targets [n], and log Σ_v π(v)² where asked."""


@contextmanager
def _scored_at_head(
    model: Any, predictor: Tensor, target: Tensor, squares: bool = False
) -> Iterator[TokenFigures]:
    """A context in which log-probabilities are computed in place of the logits; arguments as below."""
    head, found = model.get_output_embeddings(), list[tuple[Tensor, Tensor | None]]()

    def score(states: Tensor) -> Tensor:
        mine = states.flatten(0, 1)[predictor]
        if squares:
            log_probs, log_squares = target_log_squares(mine, head.weight, head.bias, target)
            found.append((log_probs.float(), log_squares.float()))
        else:
            found.append((target_log_probs(mine, head.weight, head.bias, target).float(), None))
        return mine[:1].detach().unsqueeze(0)  # the model goes on with the logits of one position

    # Within the model's own forward, so that autocast, and libraries that gather a layer's weights for the
    # time of its forward, have the effect that they have on the output embedding itself.
    with _before(head, score):
        yield lambda _: found[0]


@contextmanager
def _scored_by_logits(
    model: Any, predictor: Tensor, target: Tensor, squares: bool = False
) -> Iterator[TokenFigures]:
    """A context in which the model computes logits, where it can at the positions of the targets only.

    Args:
        model: The model without the wrappers of distribution.
        predictor: The positions that predict the targets, as row * R + column [n].
        target: Token ids [n].
        squares: Whether log Σ_v π(v)² of each position is wanted.

    Yields:
        A function from the forward's logits to the targets' log-probabilities, and to these.
    """
    # The logits of all positions are by far the largest tensor of a forward, and most positions (the context,
    # padding, prefixes that are not counted) need none. Calling the inner model and the embedding by hand
    # would save as much, but skip what a family does to its logits afterwards (scaling, soft caps), which
    # works on each position and so still applies.
    head = model.get_output_embeddings()

    def gather(states: Tensor) -> Tensor:
        return states.flatten(0, 1)[predictor].unsqueeze(0)

    def figures(logits: Tensor) -> tuple[Tensor, Tensor | None]:
        flat = logits.flatten(0, 1)
        if head is None:  # a model that does not expose its output embedding
            flat = flat[predictor]
        # Cross-entropy in float32 whatever the model's dtype: a log-softmax over a vocabulary in bf16 is off
        # by more than the differences that the losses are about.
        log_probs, log_squares = -F.cross_entropy(flat.float(), target, reduction="none"), None
        if squares:
            log_squares = (2 * flat.detach().float().log_softmax(-1)).logsumexp(-1)
        return log_probs, log_squares

    with nullcontext() if head is None else _before(head, gather):
        yield figures


@contextmanager
def _before(head: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A context in which a model's output embedding gets other states than the model gives it.

    Args:
        head: The output embedding.
        change: From the states of all positions [B, R, d] to those that it gets.
    """
    # This relies on the model to give the embedding the states of all positions, as it does while
    # `logits_to_keep` is not set.
    thread = threading.get_ident()

    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        # The module belongs to all threads that use the model, and so does the hook: another thread's forward
        # has other positions, and must keep its logits.
        return (change(args[0]), *args[1:]) if threading.get_ident() == thread else None

    handle = head.register_forward_pre_hook(hook)
    try:
        yield
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
    """The mask in the form that the attention takes: a term of the scores, or boolean for SDPA on a GPU."""
    dtype = next(weight.dtype for weight in model.parameters() if weight.is_floating_point())
    if model.config._attn_implementation != "sdpa":
        # The smallest finite number, as in the library's own masks: minus infinity could turn into NaN.
        return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
    if allowed.device.type == "cpu":
        # What SDPA makes of a boolean mask, made once. SDPA would make it in every layer and keep each of
        # them for the backward: 5% of a training's memory in rows of 520 tokens.
        return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, float("-inf"))
    return allowed
