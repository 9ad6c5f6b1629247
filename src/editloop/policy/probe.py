"""Find out what a model's attention and its output embedding do, by trying them.

Some families take a 4-d mask, some refuse it, and some ignore it without a word. A list of families would be
wrong with the next release of the library. So a small random tree is scored twice, as a tree and as plain
sequences, and only a model that gives the same numbers both times is given trees. Likewise
some families scale or cap their logits: states that give large logits show it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from editloop.policy.head import has_linear_head
from editloop.policy.logprob import batch_log_probs
from editloop.policy.packing import pack
from editloop.policy.tree import ContextTree

__all__ = ["TOLERANCE", "has_other_layers", "probe_head", "probe_trees"]

TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 0.5, torch.float16: 0.1}
"""Largest difference, by dtype, that rounding explains in the log-probability of about 12 random tokens."""


@torch.inference_mode()
def probe_trees(model: Any) -> tuple[bool, str]:
    """Find out whether trees give the same log-probabilities as plain sequences.

    Args:
        model: A causal LM of `transformers`.

    Returns:
        Whether they do, and the reason.
    """
    if reason := has_other_layers(model):
        return False, reason
    vocabulary = int(model.config.get_text_config().vocab_size)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (26,), generator=generator).tolist()
    context, shared, tails = tuple(ids[:6]), tuple(ids[6:10]), (ids[10:18], ids[18:26])
    trees = [
        ContextTree(context, tuple(shared + tuple(tail) for tail in tails)),
        ContextTree(context[:3], (tuple(tails[0]), shared)),
    ]
    # The first tree has a shared prefix and two branches; the second is shorter, so that padding is part of
    # the test.
    plain = batch_log_probs(model, pack(trees, share=False))
    try:
        packed = batch_log_probs(model, pack(trees))
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        return False, f"{model.config.model_type} takes no tree mask: {type(error).__name__}"
    difference = float((packed - plain).abs().max())
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    if not difference <= TOLERANCE.get(dtype, 0.5):
        return (
            False,
            f"{model.config.model_type} ignores the tree mask: log-probabilities differ by {difference:.2g}",
        )
    return True, f"checked on this model, equal to {difference:.0e}"


@torch.inference_mode()
def probe_head(model: Any) -> bool:
    """Find out whether a model's logits are those of its output embedding, a linear layer, and nothing more.

    Args:
        model: A causal LM of `transformers`.
    """
    if not has_linear_head(model):
        return False
    head = model.get_output_embeddings()
    device, width = head.weight.device, head.weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, 8, width, generator=generator).to(device)
    # Logits of about 100, far above the caps of 30 to 50 that families have. On the small logits of a random
    # model, a cap would hardly show.
    states = (100 * states / F.linear(states, head.weight.float()).std()).to(head.weight.dtype)
    handle = head.register_forward_pre_hook(lambda _, args: (states, *args[1:]))
    try:
        logits = model(input_ids=torch.zeros(1, 8, dtype=torch.long, device=device), use_cache=False).logits
    finally:
        handle.remove()
    expected = F.linear(states, head.weight, head.bias)
    if logits.shape != expected.shape:  # padded to a multiple, or cut
        return False
    return bool((logits.float() - expected.float()).abs().max() < 1.0)


def has_other_layers(model: Any) -> str | None:
    """Which of a model's layers are not attention that its mask decides; None if all are."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    # Recurrent layers, and windows that are counted along the row, mix tokens of different branches whatever
    # the mask says; on a probe that is shorter than the window they would pass.
    if kinds or hasattr(config, "window_size"):
        return f"{config.model_type} has {', '.join(sorted(kinds)) or 'local attention'}"
    return None
