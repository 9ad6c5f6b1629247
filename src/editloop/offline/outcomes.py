"""What else is known of a draft than its edit, such as whether a CI passed it, beside what policies make of
it.

A log keeps outcomes in the records' metadata. They are feedback, too, though no method trains on them: a
policy should find drafts that came to a good end likelier than those that did not, and the edits of good
ones should cost less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from editloop.edits import Record
from editloop.errors import EmptyViewError
from editloop.offline.examples import RESPONSE, Example
from editloop.offline.scoring import Estimate

__all__ = ["Outcomes", "read_outcomes"]


class Outcomes:
    """The outcome of the draft of each example.

    Args:
        name: The key in the metadata.
        values: The outcome of each example, NaN where none is known, float64 [n].
        examples: The examples [n].
    """

    def __init__(self, name: str, values: NDArray[np.float64], examples: Sequence[Example]) -> None:
        self.name, self.values, self.examples = name, values, examples

    def summary(self, costs: NDArray[np.float64]) -> dict[str, Any]:
        """Return how many are known, their mean, and the mean cost of the edits of good and of other drafts.

        Args:
            costs: What the edit of each draft cost [n].
        """
        known = ~np.isnan(self.values)
        groups = {"good": known & self._good, "other": known & ~self._good}
        found = {key: Estimate.of(costs[mask]) for key, mask in groups.items()}
        return {
            "name": self.name,
            "rows": int(known.sum()),
            "mean": float(self.values[known].mean()),
            "cost": {key: {"mean": each.mean, "se": each.se} for key, each in found.items() if each},
        }

    def discrimination(self, log_probs: Sequence[Sequence[float]]) -> float | None:
        """Return how often, of a good and another draft, the good one is likelier: the area under the ROC
        curve.

        Drafts of different contexts are compared by how much likelier than under the reference each is; where
        the policy is the reference itself, by their log-probability per token.

        Args:
            log_probs: For each example the log-probabilities of the continuations of its tree by the policy
                [n][K].

        Returns:
            The share, a tie being a half; None if all drafts came to the same end.
        """
        rows = zip(self.examples, log_probs, strict=True)
        mine = [(e, row, e.completions.of(RESPONSE)) for e, row in rows]
        own = np.array([row[index] for _, row, index in mine])
        reference = np.array([(e.completions.reference or row)[index] for e, row, index in mine])
        lengths = np.array([max(1, len(e.tree.continuations[index])) for e, _, index in mine])
        scores = own / lengths if np.array_equal(own, reference) else own - reference
        known = ~np.isnan(self.values) & np.isfinite(scores)
        good = self._good[known]
        n = int(good.sum())
        if n in (0, len(good)):
            return None
        ranks = rankdata(scores[known])
        return float((ranks[good].sum() - n * (n + 1) / 2) / (n * (len(good) - n)))

    @property
    def _good(self) -> NDArray[np.bool_]:
        """Which drafts came to a good end: those above the middle between the least and the greatest outcome.

        Of truth values that is a half, also where all are the same; other numbers that are all the same are
        good.
        """
        least, greatest = float(np.nanmin(self.values)), float(np.nanmax(self.values))
        binary = bool(np.isin(self.values[~np.isnan(self.values)], (0.0, 1.0)).all())
        if least == greatest and not binary:
            return ~np.isnan(self.values)
        return np.asarray(self.values > (0.5 if binary else (least + greatest) / 2))


def read_outcomes(name: str, records: Sequence[Record], examples: Sequence[Example]) -> Outcomes:
    """Return the outcomes of the examples that were made of records.

    Raises:
        EmptyViewError: No record has such an outcome, as a number or as true and false.
    """
    known: dict[tuple[str, str], float] = {}
    for record in records:
        value = record.metadata.get(name)
        if isinstance(value, (bool, int, float)):
            known[record.id, record.response] = float(value)
    values = np.array([known.get((e.id, e.response), np.nan) for e in examples], np.float64)
    if np.isnan(values).all():
        names = sorted({key for record in records for key in record.metadata})
        raise EmptyViewError(
            "no row has this outcome as a number or as true and false",
            seen=name,
            do=f"use one of {', '.join(names)}",
        )
    return Outcomes(name, values, examples)
