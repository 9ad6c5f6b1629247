"""The rows of a log that were edited or accepted, in the form in which the findings use them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from editloop.edits import Cost, Record
from editloop.estimates import Estimate, Floats, ratio
from editloop.intervals import share_interval

__all__ = ["AnsweredRows", "context_key"]

MANY_CONTEXTS = 50
"""The fewest contexts for which the interval of a share is the bootstrap's."""

MOST_PAIRS, MOST_ROWS = 20, 100
"""The most pairs of rows that are compared within one group, and the most rows from which they are drawn.

The number of pairs grows with the square of a group, and a single group must not decide a finding."""


@dataclass(frozen=True)
class AnsweredRows:
    """The rows that were edited or accepted.

    Attributes:
        records: The rows.
        texts: The texts as the users left them.
        clusters: The number of each row's context: rows of one context are not independent.
        cost: Δ.
        rng: Draws pairs, folds and resamples.
    """

    records: Sequence[Record]
    texts: Sequence[str]
    clusters: Any
    cost: Cost
    rng: np.random.Generator

    @classmethod
    def of(cls, records: Sequence[Record], cost: Cost, seed: int) -> AnsweredRows:
        """Return the rows with their contexts numbered."""
        texts = [each.response if each.edit is None else each.edit for each in records]
        clusters = np.unique([context_key(each.context) for each in records], return_inverse=True)[1]
        return cls(records, texts, clusters, cost, np.random.default_rng(seed))

    @property
    def responses(self) -> list[str]:
        """The texts before the edits."""
        return [each.response for each in self.records]

    def mean(self, values: Floats, rows: Any = slice(None)) -> Estimate | None:
        """Return the mean of values.

        Args:
            values: A value for each row, or for each of `rows`.
            rows: An index of the rows that the values belong to; by default all.

        Returns:
            None where few contexts are all alike (see `ratio`).
        """
        return ratio(values, np.ones_like(values), self.clusters[rows], self.rng)

    def share(self, values: Floats) -> Estimate:
        """Return the share of the rows whose value is 1; all others have the value 0."""
        contexts = len(np.unique(self.clusters))
        known = self.mean(values) if contexts >= MANY_CONTEXTS else None
        if known is not None and known.low < known.high:
            return known
        # With few contexts, or if all values are alike, the bootstrap's interval is too short or a point;
        # Wilson's is not.
        share = float(values.mean())
        low, high = share_interval(share, contexts) or (0.0, 1.0)
        return Estimate(share, low, high, contexts)

    def pairs(
        self, key: Callable[[Record], Hashable], fits: Callable[[Record, Record], bool]
    ) -> list[tuple[int, int]]:
        """Return pairs of rows that have a key in common and fit each other, at most `MOST_PAIRS` for a key.

        Rows without a user are left out: nobody knows whether two of them are one person.
        """
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for i, record in enumerate(self.records):
            if record.user is not None:
                groups[key(record)].append(i)
        found = []
        for rows in groups.values():
            several = [
                (i, j) for i, j in combinations(rows[:MOST_ROWS], 2) if fits(self.records[i], self.records[j])
            ]
            some = self.rng.permutation(len(several))[:MOST_PAIRS]
            found += [several[k] for k in some]
        return found


def context_key(context: Any) -> str:
    """Return a context as a text that is equal for equal contexts."""
    return context if isinstance(context, str) else repr(context)
