"""A run folder without a model behind it: files, headers and figures as a fit writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from editloop.policy import RunFolder

MODULE = "model.layers.0.self_attn.q_proj"
OUT, IN, RANK = 6, 4, 2


def cost(mean: float | None, se: float | None = 0.03) -> dict[str, Any]:
    return {"sampled": {"cost": {"mean": mean, "se": se, "n": 9}}}


def adapter_weights(rank: int = RANK, out: int = OUT) -> dict[str, Any]:
    prefix = f"base_model.model.{MODULE}"
    draws = np.random.default_rng(0)
    return {
        f"{prefix}.lora_A.weight": draws.normal(size=(rank, IN)).astype(np.float32),
        f"{prefix}.lora_B.weight": draws.normal(size=(out, rank)).astype(np.float32),
    }


def save_adapter(folder: Path, weights: dict[str, Any] | None = None, rank: int = RANK) -> Path:
    """An adapter's folder; its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "r": rank, "rank_pattern": {}, "fan_in_fan_out": False}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(weights or adapter_weights(), folder / "adapter_model.safetensors")
    return folder / "adapter_model.safetensors"


def make_run(path: Path, names: tuple[str, ...] = ("sft", "dpo")) -> RunFolder:
    """A run whose policies are adapters, on a base of one matrix."""
    run, base = RunFolder(path), path.parent / "base"
    base.mkdir(exist_ok=True)
    save_file({f"{MODULE}.weight": np.zeros((OUT, IN), np.float32)}, base / "model.safetensors")
    path.mkdir()
    for name in names:
        save_adapter(run.policy_path(name))
    policies = {name: {"chosen": 0, "alarms": [], "candidates": [cost(0.2)]} for name in names}
    about = {"name": str(base), "fingerprint": "0123456789abcdef", **cost(0.5)}
    run.write_manifest({"base": about, "policies": policies, "read": {}})
    return run
