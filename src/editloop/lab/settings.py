"""How policies of the lab are trained, by domain: what the demo and the paper's tables use.

The hyperparameters were chosen by `make bench NAME=tune`, on validation data of logs whose seed no table
reports. How many passes, and the adapter, were fixed from the single methods' curves (docs/lab.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from editloop.lab.domains import get_domain
from editloop.lab.log import MAX_NEW_TOKENS
from editloop.offline import Candidate, FitConfig, Method
from editloop.policy import LoraSettings

__all__ = ["LOG_ROWS", "TUNED", "fit_settings"]

LOG_ROWS = 1500
"""Rows of a log."""

TUNED: Mapping[str, Mapping[Method, Candidate]] = {
    "email": {
        "sft": Candidate(learning_rate=1.5e-3),
        "dpo": Candidate(learning_rate=2e-4, beta=1.0),
        "rl": Candidate(learning_rate=1e-3, beta=0.05, kappa=0.0, rl_loss="weighted"),
        "early": Candidate(learning_rate=1.5e-3, beta=3.0, dpo_weight=10.0),
    },
    "summary": {
        "sft": Candidate(learning_rate=1.5e-3),
        "dpo": Candidate(learning_rate=5e-4, beta=1.0),
        "rl": Candidate(learning_rate=1e-3, beta=0.05, kappa=0.0, rl_loss="weighted"),
        "early": Candidate(learning_rate=1.5e-3, beta=3.0, dpo_weight=10.0),
    },
}
"""What each method is trained with."""


def fit_settings(domain: str, *, seed: int = 0) -> FitConfig:
    """The configuration of a fit on a log of this domain.

    Raises:
        ConfigError: There is no such domain.
    """
    chosen = TUNED[get_domain(domain).name]
    rl = chosen["rl"]
    assert rl.kappa is not None and rl.rl_loss is not None
    return FitConfig(
        learning_rate={method: (each.learning_rate,) for method, each in chosen.items()},
        beta={
            method: (candidate.beta,) for method, candidate in chosen.items() if candidate.beta is not None
        },
        dpo_weight=(chosen["early"].dpo_weight or 0.0,),
        kappa=(rl.kappa,),
        rl_loss=(rl.rl_loss,),
        sft_reduction="sequence",
        lora=LoraSettings(rank=32, alpha=64),
        epochs=8,
        rl_epochs=4,
        evaluations=6,
        max_new_tokens=MAX_NEW_TOKENS,
        seed=seed,
    )
