"""How policies of the lab are trained: what the demo and the paper's tables use.

The hyperparameters are the domain's (`Domain.tuned`). The number of passes and the adapter were fixed from
the single methods' curves (docs/lab.md).
"""

from __future__ import annotations

from editloop.edits.cost import PAPER_COST
from editloop.lab.domains import get_domain
from editloop.offline import FitConfig
from editloop.policy import LoraSettings

__all__ = ["COST", "LOG_ROWS", "REAL_TRAINING", "fit_settings"]

COST = PAPER_COST
"""The cost of texts in the lab, in which the paper's tables are."""

LOG_ROWS = 1500
"""The number of rows of a log."""

REAL_TRAINING = FitConfig(
    methods=("sft",),
    hyperparameters={
        "sft": {"learning_rate": (1e-3,)},
        "early": {"learning_rate": (1e-3,)},
    },
    epochs=3.0,
    batch_size=8,
    evaluations=3,
    validation_samples=0,
    mixture="none",
)
"""On a real base, for a hundred rows of free texts: some 40 steps of one trial for each method."""


def fit_settings(domain: str, *, seed: int = 0) -> FitConfig:
    """The configuration of a fit on a log of this domain.

    Raises:
        ConfigError: There is no such domain.
    """
    world = get_domain(domain)
    return FitConfig(
        hyperparameters={
            method: {name: (value,) for name, value in values.items()}
            for method, values in world.tuned.items()
        },
        lora=LoraSettings(rank=32, alpha=64),
        epochs=8,
        batch_size=32,
        cost=world.cost,
        evaluations=6,
        num_samples=4,
        max_new_tokens=world.max_new_tokens,
        seed=seed,
    )
