"""LoRA adapters by PEFT: attach one to a base to train it, load a saved one, and detach it again.

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

DAMAGED = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)
"""What a folder raises that holds no adapter for the base."""


def attach_adapter(policy: Policy, settings: LoraSettings, *, seed: int, start: Path | None = None) -> Policy:
    """Attach a trainable adapter to a policy's base: a fresh one, or one with the weights of another.

    Args:
        policy: The base.
        settings: The shape of the adapter.
        seed: Decides the initial weights of a fresh adapter; the global random state is left as it was.
        start: The folder of an adapter of the same shape, with whose weights it begins.

    Raises:
        ModelError: The base has none of the modules that the settings name, or the weights of `start` are
            damaged or those of another shape.
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
            adapted = replace(policy, model=get_peft_model(policy.model, config))
        except ValueError as error:
            raise ModelError(
                "the adapter fits no module of the base", seen=targets, do="change --lora-targets"
            ) from error
    if start is not None:
        _take_weights(adapted, start)
    return adapted


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
    from peft import PeftConfig, get_peft_model

    try:
        config = PeftConfig.from_pretrained(str(folder))
        with _random_state_kept(policy):  # PEFT draws initial weights, which are replaced at once
            adapted = replace(policy, model=get_peft_model(policy.model, config))
    except DAMAGED as error:
        raise _not_loaded(folder, error) from error
    _take_weights(adapted, folder)
    return replace(adapted, model=adapted.model.requires_grad_(False).eval())


def _take_weights(adapted: Policy, folder: Path) -> None:
    """Give an attached adapter the weights in a folder; if they do not fit, remove it from the base.

    Raises:
        ModelError: The weights are damaged or those of another shape.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    try:
        weights = load_peft_weights(str(folder), device=str(adapted.device))
        # PEFT skips weights that the adapter lacks or does not know. A policy of which half was loaded would
        # look like a bad one.
        result = set_peft_model_state_dict(adapted.model, weights)
        missing = [key for key in result.missing_keys if "lora_" in key]
        if missing or result.unexpected_keys:
            raise ValueError(f"{len(missing)} weights missing, {len(result.unexpected_keys)} unknown")
    except DAMAGED as error:
        detach_adapter(adapted)  # the adapter's layers are in the base already
        raise _not_loaded(folder, error) from error


def _not_loaded(folder: Path, error: Exception) -> ModelError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(f"the adapter cannot be loaded: {reason}", seen=folder.name, do="fit it again")


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
