"""Edited-token SFT: make the edits likely, above all the tokens that the user wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from editloop.offline.methods.base import hyperparameter
from editloop.offline.methods.sft import SFT, SFTHyperparameters

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.examples import Completions, Example
    from editloop.offline.methods.batch import Batch

__all__ = ["METHOD", "EditedSFT", "EditedSFTHyperparameters"]


class EditedSFTHyperparameters(SFTHyperparameters):
    """The hyperparameters of one trial of edited-token SFT."""

    changed_weight: float = hyperparameter(
        3.0,
        symbol="changed",
        description="How many copied tokens a token counts for that the user wrote; 1 is SFT.",
        gt=0,
    )


class EditedSFT(SFT):
    """SFT in which inserted and replacing tokens weigh more than copied ones.

    Copied tokens are the reference's own, and mostly likely already. They keep the weight 1, so that the
    policy still learns where to leave a draft as it is. The mean over tokens is by the same weights.
    """

    name = "edited_sft"
    title = "edited-token SFT"
    summary = "imitates the edited texts, above all the words that the user wrote"
    colour = "#7fa7d6"
    hyperparameters = EditedSFTHyperparameters

    def completions(self, examples: Sequence[Example], hyperparameters: Any) -> list[Completions]:
        """The edit of each example, by whose changed tokens it counts more."""
        from editloop.offline.methods.changes import weighted

        weight = hyperparameters.changed_weight
        return [weighted(each.completions, changed=weight, copied=1.0, roles=self.roles) for each in examples]

    def loss(self, batch: Batch, hyperparameters: Any) -> Tensor:
        """The negative log-likelihood of the edits, changed tokens counted `changed_weight` times (Eq. 3)."""
        return super().loss(batch, hyperparameters)


METHOD = EditedSFT()
