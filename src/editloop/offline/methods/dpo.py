"""DPO: make the edit likelier than the response, relative to the reference (Eq. 4)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from editloop.offline.methods.base import Hyperparameters, Method, Need, hyperparameter, learning_rate

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.examples import Example
    from editloop.offline.methods.batch import Batch

__all__ = ["DPO", "METHOD", "DPOHyperparameters", "batch_margin"]


class DPOHyperparameters(Hyperparameters):
    """The hyperparameters of one trial of DPO."""

    learning_rate: float = learning_rate(5e-5, 2e-4)
    beta: float = hyperparameter(
        0.1,
        symbol="beta",
        description="β of Eq. 4; the greater, the closer the policy stays to the reference.",
        gt=0,
    )


class DPO(Method):
    """Direct preference optimisation with the edit as chosen and the response as rejected."""

    name = "dpo"
    title = "DPO"
    summary = "prefers each edit to the draft that it replaced"
    learns_from = "rows whose edit differs from the response"
    colour = "#c2672d"
    hyperparameters = DPOHyperparameters
    roles: ClassVar[tuple[str, ...]] = ("edit", "response")
    within_context = True  # the loss depends on margins alone (see `preference_margin`)

    def rows(self, example: Example) -> bool:
        """Whether the response was changed; an equal pair has a margin of zero and no gradient."""
        return example.is_pair

    def needs(self, hyperparameters: Any) -> frozenset[Need]:
        """The reference's log-probabilities of both sides."""
        return frozenset({"reference"})

    def loss(self, batch: Batch, hyperparameters: DPOHyperparameters) -> Tensor:
        """−log σ(β margin), mean over pairs (Eq. 4)."""
        from editloop.offline.losses import dpo_loss

        return dpo_loss(batch_margin(batch), beta=hyperparameters.beta, count=batch.totals["pairs"])

    def validation_figure(self, batch: Batch, hyperparameters: DPOHyperparameters) -> Tensor:
        """The loss, and what the edits lost in nats per token, times the loss of the reference itself."""
        from editloop.offline.losses import displacement

        # The loss looks at the difference of edit and response alone. It keeps falling when both become
        # unlikely, edits only less so, and a policy that has forgotten how to write has the lowest loss of
        # all (docs/findings.md). A fall of one nat per token outweighs all that the loss can gain.
        wanted = self.wanted(batch)
        fall = displacement(batch.log_probs[wanted], batch.reference[wanted], batch.lengths[wanted])
        return self.loss(batch, hyperparameters) + self.unlearned(hyperparameters) * fall

    def wanted(self, batch: Batch) -> Tensor:
        """The numbers of the completions that should not become less likely: the edits."""
        return batch.pairs[0]

    def unlearned(self, hyperparameters: DPOHyperparameters) -> float:
        """The loss of the reference itself, whose margins are all 0."""
        return math.log(2)


def batch_margin(batch: Batch, pairs: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The preference margin of each pair of a batch, the argument of σ in Eq. 4 before β [p].

    Args:
        batch: The batch.
        pairs: The numbers of the chosen and of the rejected completions [p], [p]; by default edits and
            responses.
    """
    from editloop.offline.losses import preference_margin

    (chosen, rejected), reference = pairs or batch.pairs, batch.reference
    margin = preference_margin(
        batch.log_probs[chosen], batch.log_probs[rejected], reference[chosen], reference[rejected]
    )
    # The sums are subtracted in the reference's precision (`Batch.exact`). The margin itself is small, so
    # float32 holds it well, and the loss has the dtype that the trainer expects.
    return margin.to(batch.log_probs.dtype)


METHOD = DPO()
