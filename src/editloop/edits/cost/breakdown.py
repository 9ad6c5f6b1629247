"""What the parts of an edit cost: the units replaced, deleted and inserted, by the cost's own alignment.

The parts add up to the cost. A cost that compares meanings, or counts a moved stretch as one edit, has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from editloop.edits.cost.base import Tokenize
from editloop.edits.cost.steps import INVERSE_WEIGHT, Step, Weights, alignment_steps
from editloop.edits.cost.units import UNITS, in_units, plural

__all__ = ["AlignedCost", "Alignment", "Breakdown", "UnitPrices", "count_steps"]

MOST_PAIRS = 400_000_000
"""The most pairs of units that are aligned for a reader: about 20,000 words on both sides, or characters."""


class Alignment(NamedTuple):
    """How many units of a draft and its edit are kept, replaced, deleted and inserted."""

    kept: int
    replaced: int
    deleted: int
    inserted: int

    @property
    def cost(self) -> float:
        """(S + D + w I) / (|y| + w I), in [0, 1]; 0 if both texts are empty."""
        taken = INVERSE_WEIGHT * (self.replaced + self.deleted) + self.inserted
        return taken / (INVERSE_WEIGHT * self.kept + taken) if taken else 0.0

    @property
    def in_response(self) -> int:
        """|y|, the units of the draft."""
        return self.kept + self.replaced + self.deleted

    @property
    def in_edit(self) -> int:
        """|y'|, the units of the edit."""
        return self.kept + self.replaced + self.inserted

    def in_words(self, unit: str = "word") -> str:
        """The counts in a line: `2 replaced, 1 deleted, 3 inserted of 40 words`, those of the draft."""
        called = UNITS[unit] if self.in_response == 1 else plural(unit)
        return (
            f"{self.replaced} replaced, {self.deleted} deleted, {self.inserted} inserted of "
            f"{self.in_response} {called}"
        )


class UnitPrices(NamedTuple):
    """What one unit costs that was replaced, deleted or inserted."""

    replaced: float
    deleted: float
    inserted: float


class Breakdown(NamedTuple):
    """A cost as the sum of its parts.

    Attributes:
        unit: What is counted, a name of `UNITS`.
        steps: The alignment, in reading order.
        counts: How many units it keeps, replaces, deletes and inserts.
        prices: What one unit of each kind costs.
    """

    unit: str
    steps: list[Step]
    counts: Alignment
    prices: UnitPrices

    @property
    def parts(self) -> dict[str, float]:
        """What the replaced, the deleted and the inserted units cost together."""
        return {kind: getattr(self.counts, kind) * each for kind, each in self.prices._asdict().items()}

    @property
    def cost(self) -> float:
        """The sum of the parts, which is the cost of the edit."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class AlignedCost:
    """Breaks the cost of an edit down. Called with a response and its edit, it returns their `Breakdown`.

    It returns None for texts that are too long to be aligned.

    Attributes:
        unit: What is aligned, a name of `UNITS`.
        prices: What one unit of each kind costs, given the counts.
        weights: By which texts are aligned, as of `alignment_steps`.
        tokenize: The policy's tokenizer; only the unit `token` needs it.
    """

    unit: str
    prices: Callable[[Alignment], UnitPrices]
    weights: Weights | None = None
    tokenize: Tokenize | None = None

    def __call__(self, response: str, edit: str) -> Breakdown | None:
        """Return the parts of the cost of an edit."""
        draft, text = in_units([response, edit], self.unit, self.tokenize)
        if len(draft) * len(text) > MOST_PAIRS:
            return None
        steps = alignment_steps(draft, text, self.weights)
        counts = count_steps(steps)
        return Breakdown(self.unit, steps, counts, self.prices(counts))


def count_steps(steps: Sequence[Step]) -> Alignment:
    """Return how many units an alignment keeps, replaces, deletes and inserts."""
    kept = sum(step.kept for step in steps)
    deleted = sum(step.edit is None for step in steps)
    inserted = sum(step.response is None for step in steps)
    return Alignment(kept, len(steps) - kept - deleted - inserted, deleted, inserted)
