"""Whether a model's attention takes the mask of a context tree: asked of the model itself.

A list of families would be wrong the day after it was written. A small random tree is scored twice,
as a tree and as plain sequences; only a model that gives the same numbers is given trees.
"""

from __future__ import annotations

from typing import Any

import torch

from editloop.policy.logprob import batch_log_probs
from editloop.policy.tree import ContextTree, pack

__all__ = ["probe_trees"]

TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 0.5, torch.float16: 0.1}  # natural log, over 8 tokens


@torch.inference_mode()
def probe_trees(model: Any) -> tuple[bool, str]:
    """Whether trees give the log-probabilities of plain sequences, and why it is thought so."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds or hasattr(config, "window_size"):  # windows counted along the row, which no mask undoes
        return False, f"{config.model_type} has {', '.join(sorted(kinds)) or 'local attention'}"
    vocabulary = int(config.vocab_size)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (26,), generator=draw).tolist()
    context, shared, tails = tuple(ids[:6]), tuple(ids[6:10]), (ids[10:18], ids[18:26])
    trees = [
        ContextTree(context, tuple(shared + tuple(tail) for tail in tails)),
        ContextTree(context[:3], (tuple(tails[0]), shared)),
    ]
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
