"""LoRA adapters by PEFT: attach a fresh one to a base, load a saved one, and detach it again.

An adapter never changes the base's weights, so every method can use the base as it was loaded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from editloop.errors import ModelError
from editloop.policy.lora import LoraSettings
from editloop.policy.model import Policy

__all__ = ["attach_adapter", "detach_adapter", "load_adapter", "trainable_copy"]


def attach_adapter(policy: Policy, settings: LoraSettings, *, seed: int) -> Policy:
    """Attach a fresh trainable adapter to a policy's base.

    Args:
        policy: The base.
        settings: The shape of the adapter.
        seed: Decides the adapter's initial weights; the global random state is left as it was.

    Raises:
        ModelError: The base has none of the modules that the settings name.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        # GPT-2's Conv1D keeps its weight as [in, out], the transpose of a linear layer's.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in policy.model.modules()),
        task_type="CAUSAL_LM",
    )
    with _random_state_kept(policy):
        torch.manual_seed(seed)
        try:
            return replace(policy, model=get_peft_model(policy.model, config))
        except ValueError as error:
            raise ModelError(
                "the adapter fits no module of the base", seen=targets, do="change --lora-targets"
            ) from error


def detach_adapter(policy: Policy) -> Policy:
    """Remove the adapter, and return the base as it was before `attach_adapter` or `load_adapter`."""
    base: Any = policy.model.unload()
    # PEFT leaves its record on the base. With it, the next adapter would be taken for a second one beside it.
    if hasattr(base, "peft_config"):
        del base.peft_config
    return replace(policy, model=base.eval())


def load_adapter(policy: Policy, folder: Path) -> Policy:
    """Attach the adapter in a folder to a policy's base, frozen; `detach_adapter` removes it again.

    Raises:
        ModelError: The adapter is damaged or was made for another base.
    """
    from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

    adapted = None
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights = load_peft_weights(str(folder), device=str(policy.device))
        with _random_state_kept(policy):  # PEFT draws initial weights, which are replaced at once
            adapted = replace(policy, model=get_peft_model(policy.model, config))
        # PEFT skips weights that the adapter lacks or does not know. A policy of which half was loaded would
        # look like a bad one.
        result = set_peft_model_state_dict(adapted.model, weights)
        missing = [key for key in result.missing_keys if "lora_" in key]
        if missing or result.unexpected_keys:
            raise ValueError(f"{len(missing)} weights missing, {len(result.unexpected_keys)} unknown")
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        if adapted is not None:  # the adapter's layers are in the base already
            detach_adapter(adapted)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the adapter cannot be loaded: {reason}", seen=folder.name, do="fit it again"
        ) from error
    return replace(adapted, model=adapted.model.requires_grad_(False).eval())


def _random_state_kept(policy: Policy) -> AbstractContextManager[None]:
    """A context after which the global random state is what it was before."""
    return torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else [])


@contextmanager
def trainable_copy(policy: Policy) -> Iterator[Policy]:
    """A context in which all weights of the base may be trained; afterwards they are restored.

    A copy of the weights is kept in main memory meanwhile.
    """
    kept = {name: weight.detach().cpu().clone() for name, weight in policy.model.state_dict().items()}
    try:
        policy.model.requires_grad_(True)
        yield policy
    finally:
        # `accelerate` wraps the model's `forward` in autocast, as an attribute of the model itself. Left
        # there, the next method would train in another precision than the first.
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            policy.model.__dict__.pop(name, None)
        policy.model.load_state_dict(kept)
        policy.model.eval()
