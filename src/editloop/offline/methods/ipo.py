"""IPO: bring the preference margin of each pair to a fixed distance, so that the loss does not saturate.

Azar et al. 2023, A General Theoretical Paradigm to Understand Learning from Human Preferences, Eq. 17.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.offline.methods.dpo import DPO, DPOHyperparameters, batch_margin

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.methods.batch import Batch

__all__ = ["IPO", "METHOD"]


class IPO(DPO):
    """Identity preference optimisation: DPO's rows and hyperparameters with a square loss on the margin."""

    name = "ipo"
    title = "IPO"
    summary = "prefers each edit to its draft by a fixed margin, and no more"
    colour = "#8c6d1f"

    def loss(self, batch: Batch, hyperparameters: DPOHyperparameters) -> Tensor:
        """(margin − 1/(2β))², mean over pairs (Azar et al. 2023)."""
        # The paper's τ is β here. DPO's loss keeps falling as the margin grows, so a preference without noise
        # pushes the policy further and further from the reference. This loss has its minimum at a finite
        # margin.
        distance = batch_margin(batch) - 1 / (2 * hyperparameters.beta)
        # Without pairs, both the sum and the total are 0; the minimum makes the loss 0 instead of NaN.
        return distance.square().sum() / max(batch.totals["pairs"], 1e-9)

    def unlearned(self, hyperparameters: DPOHyperparameters) -> float:
        """The loss of the reference itself, the square of the distance."""
        return (1 / (2 * hyperparameters.beta)) ** 2


METHOD = IPO()
