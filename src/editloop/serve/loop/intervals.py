"""Intervals for the mean cost of each arm that hold however often the dashboard is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from editloop.online.sequences import ConfidenceSequence

__all__ = ["CostIntervals"]


class CostIntervals:
    """A confidence sequence for each arm, over all of its costs since it was first played.

    The first cost of a response counts, for a sequence cannot take a cost back: later revisions of an edit
    do not change it. Costs count for at most the bound, as they do for the bandit.

    Args:
        bound: The most that a cost counts for. Without a finite one there are no intervals.
    """

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self._sequences: dict[str, ConfidenceSequence] = {}

    def add(self, arm: str, cost: float) -> None:
        """Count a cost."""
        if not math.isfinite(self.bound):
            return
        if arm not in self._sequences:
            self._sequences[arm] = ConfidenceSequence(bound=self.bound)
        self._sequences[arm].add(cost)

    def of(self, arm: str) -> dict[str, Any]:
        """What is known of an arm: the number of costs, their mean, and the 95% interval, as JSON types."""
        found = self._sequences.get(arm)
        if found is None:
            return {"n": 0, "mean": None, "interval": None}
        return {"n": found.n, "mean": found.mean, "interval": list(found.interval)}

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON types, from which `from_json` restores it exactly."""
        return {arm: sequence.to_json() for arm, sequence in self._sequences.items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], bound: float) -> CostIntervals:
        """What `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is damaged.
        """
        made = cls(bound)
        made._sequences = {arm: ConfidenceSequence.from_json(each) for arm, each in row.items()}
        return made
