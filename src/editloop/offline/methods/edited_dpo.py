"""Edited-token DPO: the preference of the edit, by the tokens that the user changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from editloop.offline.methods.dpo import DPO

if TYPE_CHECKING:
    from editloop.offline.examples import Completions, Example

__all__ = ["METHOD", "EditedDPO"]


class EditedDPO(DPO):
    """DPO whose margin counts only the tokens that the alignment of edit and response marks as changed.

    The margin of Eq. 4 counts all tokens after the first difference. Most of those behind a small edit are
    copies, and what the loss does to them is noise: it lowers the likelihood of words that the user kept.
    Here they are left out, on both sides, of the policy and of the reference.
    """

    name = "edited_dpo"
    title = "edited-token DPO"
    summary = "prefers the words that the user wrote to those that they replaced, and leaves the others"
    colour = "#d99058"

    def completions(self, examples: Sequence[Example], hyperparameters: Any) -> list[Completions]:
        """The edit and the response of each example, of which the changed tokens count."""
        from editloop.offline.methods.changes import weighted

        return [weighted(each.completions, changed=1.0, copied=0.0, roles=self.roles) for each in examples]


METHOD = EditedDPO()
