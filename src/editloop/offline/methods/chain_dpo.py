"""Chain DPO: prefer each revision of an edit to the one before it, and the first to the draft.

CH-Wang et al. 2025, Fine-Tuning LLMs with Fine-Grained Human Feedback on Text Spans (arXiv 2512.23693), where
each adjacent pair of a chain of improvements is a preference. Here the chain is what users saved on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from editloop.offline.methods.dpo import DPO, DPOHyperparameters, batch_margin

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.examples import Completions, Example
    from editloop.offline.methods.batch import Batch, Layout

__all__ = ["METHOD", "ChainDPO", "adjacent_pairs", "without_detours"]


class ChainDPO(DPO):
    """DPO on the adjacent pairs of a chain: the response, the earlier revisions of the edit, and the edit.

    A row without earlier revisions has the one pair of DPO. Every pair counts once, whatever row it is of.
    """

    # Margins are differences, so those of a row's pairs add up to the margin of its edit and its response. At
    # the start, where σ(0) is 1/2 for each, the pairs of a row together have the gradient of its ordinary
    # pair. A mean within rows would divide this by the number of revisions, and a row that its user worked on
    # four times would count a quarter. Later the pairs part: each stops to pull when it is learned itself.

    name = "chain_dpo"
    title = "chain DPO"
    summary = "prefers each revision of an edit to the one before it, and the first to the draft"
    colour = "#e0a458"
    roles: ClassVar = ("edit", "response", "revision")

    def completions(self, examples: Sequence[Example], hyperparameters: Any) -> list[Completions]:
        """The edit, the response, and the earlier revisions that are on the way from one to the other."""
        from editloop.offline.examples import EDIT, RESPONSE, REVISION, Completions
        from editloop.policy import ContextTree

        found = []
        for example in examples:
            own = example.completions.only(EDIT, RESPONSE)
            ends = own.tree.continuations
            _, *between, _ = without_detours([ends[own.of(RESPONSE)], *example.revisions, ends[own.of(EDIT)]])
            if between:
                places = tuple(range(len(ends), len(ends) + len(between)))
                tree = ContextTree(own.tree.context, (*ends, *between))
                own = Completions(tree, {**own.roles, REVISION: places})
            found.append(own)
        return found

    def totals(self, layout: Layout) -> Mapping[str, float]:
        """The number of adjacent pairs."""
        return {"pairs": float(len(adjacent_pairs(layout)[0]))}

    def loss(self, batch: Batch, hyperparameters: DPOHyperparameters) -> Tensor:
        """−log σ(β margin), mean over the adjacent pairs of all chains (Eq. 4, arXiv 2512.23693)."""
        from editloop.offline.losses import dpo_loss

        chosen, rejected = (each.to(batch.log_probs.device) for each in adjacent_pairs(batch.layout))
        margin = batch_margin(batch, (chosen, rejected))
        return dpo_loss(margin, beta=hyperparameters.beta, count=batch.totals["pairs"])


def without_detours(texts: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return a chain without what its user took back: what lies between a text and its return is left out.

    The first and the last text stay. Who tries a word and returns to the old one prefers neither by that; the
    two preferences would contradict each other.

    Args:
        texts: The texts of a chain as tokens, the oldest first.
    """
    kept: list[tuple[int, ...]] = []
    for text in texts:
        if text in kept:
            del kept[kept.index(text) + 1 :]
        else:
            kept.append(text)
    return kept


def adjacent_pairs(layout: Layout) -> tuple[Tensor, Tensor]:
    """The numbers of the later and of the earlier text of each adjacent pair of the chains [p], [p]."""
    import torch

    from editloop.offline.examples import EDIT, RESPONSE, REVISION

    found = []
    for start, each in zip(layout.starts, layout.completions, strict=True):
        chain = (each.of(RESPONSE), *each.roles.get(REVISION, ()), each.of(EDIT))
        found += [(start + later, start + earlier) for earlier, later in pairwise(chain)]
    table = torch.tensor(found, dtype=torch.long).reshape(-1, 2)  # also of a batch without rows
    return table[:, 0], table[:, 1]


METHOD = ChainDPO()
