"""Acceptance: drafts that were left as they were are desirable, drafts that were edited are not (KTO).

Ethayarajh et al. 2024, KTO: Model Alignment as Prospect Theoretic Optimization. It is the one method that
learns from acceptance, and it does not look at what an edit says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from editloop.offline.methods.base import Hyperparameters, Method, Need, hyperparameter

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.examples import Completions, Example
    from editloop.offline.methods.batch import Batch, Layout

__all__ = ["KTO", "METHOD", "KTOHyperparameters", "kto_loss"]

DESIRABLE, UNDESIRABLE, MISMATCHED = "desirable", "undesirable", "mismatched"


class KTOHyperparameters(Hyperparameters):
    """What one trial of KTO is trained with."""

    learning_rate: float = hyperparameter(
        2e-5, 1e-4, symbol="lr", description="Learning rate after the warm-up.", comparable=True, gt=0
    )
    beta: float = hyperparameter(
        0.1, symbol="beta", description="β: how strongly the reference holds the policy.", gt=0
    )
    desirable_weight: float = hyperparameter(
        1.0, symbol="desirable", description="λ_D, the weight of a draft that was left as it was.", ge=0
    )
    undesirable_weight: float = hyperparameter(
        1.0, symbol="undesirable", description="λ_U, the weight of a draft that was edited.", ge=0
    )


class KTO(Method):
    """Kahneman-Tversky optimisation on the drafts.

    The reference point z is estimated, as in the paper, from completions of other contexts. Its estimate is
    over one forward, so `micro_batch_size` has a part in the result here.
    """

    name = "kto"
    title = "KTO"
    summary = "learns from which drafts were accepted, not from what the edits say"
    learns_from = "rows that were left as they were and rows that were edited"
    colour = "#5b5fa8"
    hyperparameters = KTOHyperparameters
    roles = (DESIRABLE, UNDESIRABLE, MISMATCHED)

    def suffices(self, examples: Sequence[Example]) -> bool:
        """Whether there are drafts of both kinds."""
        return len({example.is_pair for example in examples}) == 2

    def needs(self, hyperparameters: Any) -> frozenset[Need]:
        """The reference of the drafts."""
        return frozenset({"reference"})

    def completions(self, examples: Sequence[Example], hyperparameters: Any) -> list[Completions]:
        """Each draft, and beside it the draft of the next example, which does not belong to its context."""
        from editloop.offline.examples import Completions
        from editloop.policy import ContextTree

        drafts = [example.completions.only("response") for example in examples]
        longest = max(
            (len(each.tree.context) + len(each.tree.continuations[0]) for each in drafts), default=0
        )
        found = []
        for example, own, other in zip(examples, drafts, [*drafts[1:], *drafts[:1]], strict=True):
            context, (draft,) = own.tree.context, own.tree.continuations
            # No longer than the longest row of the log, which the model is known to take.
            foreign = other.tree.continuations[0][: max(longest - len(context), 1)]
            continuations = tuple(dict.fromkeys((draft, foreign)))
            roles = {
                UNDESIRABLE if example.is_pair else DESIRABLE: (0,),
                MISMATCHED: (len(continuations) - 1,),
            }
            found.append(Completions(ContextTree(context, continuations), roles))
        return found

    def totals(self, layout: Layout) -> Mapping[str, float]:
        """The number of drafts."""
        return {"drafts": float(len(layout))}

    def loss(self, batch: Batch, hyperparameters: KTOHyperparameters) -> Tensor:
        """The mean over drafts of what each falls short of its greatest value."""
        log_ratio = batch.log_probs - batch.reference.to(batch.log_probs.dtype)
        chosen = hyperparameters
        return kto_loss(
            log_ratio[batch.index(DESIRABLE)],
            log_ratio[batch.index(UNDESIRABLE)],
            log_ratio[batch.index(MISMATCHED)],
            beta=chosen.beta,
            weights=(chosen.desirable_weight, chosen.undesirable_weight),
            count=batch.totals["drafts"],
        )


def kto_loss(
    desirable: Tensor,
    undesirable: Tensor,
    mismatched: Tensor,
    *,
    beta: float,
    weights: tuple[float, float] = (1.0, 1.0),
    count: float,
) -> Tensor:
    """λ_D (1 − σ(β(r − z))) of desirable and λ_U (1 − σ(β(z − r))) of undesirable drafts, over all of them.

    Args:
        desirable: r = log π/π_ref of desirable drafts [d].
        undesirable: The same of undesirable drafts [u].
        mismatched: The same of drafts of other contexts [m]; their mean, not below 0, is the reference point
            z, an estimate of KL(π‖π_ref) through which no gradient flows.
        beta: β > 0.
        weights: λ_D and λ_U.
        count: Drafts of the whole optimiser step.

    Returns:
        A scalar.
    """
    point = mismatched.detach().mean().clamp(min=0) if len(mismatched) else mismatched.new_zeros(())
    # 1 − σ(x) = σ(−x), which keeps its digits where σ(x) is close to 1.
    short = weights[0] * (beta * (point - desirable)).sigmoid().sum()
    over = weights[1] * (beta * (undesirable - point)).sigmoid().sum()
    return (short + over) / max(count, 1e-9)


METHOD = KTO()
