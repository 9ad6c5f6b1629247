"""DPOP: DPO that may not make the edit less likely than it was.

Pal et al. 2024, Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive (arXiv 2402.13228).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from editloop.offline.methods.base import hyperparameter, learning_rate
from editloop.offline.methods.dpo import DPO, DPOHyperparameters, batch_margin

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.methods.batch import Batch

__all__ = ["DPOP", "METHOD", "DPOPHyperparameters"]


class DPOPHyperparameters(DPOHyperparameters):
    """The hyperparameters of one trial of DPOP."""

    # As for SFT: with a floor under the edit, rates at which DPO ends in text that costs as much as none
    # are the better ones (benchmarks/results/edit-losses.md).
    learning_rate: float = learning_rate(5e-4, 2e-3)
    floor: float = hyperparameter(
        5.0,
        symbol="floor",
        description="λ, what a nat costs by which the edit is less likely than under the reference, in nats "
        "of the margin.",
        ge=0,
    )


class DPOP(DPO):
    """DPO with a penalty on the margin where the edit falls below its likelihood under the reference.

    DPO looks at the difference of edit and response alone, and often makes both unlikely. Here a fall of the
    edit costs 1 + λ times what the same fall of the response gains.
    """

    name = "dpop"
    title = "DPOP"
    summary = "prefers each edit to the draft that it replaced, without making the edit less likely"
    colour = "#a8543c"
    hyperparameters = DPOPHyperparameters
    within_context = False  # the floor is about the whole edit, of which the shared prefix is a part

    def loss(self, batch: Batch, hyperparameters: Any) -> Tensor:
        """−log σ(β (margin − λ max(0, log π_ref(y') − log π(y')))), mean over pairs (Pal et al. 2024)."""
        from editloop.offline.losses import dpo_loss

        chosen, _ = batch.pairs
        fall = (batch.reference[chosen] - batch.log_probs[chosen]).clamp(min=0).to(batch.log_probs.dtype)
        margin = batch_margin(batch) - hyperparameters.floor * fall
        return dpo_loss(margin, beta=hyperparameters.beta, count=batch.totals["pairs"])


METHOD = DPOP()
