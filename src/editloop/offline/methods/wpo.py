"""WPO: DPO in which a pair counts by how likely the policy itself would have written both of its texts.

Zhou et al. 2024, WPO: Enhancing RLHF with Weighted Preference Optimization (arXiv 2406.11827).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from editloop.offline.methods.dpo import DPO, DPOHyperparameters, batch_margin

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.methods.batch import Batch

__all__ = ["METHOD", "WPO"]


class WPO(DPO):
    """DPO with the weight w(y') w(y) of each pair, which simulates pairs of the policy's own.

    w(y) = exp(1/|y| Σ_t [log π(y_t) − log Σ_v π(v)²]), "sampled alignment" in the paper: about 1 for a text
    as the policy writes it, whether it is sure of its tokens or not, and near 0 for one that it would not
    write. In a log of many policies it looks away from the drafts of policies that are long gone.
    """

    # The weight is a factor and not a part of what is learned: through its gradient, the loss could be
    # lowered by making both texts unlikely. For the same reason the figure that decides among states and
    # trials is that of DPO, without weights.
    #
    # TRL's DPO with `use_weighting` has the same weights. Earlier versions of it limited them to 1, which the
    # paper does not; a text of the likeliest tokens alone has a weight above 1.

    name = "wpo"
    title = "WPO"
    summary = "prefers each edit to its draft, the more the likelier the policy itself would write both"
    colour = "#b8860b"
    within_context = False  # the weights are means over whole texts, their shared prefix included
    log_squares = True

    def loss(self, batch: Batch, hyperparameters: DPOHyperparameters) -> Tensor:
        """−w(y') w(y) log σ(β margin), mean over pairs (Zhou et al. 2024)."""
        from torch.nn import functional as F

        losses = -F.logsigmoid(hyperparameters.beta * batch_margin(batch))
        # Without pairs, both the sum and the total are 0.
        return (pair_weights(batch) * losses).sum() / max(batch.totals["pairs"], 1e-9)

    def validation_figure(self, batch: Batch, hyperparameters: Any) -> Tensor:
        """As for DPO, all pairs with the same weight."""
        return _UNWEIGHTED.validation_figure(batch, hyperparameters)


def pair_weights(batch: Batch) -> Tensor:
    """w(y') w(y) of each pair of a batch, without gradient [p].

    Raises:
        ValueError: The batch has no `log_squares`.
    """
    if batch.log_squares is None:
        raise ValueError("the weights of WPO need the sums of squared probabilities")
    aligned = (batch.log_probs.detach() - batch.log_squares) / batch.lengths.clamp(min=1)
    chosen, rejected = batch.pairs
    return (aligned[chosen] + aligned[rejected]).exp()


_UNWEIGHTED = DPO()

METHOD = WPO()
