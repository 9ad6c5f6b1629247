"""Figures of a policy on examples: likelihood of the edits, preference accuracy, shift from the reference.

One function serves the validation in training and the held-out evaluation afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from numpy.typing import NDArray

from editloop.intervals import share_interval
from editloop.offline.examples import Example
from editloop.policy import Policy, processes

__all__ = ["Estimate", "Scores", "score"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error over rows (NaN for one row), and the number of rows."""

    mean: float
    se: float
    n: int

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Estimate | None:
        """Of values [n]; None if there are none."""
        if len(values) == 0:
            return None
        se = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else math.nan
        return cls(float(values.mean()), se, len(values))


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of n examples under a policy and under the reference.

    Attributes:
        chosen: log π(y'|x) [n].
        lengths: Tokens of each edit [n].
        ref_chosen: log π_ref(y'|x) [n]; NaN without a reference pass.
        pair: Which examples are pairs [p].
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
        """The same against the reference, the argument of Eq. 4 before β [p]."""
        return self.log_ratio - (self.ref_chosen[self.pair] - self.ref_rejected)

    def token_nll(self) -> Estimate | None:
        """−log-likelihood of the edits per token: the ratio of sums, with its standard error over rows."""
        if len(self.chosen) == 0:
            return None
        ratio = -self.chosen.sum() / self.lengths.sum()
        residual = (-self.chosen - ratio * self.lengths) / self.lengths.mean()
        spread = Estimate.of(residual)
        return Estimate(float(ratio), spread.se if spread else math.nan, len(self.chosen))

    def figures(self, beta: float = 0.1) -> dict[str, dict[str, Any] | None]:
        """All figures by name, each as mean, standard error and number of rows (None: no rows).

        `accuracy` is the share of pairs whose edit is likelier than the response (a tie counts half),
        `reference_accuracy` the same by the margin against the reference, both with their 95% `interval`;
        `chosen_shift` and `rejected_shift` are how far log-probabilities moved from the reference.
        """
        with np.errstate(invalid="ignore"):  # a policy that diverged has no numbers
            margins = -np.logaddexp(0, -beta * self.margin)
        values = {
            "edit_nll_per_edit": Estimate.of(-self.chosen),
            "edit_nll_per_token": self.token_nll(),
            "preference_nll": Estimate.of(-margins),
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
    return (np.sign(np.where(np.abs(values) < 1e-6, 0.0, values)) + 1) / 2


def score(
    policy: Policy, examples: Sequence[Example], *, progress: Callable[[int], None] | None = None
) -> Scores:
    """Score examples; the processes of a distributed run share the work and all get the result."""
    state = processes(policy.device)
    mine = examples[state.process_index :: state.num_processes]
    found = policy.log_probs([e.tree for e in mine], progress=progress)
    if state.num_processes > 1:
        merged: list[list[float]] = [[] for _ in examples]
        for rank, part in enumerate(gather_object([found])):
            merged[rank :: state.num_processes] = part
        found = merged
    pair = [i for i, e in enumerate(examples) if e.is_pair]
    references = [e.reference or (np.nan, np.nan) for e in examples]

    def array(values: Sequence[float | None]) -> NDArray[np.float64]:
        return np.array(values, np.float64)

    return Scores(
        chosen=array([s[0] for s in found]),
        lengths=array([len(e.tree.continuations[0]) for e in examples]),
        ref_chosen=array([r[0] for r in references]),
        pair=np.array(pair, np.int64),
        rejected=array([found[i][1] for i in pair]),
        ref_rejected=array([references[i][1] for i in pair]),
    )
