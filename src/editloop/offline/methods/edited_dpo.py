"""Edited-token DPO: the preference of the edit, by the tokens that the user changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from editloop.offline.methods.dpo import DPO, DPOHyperparameters

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.examples import Completions, Example
    from editloop.offline.methods.batch import Batch

__all__ = ["METHOD", "EditedDPO"]

WHOLE = "whole edit"
"""The role of the edit with all its tokens."""


class EditedDPO(DPO):
    """DPO whose margin counts only the tokens that the alignment of edit and response marks as changed.

    The margin of Eq. 4 counts all tokens after the first difference. Most of those behind a small edit are
    copies, and what the loss does to them is noise: it lowers the likelihood of words that the user kept.
    Here they are left out, on both sides, of the policy and of the reference.
    """

    # The loss says nothing of the copied tokens, and of an edit that only deletes it says nothing at all. So
    # the figure that decides looks at the whole edit, which stands in the tree once more, with all its tokens
    # counted; the tree itself has no more tokens for that.

    name = "edited_dpo"
    title = "edited-token DPO"
    summary = "prefers the words that the user wrote to those that they replaced, and leaves the others"
    colour = "#d99058"
    within_context = False  # the whole edit counts from its beginning

    def completions(self, examples: Sequence[Example], hyperparameters: Any) -> list[Completions]:
        """The edit and the response of each example, whose changed tokens count; and the whole edit."""
        from editloop.offline.examples import EDIT, Completions
        from editloop.offline.methods.changes import weighted
        from editloop.policy import ContextTree

        found = []
        for example in examples:
            own = weighted(example.completions, changed=1.0, copied=0.0, roles=self.roles)
            edit = own.tree.continuations[own.of(EDIT)]
            continuations = (*own.tree.continuations, edit)
            weights = (*(own.tree.weights or ()), (1.0,) * len(edit))
            tree = ContextTree(own.tree.context, continuations, weights)
            found.append(Completions(tree, {**own.roles, WHOLE: (len(own),)}))
        return found

    def loss(self, batch: Batch, hyperparameters: DPOHyperparameters) -> Tensor:
        """−log σ(β margin), the margin over the changed tokens, mean over pairs (Eq. 4)."""
        return super().loss(batch, hyperparameters)

    def wanted(self, batch: Batch) -> Tensor:
        """The whole edits."""
        return batch.index(WHOLE)


METHOD = EditedDPO()
