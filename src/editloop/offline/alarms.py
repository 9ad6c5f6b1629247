"""Alarms: signs that a training went wrong although it ran to its end. Each is a line with what was seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from editloop.edits import Cost, context_text
from editloop.edits.cost import charge_unfinished
from editloop.edits.non_answers import find_non_answer
from editloop.offline.examples import Example
from editloop.offline.scoring import Estimate
from editloop.policy import Policy

__all__ = ["SampleCheck", "check_samples", "raise_alarms"]

DEGENERATE_SHARE = 0.1
"""An alarm is raised if the share of degenerate samples is higher than the base's by more than this."""

COST_ERRORS = 1.5
"""An alarm is raised if the samples cost more than the base's by more than this many standard errors."""

LENGTH_RATIO = 2.0
"""An alarm is raised if the samples are, on average, more than this many times as long as the edits."""


@dataclass(frozen=True)
class SampleCheck:
    """What sampled responses of a policy look like.

    Attributes:
        cost: Mean cost between a sampled response and the row's edit. A response that was cut at the limit
            costs as much as one of which nothing is kept (`charge_unfinished`), so that a policy cannot gain
            by rambling on.
        looping: Share of samples from which a repetition loop was trimmed.
        unfinished: Share of samples that did not end within the limit of tokens.
        length_ratio: Mean length of the samples over that of the edits, in characters.
        examples: The first few samples: context, sample, edit, cost, finished.
        empty: Share of samples that are empty or white space.
        non_answers: Share of samples that are no answers, by the rules of `editloop.edits.non_answers`.
        edits_non_answers: Share of the edits that the same rules take for none: what the users want, then.
        costs: The cost of each sample, to compare policies with; not written to the manifest.
    """

    cost: Estimate
    looping: float
    unfinished: float
    length_ratio: float
    examples: list[dict[str, Any]]
    empty: float = 0.0
    non_answers: float = 0.0
    edits_non_answers: float = 0.0
    costs: tuple[float, ...] = field(default=(), compare=False)

    def in_words(self) -> str:
        """The cost, with what tells whether it is one of whole responses of the right length."""
        return (
            f"{self.cost.mean:.3f} ({1 - self.unfinished:.0%} finished, "
            f"{self.length_ratio:.1f} times as long as the edits)"
        )

    def to_json(self) -> dict[str, Any]:
        """The check as plain data, without what it is a mean of."""
        found = asdict(self)
        del found["costs"]
        return found

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SampleCheck:
        """The check that `to_json` wrote."""
        return cls(**{**content, "cost": Estimate(**content["cost"])})


def check_samples(
    policy: Policy,
    examples: list[Example],
    cost: Cost,
    *,
    seed: int,
    max_new_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> SampleCheck | None:
    """Sample a response for each example's context and compare it with the edit.

    Args:
        policy: The policy to sample from.
        examples: The examples whose contexts are answered.
        cost: The cost Δ.
        seed: The seed of the sampling.
        max_new_tokens: Limit of a response, in tokens.
        progress: Called with the number of responses sampled so far.

    Returns:
        What the samples look like; None if there are no examples.
    """
    if not examples:
        return None
    samples = policy.sample(
        [e.context for e in examples], seed=seed, max_new_tokens=max_new_tokens, progress=progress
    )
    edits = [e.edit for e in examples]
    costs = cost([s.text for s in samples], edits)
    costs = charge_unfinished(cost, costs, [s.finished for s in samples], edits)
    estimate = Estimate.of(costs)
    assert estimate is not None
    return SampleCheck(
        cost=estimate,
        looping=float(np.mean([s.trimmed > 0 for s in samples])),
        unfinished=float(np.mean([not s.finished for s in samples])),
        length_ratio=sum(len(s.text) for s in samples) / max(1, sum(len(e) for e in edits)),
        examples=[
            {"context": context_text(e.context), "sample": s.text, "edit": e.edit, "cost": float(c)}
            | {"finished": s.finished}
            for e, s, c in list(zip(examples, samples, costs, strict=True))[:5]
        ],
        empty=float(np.mean([not s.text.strip() for s in samples])),
        non_answers=float(np.mean([find_non_answer(s.text) is not None for s in samples])),
        edits_non_answers=float(np.mean([find_non_answer(edit) is not None for edit in edits])),
        costs=tuple(map(float, costs)),
    )


def raise_alarms(
    *,
    initial_loss: float,
    best_loss: float,
    figures: Mapping[str, Mapping[str, float] | None],
    sampled: SampleCheck | None,
    base: SampleCheck | None,
) -> list[str]:
    """The alarms of one trained policy. Long because each alarm is a condition and its line.

    Args:
        initial_loss: Validation loss before training.
        best_loss: The lowest validation loss in training.
        figures: Figures of the kept state on the validation part, from `Scores.figures`.
        sampled: What the policy's samples look like, if any were taken.
        base: What the base's samples look like; the policy is not blamed for what the base does already.

    Returns:
        The alarms, one line each; empty if nothing was seen.
    """
    alarms = []
    if not best_loss < initial_loss:  # true for a loss of NaN as well, unlike `best_loss >= initial_loss`
        alarms.append(
            f"the validation loss never improved: {initial_loss:.4g} before, {best_loss:.4g} at best "
            "(lower the learning rate, or give more data)"
        )
    shift = figures.get("chosen_shift")
    # DPO can raise the margin while it lowers the likelihood of both sides. The alarm needs a shift that is
    # significant and large enough to matter.
    if shift is not None and shift["mean"] < -2 * shift["se"] and shift["mean"] < -0.1:
        alarms.append(
            f"displacement: the edits' log-probability fell {-shift['mean']:.2f} nats below the reference's "
            f"on average over {shift['n']:.0f} validation rows (add SFT, or raise beta)"
        )
    if sampled is None:
        return alarms
    usual = (base.looping, base.unfinished, base.empty) if base else (0.0, 0.0, 0.0)
    if sampled.looping > usual[0] + DEGENERATE_SHARE:
        alarms.append(
            f"degenerate text: {sampled.looping:.0%} of samples end in a repetition loop, base {usual[0]:.0%}"
        )
    if sampled.unfinished > usual[1] + DEGENERATE_SHARE:
        alarms.append(f"degenerate text: {sampled.unfinished:.0%} of samples do not end, base {usual[1]:.0%}")
    if sampled.unfinished == 1.0:
        alarms.append(
            "no sample came to its end, so that their costs are all alike and tell nothing (raise "
            "max_new_tokens if the edits are longer)"
        )
    if sampled.empty > usual[2] + DEGENERATE_SHARE:
        alarms.append(f"degenerate text: {sampled.empty:.0%} of samples are empty, base {usual[2]:.0%}")
    if sampled.length_ratio > LENGTH_RATIO * max(1.0, base.length_ratio if base else 1.0):
        alarms.append(f"degenerate text: samples are {sampled.length_ratio:.1f} times as long as the edits")
    # A one-sided test at 1.5 standard errors raises a false alarm in 7 of 100 trainings. That is more than is
    # usual, because a false alarm costs a look at the samples, and a missed one puts a bad policy into use.
    if base is not None:
        error = math.hypot(sampled.cost.se, base.cost.se)
        if sampled.cost.mean > base.cost.mean + COST_ERRORS * error:
            alarms.append(
                f"worse text: samples cost {sampled.in_words()} against the edits, the base's "
                f"{base.in_words()}; lower the learning rate or the epochs, or add SFT"
            )
    return alarms
