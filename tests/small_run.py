"""A run folder without a model behind it: files, headers and figures as a fit writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from editloop.policy import RunFolder
from editloop.policy.manifest import Manifest

MODULE = "model.layers.0.self_attn.q_proj"
OUT, IN, RANK = 6, 4, 2


def cost(mean: float | None, se: float | None = 0.03) -> dict[str, Any]:
    return {"sampled": {"cost": {"mean": mean, "se": se, "n": 9}}}


def make_manifest(**parts: Any) -> Manifest:
    """A manifest of these parts; a base that is nowhere, if none is given."""
    base = {"name": "nowhere", "fingerprint": "0123456789abcdef"}
    return Manifest.model_validate({"base": base, **parts}, strict=False)


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
    policies = {name: {"chosen": 0, "alarms": [], "trials": [cost(0.2)]} for name in names}
    about = {"name": str(base), "fingerprint": "0123456789abcdef", **cost(0.5)}
    run.write_manifest(make_manifest(base=about, policies=policies))
    return run


def write_format_1(run: RunFolder) -> dict[str, Any]:
    """Put a `run.json` of format 1 into a run of `sft`, `dpo` and `early`; its content.

    All keys are those that a fit wrote then: the trials were `candidates`, and what a trial was trained with
    stood among its figures.
    """

    def figure(mean: float | None, n: int = 9) -> dict[str, Any]:
        return {"mean": mean, "se": 0.125, "n": n}

    def samples(mean: float) -> dict[str, Any]:
        example = {"context": "Invite Ada", "sample": "Dear Ada", "edit": "Hi Ada"}
        return {
            "cost": figure(mean),
            "looping": 0.0,
            "unfinished": 0.25,
            "length_ratio": 1.5,
            "examples": [example],
            "empty": 0.0,
        }

    def candidate(mean: float, **hyperparameters: Any) -> dict[str, Any]:
        return {
            **hyperparameters,
            "initial_loss": 2,  # a float that was whole
            "validation_loss": 1.5,
            "validation_cost": mean,
            "validation": {
                "edit_nll_per_token": figure(1.5),
                "accuracy": {**figure(0.75, 8), "interval": [0.41, 0.93]},
                "preference_nll": None,
            },
            "sampled": samples(mean),
            "steps": 12,
            "best_step": 8,
            "seconds": 3.5,
            "history": [
                {"grad_norm": 0.5, "learning_rate": 0.0001, "loss": 2.25, "step": 1},
                {"eval_loss": None, "step": 4},
            ],
        }

    diverged = {
        **candidate(0.0, learning_rate=1e30),
        "validation_loss": None,
        "validation_cost": None,
        "sampled": None,
        "best_step": None,
    }
    rl = {"rl_weight": 0.5, "kappa": 1.0, "rl_beta": 0.2, "rl_loss": "pairwise"}
    candidates = {
        "sft": [diverged, candidate(0.4, learning_rate=0.0001)],
        "dpo": [candidate(0.2, learning_rate=2e-05, beta=0.1)],
        "early": [candidate(0.9, learning_rate=0.0001, beta=0.1, dpo_weight=1.0, **rl)],
    }
    part = {"examples": 36, "pairs": 30, "counts": {"unedited: no preference": 6}}
    fidelity = {"rows": 9, "r2": 0.5, "pearson": 0.7, "spearman": 0.6, "covered": [0.5, 0.8, 1.0]}
    content = {
        "status": "done",
        "identity": "0011223344556677",
        "read": {"path": "log.jsonl", "sha256": "ab" * 32, "rows": 46},
        "data": {"train": part, "validation": {"examples": 9, "pairs": 8, "counts": {}}},
        "base": {
            "name": str(run.path.parent / "base"),
            "fingerprint": "0123456789abcdef",
            "max_length": 60,
            "end_token": "<|end|>",
            "quantize": None,
            "dtype": "float32",
            "trust_remote_code": False,
            "decisions": ["device cpu, float32"],
            "sampled": samples(0.5),
        },
        "config": {
            "methods": ["sft", "dpo", "early"],
            "learning_rate": {"sft": [1e30, 0.0001], "dpo": [2e-05], "early": [0.0001]},
            "beta": {"dpo": [0.1], "rl": [0.2], "early": [0.1]},
            "dpo_weight": [1.0],
            "rl_weight": [0.5],
            "candidates": 4,
            "samples": 64,
            "sft_reduction": "token",
            "rl_epochs": None,
            "lora": {"rank": 16, "alpha": 32.0, "dropout": 0.0, "targets": "all-linear"},
            "cost": "levenshtein:char/response",
            "max_new_tokens": 99,
            "max_length": None,
        },
        "policies": {
            name: {
                "chosen": len(trials) - 1,
                "selected_by": "loss",
                "alarms": ["samples cost more"] if name == "early" else [],
                "candidates": trials,
            }
            for name, trials in candidates.items()
        },
        "cost_model": {
            "kind": "ridge",
            "settings": {"rows": 36, "features": "linear", "ridge": 0.1},
            "noise": 0.05,
            "unit": 0.4,
            "model": fidelity,
            "length": {**fidelity, "r2": 0.1},
            "mean": {**fidelity, "r2": 0.0, "pearson": None, "spearman": None},
            "tried": {"ridge": fidelity},
        },
        "mixture": {
            "weights": {"sft": 0.25, "dpo": 0.75, "early": 0.0},
            "errors": {"sft": 0.1, "dpo": 0.1, "early": 0.0},
            "by": "likelihood",
            "rows": 9,
            "objective": -3.5,
            "single": {"sft": -4.0, "dpo": -4.5, "early": -5.0},
            "curve": [-4.0, -3.5],
        },
        "format": 1,
        "versions": {"python": "3.11.7", "editloop": "0.9"},
    }
    run.manifest_path.write_text(json.dumps(content), encoding="utf-8")
    return content
