"""Figures of a policy on examples: likelihood of the edits, preference accuracies, shift from the reference.

The same functions serve the validation during training and the evaluation on a held-out log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.intervals import share_interval
from editloop.offline.examples import EDIT, RESPONSE, Example
from editloop.offline.reference import on_all_processes
from editloop.offline.wins import wins_of
from editloop.policy import Policy

__all__ = ["DEFAULT_BETA", "Estimate", "Scores", "log_probs_of", "score", "scores_of"]

DEFAULT_BETA = 0.1
"""The β of the reported preference loss, for a policy whose method has no β."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error over rows (NaN for one row), and the number of rows."""

    mean: float
    se: float
    n: int

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Estimate | None:
        """The mean of values [n] with its standard error; None if there are no values."""
        if len(values) == 0:
            return None
        se = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else math.nan
        return cls(float(values.mean()), se, len(values))


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of n examples under a policy and under the reference.

    Attributes:
        chosen: log π(y'|x) [n].
        lengths: Number of tokens of each edit [n].
        ref_chosen: log π_ref(y'|x) [n]; NaN without a reference pass.
        pair: The indices of the examples that are pairs [p].
        rejected: log π(y|x) of the pairs [p].
        ref_rejected: log π_ref(y|x) of the pairs [p].
    """

    chosen: NDArray[np.float64]
    lengths: NDArray[np.float64]
    ref_chosen: NDArray[np.float64]
    pair: NDArray[np.int64]
    rejected: NDArray[np.float64]
    ref_rejected: NDArray[np.float64]

    @property
    def log_ratio(self) -> NDArray[np.float64]:
        """log π(y'|x) − log π(y|x) of the pairs [p]."""
        return self.chosen[self.pair] - self.rejected

    @property
    def margin(self) -> NDArray[np.float64]:
        """The log-ratio minus that of the reference: the argument of σ in Eq. 4 before β [p]."""
        return self.log_ratio - (self.ref_chosen[self.pair] - self.ref_rejected)

    def token_nll(self) -> Estimate | None:
        """The negative log-likelihood of the edits per token, with its standard error over rows."""
        # A ratio of two sums over rows. Its standard error, to first order (delta method), is that of the
        # mean of the residuals (nll_i − ratio · length_i) / mean length: tokens of one row are not
        # independent.
        if len(self.chosen) == 0:
            return None
        ratio = -self.chosen.sum() / self.lengths.sum()
        residual = (-self.chosen - ratio * self.lengths) / self.lengths.mean()
        spread = Estimate.of(residual)
        return Estimate(float(ratio), spread.se if spread else math.nan, len(self.chosen))

    def figures(self, beta: float = DEFAULT_BETA) -> dict[str, dict[str, Any] | None]:
        """All figures by name, each with mean, standard error and number of rows; None if there are no rows.

        `accuracy` is the share of pairs whose edit is likelier than the response, with a tie counted as half.
        `reference_accuracy` is the share of pairs whose margin against the reference is positive. Both have
        their 95% `interval`. `chosen_shift` and `rejected_shift` are the mean changes of the
        log-probabilities of edits and of responses from the reference.

        Args:
            beta: β of the preference loss `preference_nll`.
        """
        # log σ(x) = −log(1 + e^−x), without overflow for margins of hundreds of nats.
        with np.errstate(invalid="ignore"):  # a policy that diverged gives NaN
            log_sigmoid = -np.logaddexp(0, -beta * self.margin)
        values = {
            "edit_nll_per_edit": Estimate.of(-self.chosen),
            "edit_nll_per_token": self.token_nll(),
            "preference_nll": Estimate.of(-log_sigmoid),
            "accuracy": Estimate.of(_wins(self.log_ratio)),
            "reference_accuracy": Estimate.of(_wins(self.margin)),
            "chosen_shift": Estimate.of(self.chosen - self.ref_chosen),
            "rejected_shift": Estimate.of(self.rejected - self.ref_rejected),
        }
        found = {name: asdict(value) if value else None for name, value in values.items()}
        for name in ("accuracy", "reference_accuracy"):
            if (share := found[name]) is not None:
                share["interval"] = share_interval(share["mean"], share["n"])
        return found


def _wins(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Which differences of log-probabilities are positive, a tie being a half [p]."""
    # The same tokens scored in two batches differ by float32's rounding, which must not decide a tie.
    return wins_of(values, tie=1e-6)


def score(
    policy: Policy, examples: Sequence[Example], *, progress: Callable[[int], None] | None = None
) -> Scores:
    """Score examples; the processes of a distributed run share the work, and each gets the whole result.

    Args:
        policy: The policy.
        examples: The examples, with log π_ref for the figures that need it [n].
        progress: Called with the number of this process's examples done so far.
    """
    return scores_of(examples, log_probs_of(policy, examples, progress=progress))


def log_probs_of(
    policy: Policy, examples: Sequence[Example], *, progress: Callable[[int], None] | None = None
) -> list[list[float]]:
    """The log-probabilities of the continuations of each example's tree; arguments as for `score`."""
    trees = [e.tree for e in examples]
    return on_all_processes(policy.device, trees, lambda mine: policy.log_probs(mine, progress=progress))


def scores_of(examples: Sequence[Example], log_probs: Sequence[Sequence[float]]) -> Scores:
    """The scores of examples.

    Args:
        examples: The examples [n].
        log_probs: For each example the log-probabilities of the continuations of its tree [n][K].
    """
    pair = [i for i, e in enumerate(examples) if e.is_pair]

    def values(
        table: Sequence[Sequence[float] | None], role: str, rows: Sequence[int]
    ) -> NDArray[np.float64]:
        found = [(table[i] or (), examples[i].completions.of(role)) for i in rows]
        return np.array([each[index] if each else np.nan for each, index in found], np.float64)

    everything, references = range(len(examples)), [e.completions.reference for e in examples]
    lengths = [len(e.tree.continuations[e.completions.of(EDIT)]) for e in examples]
    return Scores(
        chosen=values(log_probs, EDIT, everything),
        lengths=np.array(lengths, np.float64),
        ref_chosen=values(references, EDIT, everything),
        pair=np.array(pair, np.int64),
        rejected=values(log_probs, RESPONSE, pair),
        ref_rejected=values(references, RESPONSE, pair),
    )
