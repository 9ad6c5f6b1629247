"""How policies of the lab are trained, by domain: what the demo and the paper's tables use.

The hyperparameters were chosen by `make bench NAME=tune`, on validation data of logs whose seed no table
reports. How many passes, and the adapter, were fixed from the single methods' curves (docs/lab.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from editloop.lab.domains import get_domain
from editloop.lab.log import MAX_NEW_TOKENS
from editloop.offline import FitConfig
from editloop.policy import LoraSettings

__all__ = ["LOG_ROWS", "TUNED", "fit_settings"]

LOG_ROWS = 1500
"""Rows of a log."""

_SFT = {"learning_rate": 1.5e-3, "reduction": "sequence"}
_RL = {"learning_rate": 1e-3, "epochs": 4.0, "beta": 0.05, "kappa": 0.0, "loss": "weighted"}
_EARLY = {
    "learning_rate": 1.5e-3,
    "reduction": "sequence",
    "beta": 3.0,
    "dpo_weight": 10.0,
    "rl_beta": 0.05,
    "kappa": 0.0,
    "rl_loss": "weighted",
}

TUNED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "email": {"sft": _SFT, "dpo": {"learning_rate": 2e-4, "beta": 1.0}, "rl": _RL, "early": _EARLY},
    "summary": {"sft": _SFT, "dpo": {"learning_rate": 5e-4, "beta": 1.0}, "rl": _RL, "early": _EARLY},
}
"""The hyperparameters of each method, by domain. The RL term of EarlyEnsemble has no weight here; with one it
would be trained as RL alone is."""


def fit_settings(domain: str, *, seed: int = 0) -> FitConfig:
    """The configuration of a fit on a log of this domain.

    Raises:
        ConfigError: There is no such domain.
    """
    chosen = TUNED[get_domain(domain).name]
    return FitConfig(
        hyperparameters={
            method: {name: (value,) for name, value in values.items()} for method, values in chosen.items()
        },
        lora=LoraSettings(rank=32, alpha=64),
        epochs=8,
        evaluations=6,
        max_new_tokens=MAX_NEW_TOKENS,
        seed=seed,
    )
