"""EarlyEnsemble: one policy trained on the SFT, the DPO and, optionally, the RL loss together (Eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from editloop.offline.methods.base import Hyperparameters, Method, Need, hyperparameter
from editloop.offline.methods.dpo import batch_margin
from editloop.offline.methods.rl import RL, RLLoss, choice_loss
from editloop.offline.methods.sft import Reduction, supervised_loss

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.examples import Completions, Example
    from editloop.offline.methods.batch import Batch

__all__ = ["METHOD", "EarlyEnsemble", "EarlyHyperparameters"]


class EarlyHyperparameters(Hyperparameters):
    """The hyperparameters of one trial of EarlyEnsemble."""

    # Both terms are sums over the tokens of a text, so their balance is the same for texts of any length: the
    # SFT term pulls each edit's log-probability up with a slope of 1, and the DPO term, with λ = 1/β, pulls
    # edit and response apart with a slope of σ(−β margin), which is 1/2 at the start and never above 1. The
    # edit is thus pulled up at least as strongly as the response is pushed down, and by Cauchy-Schwarz the
    # edit's likelihood rises, to first order, as long as the response's gradient is less than twice as long
    # as the edit's. A mean over tokens would divide the slope of 1 by the length of the edit, and DPO alone
    # would decide on long texts.
    reduction: Reduction = hyperparameter(
        "sequence",
        symbol="reduction",
        description="The mean of the SFT term: over edits (sequence) or over their tokens (token), which "
        "makes the SFT term small beside the DPO term where edits are long.",
    )
    beta: float = hyperparameter(0.1, symbol="beta", description="β of the DPO term (Eq. 4).", gt=0)
    dpo_weight: float | None = hyperparameter(
        None,
        symbol="dpo",
        description="λ, the weight of the DPO term (Eq. 7); by default 1/β, with which both terms have "
        "slopes of the same size at any length of the edits.",
        ge=0,
    )
    rl_weight: float = hyperparameter(
        0.0, symbol="rl", description="λ_RL, the weight of the RL term; 0 leaves the term out.", ge=0
    )
    rl_beta: float = hyperparameter(0.1, symbol="rl_beta", description="β of the RL term (Eq. 6).", gt=0)
    kappa: float = hyperparameter(1.0, symbol="kappa", description="κ of the RL term: its pessimism.", ge=0)
    rl_loss: RLLoss = hyperparameter("pairwise", symbol="rl_loss", description="The loss of the RL term.")

    @property
    def weight(self) -> float:
        """λ, the weight of the DPO term."""
        return 1 / self.beta if self.dpo_weight is None else self.dpo_weight

    def in_use(self) -> frozenset[str]:
        """Names of all fields; those of the RL term only if its weight is above 0."""
        used = super().in_use()
        return used if self.rl_weight else used - {"rl_weight", "rl_beta", "kappa", "rl_loss"}


class EarlyEnsemble(Method):
    """One policy trained on the weighted sum of several methods' losses.

    The terms correct each other: DPO alone can lower the likelihood of both edit and response, which the SFT
    term opposes, and SFT alone learns nothing from the response. One forward on the tree of edit and response
    gives the log-probabilities that all terms need.
    """

    name = "early"
    title = "EarlyEnsemble"
    summary = "imitates the edits and at the same time prefers them to the drafts"
    learns_from = "rows whose edit differs from the response"
    colour = "#3a8f5c"
    hyperparameters = EarlyHyperparameters
    roles: ClassVar = ("edit", "response")

    def suffices(self, examples: Sequence[Example]) -> bool:
        """Whether there is a pair; without any, the method would be SFT."""
        return any(example.is_pair for example in examples)

    def needs(self, hyperparameters: EarlyHyperparameters) -> frozenset[Need]:
        """The reference; with an RL term also sampled completions and their costs."""
        return frozenset({"reference", "cost_model"} if hyperparameters.rl_weight else {"reference"})

    def completions(
        self, examples: Sequence[Example], hyperparameters: EarlyHyperparameters
    ) -> list[Completions]:
        """The edit and the response; with an RL term also the sampled completions."""
        if not hyperparameters.rl_weight:
            return super().completions(examples, hyperparameters)
        return RL().completions(examples, hyperparameters)

    def loss(self, batch: Batch, hyperparameters: EarlyHyperparameters) -> Tensor:
        """SFT + λ · DPO + λ_RL · RL (Eq. 7).

        Each term is the mean that its own method has: a row that was accepted counts for the SFT term and not
        for the DPO term, which divides by the number of pairs.
        """
        from editloop.offline.losses import dpo_loss, early_ensemble_loss

        chosen = hyperparameters
        rl: Tensor | float = 0.0
        sft = supervised_loss(batch, chosen.reduction)
        if chosen.rl_weight:
            rl = choice_loss(batch, kind=chosen.rl_loss, beta=chosen.rl_beta, kappa=chosen.kappa)
        return early_ensemble_loss(
            sft,
            dpo_loss(batch_margin(batch), beta=chosen.beta, count=batch.totals["pairs"]),
            rl,
            dpo_weight=chosen.weight,
            rl_weight=chosen.rl_weight,
        )


METHOD = EarlyEnsemble()
