"""SFT: make the edits likely (Eq. 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from editloop.offline.methods.base import Hyperparameters, Method, hyperparameter

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.methods.batch import Batch

__all__ = ["METHOD", "SFT", "Reduction", "SFTHyperparameters", "supervised_loss"]

Reduction = Literal["sequence", "token"]

DIVISORS = {"sequence": "contexts", "token": "edit_tokens"}
"""For each reduction, the total that the negative log-likelihood is divided by (`Batch.totals`). `sequence`
is the mean of Eq. 3 to the letter; `token` is the mean that is usual for SFT."""


class SFTHyperparameters(Hyperparameters):
    """The hyperparameters of one trial of SFT."""

    reduction: Reduction = hyperparameter(
        "token",
        symbol="reduction",
        description="The mean: over edits (sequence, Eq. 3), or over their tokens (token), in which long "
        "edits weigh more.",
    )


class SFT(Method):
    """Supervised fine-tuning on the edits."""

    name = "sft"
    title = "SFT"
    summary = "imitates the edited texts"
    learns_from = "rows that were edited or accepted"
    colour = "#2f6fb0"
    hyperparameters = SFTHyperparameters
    roles: ClassVar = ("edit",)

    def loss(self, batch: Batch, hyperparameters: SFTHyperparameters) -> Tensor:
        """The negative log-likelihood of the edits (Eq. 3)."""
        return supervised_loss(batch, hyperparameters.reduction)


def supervised_loss(batch: Batch, reduction: Reduction) -> Tensor:
    """The SFT loss on the edits of a batch (Eq. 3), a scalar."""
    from editloop.offline.losses import sft_loss

    edits = batch.index("edit")
    return sft_loss(
        batch.log_probs[edits],
        batch.lengths[edits],
        reduction=reduction,
        count=batch.totals[DIVISORS[reduction]],
    )


METHOD = SFT()
