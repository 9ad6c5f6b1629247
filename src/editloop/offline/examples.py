"""From records to training examples: each record's context tree with the roles of its continuations.

The views decide which rows a method learns from; this module encodes them once and says how many were
cut or left out on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from editloop.edits import Context, Record, preferences, supervision
from editloop.policy import ContextTree, Encoder

__all__ = ["Alternatives", "Example", "ExampleSet", "make_examples"]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """What RL chooses among in one context (see `editloop.offline.alternatives`).

    Attributes:
        tree: K continuations: 0 is the edit, 1 the response where it differs, then what was drawn.
        reference: log π_ref of each [K].
        cost: f̂ of each, in units of the train part's mean cost [K].
        spread: u of each, likewise [K].
    """

    tree: ContextTree
    reference: tuple[float, ...]
    cost: tuple[float, ...]
    spread: tuple[float, ...]

    def bound(self, kappa: float) -> list[float]:
        """f̄ = f̂ + κ u of each [K]."""
        return [mean + kappa * deviation for mean, deviation in zip(self.cost, self.spread, strict=True)]


@dataclass(frozen=True, slots=True)
class Example:
    """One record as a method sees it.

    Attributes:
        id: The record's.
        context: The context, for sampling.
        edit: The edit y', for the cost of samples.
        response: The response y, for its cost.
        tree: The context tree; continuation 0 is the edit y', 1 the response y where it is a pair.
        reference: log π_ref of the edit and, in a pair, of the response, once the reference pass has run.
        alternatives: What RL chooses among, once the cost model has priced it.
    """

    id: str
    context: Context
    edit: str
    response: str
    tree: ContextTree
    reference: tuple[float, float | None] | None = None
    alternatives: Alternatives | None = None

    @property
    def is_pair(self) -> bool:
        """Whether the example is a preference: the response differs from the edit."""
        return len(self.tree.continuations) == 2

    @property
    def response_tree(self) -> ContextTree:
        """The response alone: continuation 1, or the edit itself where it was left as it is."""
        return ContextTree(self.tree.context, self.tree.continuations[-1:])

    def edit_only(self) -> Example:
        """The example as supervision alone."""
        if not self.is_pair:
            return self
        return replace(self, tree=ContextTree(self.tree.context, self.tree.continuations[:1]))


@dataclass(frozen=True)
class ExampleSet:
    """Examples of a part of the log and what was counted while they were made.

    Attributes:
        examples: In the order of the records.
        counts: Rows by what happened to them: cut, left out, unedited.
    """

    examples: tuple[Example, ...]
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def pairs(self) -> tuple[Example, ...]:
        """The examples that are preferences."""
        return tuple(e for e in self.examples if e.is_pair)


def make_examples(records: Sequence[Record], encoder: Encoder) -> ExampleSet:
    """Encode the supervision and the preference view of records, each context once.

    A pair whose two sides differ only after the cut becomes supervision alone and is counted.
    """
    demonstrations = supervision(records)
    observed = [record for record in records if record.is_observed]  # the demonstrations' records, in order
    counts = Counter(demonstrations.dropped)
    counts["unedited: no preference"] = preferences(records).dropped["unedited"]
    examples = []
    for record, row in zip(observed, demonstrations.rows, strict=True):
        sides = [row.edit] + ([record.response] if record.response != row.edit else [])
        tree = encoder.tree(row.context, sides, counts)
        if tree is None:
            continue
        if len(sides) == 2 and tree.continuations[0] == tree.continuations[1]:
            same_tokens = encoder.continuation(sides[0]) == encoder.continuation(sides[1])
            counts["pair differs in no token" if same_tokens else "pair differs only after the cut"] += 1
            tree = ContextTree(tree.context, tree.continuations[:1])
        examples.append(Example(row.id, row.context, row.edit, record.response, tree))
    return ExampleSet(tuple(examples), +counts)
