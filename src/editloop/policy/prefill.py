"""Read each distinct prompt of a batch once, however many responses to it are drawn in the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from editloop.policy.mode import core_of

__all__ = ["shared_prefill"]


def shared_prefill(model: Any, ids: Tensor, seen: Tensor) -> dict[str, Any]:
    """An argument for `generate`: the keys and values of all prompt tokens but the last.

    Args:
        model: A causal LM, or its PEFT wrapper.
        ids: Prompts, padded on the left [n, W].
        seen: 1 where a token is no padding [n, W].

    Returns:
        A cache of n rows under its name; nothing where all prompts differ, or where the model keeps its past
        in another way.
    """
    from transformers import GenerationConfig
    from transformers.cache_utils import DynamicCache, DynamicLayer

    # Padding is part of the comparison: a prompt that holds the padding token is another one than a shorter
    # prompt beside it.
    width, core = ids.shape[1], core_of(model)
    distinct, owner = torch.unique(torch.cat([ids, seen], dim=1), dim=0, return_inverse=True)
    if len(distinct) == len(ids) or width < 2 or not core._supports_default_dynamic_cache():
        return {}
    cache = DynamicCache(config=core.config.get_text_config(decoder=True))
    # A layer with a state of another kind, such as a recurrent one, may not come apart into rows.
    if not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        return {}
    prompts, mask = distinct.split(width, dim=1)
    # The last token is left to the caller, who needs its logits in every row. The token that is generated
    # here is never read, so it is not in the cache.
    model.generate(
        prompts[:, :-1],
        attention_mask=mask[:, :-1],
        past_key_values=cache,
        generation_config=GenerationConfig(max_new_tokens=1, pad_token_id=0),
    )
    cache.batch_select_indices(owner)
    return {"past_key_values": cache}
