"""KTO: make drafts that were accepted unchanged likelier, and drafts that were edited less likely.

Ethayarajh et al. 2024, KTO: Model Alignment as Prospect Theoretic Optimization. It is the only method that
learns from acceptance, and it does not look at the text of an edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from editloop.offline.methods.base import Hyperparameters, Method, Need, hyperparameter, learning_rate

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.examples import Completions, Example
    from editloop.offline.methods.batch import Batch, Layout

__all__ = ["KTO", "METHOD", "KTOHyperparameters", "kto_loss"]

DESIRABLE, UNDESIRABLE, MISMATCHED = "desirable", "undesirable", "mismatched"


class KTOHyperparameters(Hyperparameters):
    """The hyperparameters of one trial of KTO."""

    learning_rate: float = learning_rate(5e-5, 2e-4)
    beta: float = hyperparameter(
        0.1, symbol="beta", description="β; the greater, the closer the policy stays to the reference.", gt=0
    )
    desirable_weight: float | None = hyperparameter(
        None,
        symbol="desirable",
        description="λ_D, the weight of a draft that was accepted unchanged; by default half of the drafts "
        "over the number of these, so that both kinds weigh the same together.",
        ge=0,
    )
    undesirable_weight: float | None = hyperparameter(
        None,
        symbol="undesirable",
        description="λ_U, the weight of a draft that was edited; by default half of the drafts over the "
        "number of these.",
        ge=0,
    )


class KTO(Method):
    """Kahneman-Tversky optimisation on the drafts.

    The value of a draft is its log π/π_ref compared with a reference point z, an estimate of KL(π‖π_ref). The
    estimate is a mean over the completions of one forward, so unlike with other methods, `micro_batch_size`
    affects the result.
    """

    # The KL divergence is an expectation over completions of π, which would have to be sampled anew after
    # each step. As in the paper, z is instead the mean log-ratio of drafts paired with contexts that they
    # were not written for. That estimate is biased, but it needs no sampling: it costs one more completion
    # in each tree.

    name = "kto"
    title = "KTO"
    summary = "learns from which drafts users accepted, not from the text of their edits"
    learns_from = "rows that were accepted unchanged and rows that were edited"
    colour = "#5b5fa8"
    hyperparameters = KTOHyperparameters
    roles = (DESIRABLE, UNDESIRABLE, MISMATCHED)
    forward_matters = True  # the reference point is a mean over one forward

    def suffices(self, examples: Sequence[Example]) -> bool:
        """Whether there are drafts of both kinds."""
        return len({_is_accepted(example) for example in examples}) == 2

    def settled(self, hyperparameters: Any, examples: Sequence[Example]) -> Any:
        """The hyperparameters with weights that balance the two kinds of drafts, where none are given."""
        # Most drafts are edited in most logs. With equal weights nearly the whole gradient pushes drafts
        # down, and the policy forgets how to write (benchmarks/results/defaults.md).
        accepted = sum(map(_is_accepted, examples))
        counts = {"desirable_weight": accepted, "undesirable_weight": len(examples) - accepted}
        balanced = {name: round(len(examples) / 2 / max(1, count), 3) for name, count in counts.items()}
        missing = {name for name in balanced if getattr(hyperparameters, name) is None}
        return hyperparameters.model_copy(update={name: balanced[name] for name in missing})

    def needs(self, hyperparameters: Any) -> frozenset[Need]:
        """The reference's log-probabilities of the drafts."""
        return frozenset({"reference"})

    def completions(self, examples: Sequence[Example], hyperparameters: Any) -> list[Completions]:
        """Each draft, and the draft of the next example, which does not belong to its context."""
        from editloop.offline.examples import Completions
        from editloop.policy import ContextTree

        drafts = [example.completions.only("response") for example in examples]
        longest = max(
            (len(each.tree.context) + len(each.tree.continuations[0]) for each in drafts), default=0
        )
        # The neighbour is taken from the order of the examples, not from the batch, so that a draft has the
        # same mismatched completion in every epoch, and its log π_ref can be computed in advance.
        found = []
        for example, own, other in zip(examples, drafts, [*drafts[1:], *drafts[:1]], strict=True):
            context, (draft,) = own.tree.context, own.tree.continuations
            # A long context and a long foreign draft together could exceed the model's limit. No row becomes
            # longer than the longest row of the log, which is known to fit.
            foreign = other.tree.continuations[0][: max(longest - len(context), 1)]
            # Two contexts may have the same draft. It is then one continuation with two roles.
            continuations = tuple(dict.fromkeys((draft, foreign)))
            roles = {
                DESIRABLE if _is_accepted(example) else UNDESIRABLE: (0,),
                MISMATCHED: (len(continuations) - 1,),
            }
            found.append(Completions(ContextTree(context, continuations), roles))
        return found

    def totals(self, layout: Layout) -> Mapping[str, float]:
        """The number of drafts."""
        return {"drafts": float(len(layout))}

    def loss(self, batch: Batch, hyperparameters: KTOHyperparameters) -> Tensor:
        """How far the value of each draft is below its maximum, mean over drafts (Ethayarajh et al. 2024)."""
        log_ratio = batch.log_probs - batch.reference.to(batch.log_probs.dtype)
        chosen = hyperparameters
        return kto_loss(
            log_ratio[batch.index(DESIRABLE)],
            log_ratio[batch.index(UNDESIRABLE)],
            log_ratio[batch.index(MISMATCHED)],
            beta=chosen.beta,
            weights=(_or_one(chosen.desirable_weight), _or_one(chosen.undesirable_weight)),
            count=batch.totals["drafts"],
        )

    def validation_figure(self, batch: Batch, hyperparameters: KTOHyperparameters) -> Tensor:
        """The loss, and half of what the accepted drafts lost in likelihood, in nats per token."""
        from editloop.offline.losses import displacement

        # As with DPO, the loss falls on and on where all drafts become unlikely, the accepted ones only less
        # so. With balanced weights it is 1/2 for the reference, so a fall of one nat outweighs all gains.
        accepted = batch.index(DESIRABLE)
        fall = displacement(batch.log_probs[accepted], batch.reference[accepted], batch.lengths[accepted])
        return self.loss(batch, hyperparameters) + fall / 2


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
        undesirable: r of undesirable drafts [u].
        mismatched: r of drafts of other contexts [m]. Their mean, or 0 if it is negative, is the reference
            point z, an estimate of KL(π‖π_ref) through which no gradient flows.
        beta: β > 0.
        weights: λ_D and λ_U.
        count: Number of drafts in the whole optimiser step.

    Returns:
        A scalar.
    """
    # A KL divergence is not negative, but its estimate can be. Without `detach`, the loss could be lowered by
    # moving the reference point instead of the drafts.
    point = mismatched.detach().mean().clamp(min=0) if len(mismatched) else mismatched.new_zeros(())
    # 1 − σ(x) is computed as σ(−x), which loses no digits where σ(x) is close to 1.
    short = weights[0] * (beta * (point - desirable)).sigmoid().sum()
    over = weights[1] * (beta * (undesirable - point)).sigmoid().sum()
    return (short + over) / max(count, 1e-9)


def _is_accepted(example: Example) -> bool:
    """Whether the draft was accepted unchanged."""
    # By the texts and not by `is_pair`: an edit whose tokens differ from the draft's only after the cut is no
    # pair, but the user did not accept the draft.
    return example.edit == example.response


def _or_one(weight: float | None) -> float:
    """A weight; 1 for one that is to follow from the rows, if it is asked for without them."""
    return 1.0 if weight is None else weight


METHOD = KTO()
