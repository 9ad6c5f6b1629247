"""LoRA adapters on a base, by PEFT: put one on, take it off again, read and write it.

The base's weights are never changed by an adapter, so one load of the base serves every method.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from editloop.errors import ModelError
from editloop.policy.model import Policy

__all__ = ["LoraSettings", "attach_adapter", "detach_adapter", "load_adapter", "trainable_copy"]


class LoraSettings(BaseModel):
    """What a LoRA adapter looks like."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = "all-linear"


def attach_adapter(policy: Policy, settings: LoraSettings, *, seed: int) -> Policy:
    """The policy with a fresh trainable adapter; the same seed gives the same adapter.

    Raises:
        ModelError: The base has no module that the adapter could go on.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    base = policy.model
    if getattr(base, "is_quantized", False):
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return replace(policy, model=get_peft_model(base, config))
        except ValueError as error:
            raise ModelError(
                "the adapter fits no module of the base", seen=targets, do="change --lora-targets"
            ) from error


def detach_adapter(policy: Policy) -> Policy:
    """The base again, as it was before `attach_adapter`."""
    base: Any = policy.model.unload()
    if hasattr(base, "peft_config"):
        del base.peft_config
    return replace(policy, model=base)


def load_adapter(policy: Policy, folder: Path) -> Policy:
    """The policy with the adapter that `folder` holds; `detach_adapter` takes it off again.

    Raises:
        ModelError: The adapter is damaged or was made for another base.
    """
    from peft import PeftModel

    try:
        return replace(policy, model=PeftModel.from_pretrained(policy.model, str(folder)).eval())
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the adapter cannot be loaded: {reason}", seen=folder.name, do="fit it again"
        ) from error


@contextmanager
def trainable_copy(policy: Policy) -> Iterator[Policy]:
    """Within it, all the base's weights may be trained; afterwards they are what they were.

    A copy of the weights is kept in main memory meanwhile.
    """
    kept = {name: weight.detach().cpu().clone() for name, weight in policy.model.state_dict().items()}
    try:
        policy.model.requires_grad_(True)
        yield policy
    finally:
        policy.model.load_state_dict(kept)
