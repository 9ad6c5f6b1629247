"""How large a demo is: quick by default, or full, as the paper's tables are made.

The quick setting was chosen on other seeds than the demo's own; docs/lab.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass

from editloop.lab.settings import LOG_ROWS, fit_settings
from editloop.offline import FitConfig

__all__ = ["DemoSettings", "full_settings", "quick_settings"]


@dataclass(frozen=True)
class DemoSettings:
    """The settings of a demo.

    Attributes:
        rows: The number of rows of each user's log.
        responses: The number of fresh contexts that each policy answers, and of rounds of the online phase.
        config: How the policies are trained.
        seed: The seed of the logs and the evaluation.
        domain: The domain of the lab.
    """

    rows: int
    responses: int
    config: FitConfig
    seed: int = 0
    domain: str = "email"


def quick_settings(domain: str = "email") -> DemoSettings:
    """The settings for less than three minutes on two cores.

    They have fewer rows and passes and smaller batches than the full ones, and the same evaluation.
    """
    changes = {"epochs": 4.0, "batch_size": 16, "evaluations": 3}
    config = fit_settings(domain).changed(changes)
    return DemoSettings(rows=750, responses=200, config=config, domain=domain)


def full_settings(domain: str = "email") -> DemoSettings:
    """The settings with the rows, the passes and the hyperparameters of the paper's tables."""
    return DemoSettings(rows=LOG_ROWS, responses=200, config=fit_settings(domain), domain=domain)
