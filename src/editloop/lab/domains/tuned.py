"""Hyperparameters that the built-in domains have in common.

They were chosen by `make bench NAME=tune`, on validation data of logs whose seed no table reports.
"""

from __future__ import annotations

__all__ = ["TUNED_EARLY", "TUNED_RL", "TUNED_SFT"]

TUNED_SFT = {"learning_rate": 1.5e-3, "reduction": "sequence"}
TUNED_RL = {"learning_rate": 1e-3, "epochs": 4.0, "beta": 0.05, "kappa": 0.0, "loss": "weighted"}
TUNED_EARLY = {
    "learning_rate": 1.5e-3,
    "reduction": "sequence",
    "beta": 3.0,
    "dpo_weight": 10.0,
    "rl_beta": 0.05,
    "kappa": 0.0,
    "rl_loss": "weighted",
}
"""The RL term of EarlyEnsemble has no weight here; with one it would be trained as RL alone is."""
