"""From records to training examples: each record's completions in one context tree, by their roles.

The views decide which rows become examples; this module encodes them once and says how many were cut or left
out on the way. What a method learns from an example is the method's to say (`editloop.offline.methods`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from editloop.edits import Context, Record, preferences, supervision
from editloop.policy import ContextTree, Encoder

__all__ = ["EDIT", "RESPONSE", "SAMPLED", "Completions", "Example", "ExampleSet", "make_examples"]

EDIT, RESPONSE, SAMPLED = "edit", "response", "sampled"
"""Roles: what the user made of the draft, the logged draft, and what was sampled from the reference."""


@dataclass(frozen=True, slots=True)
class Completions:
    """The completions of one context that are looked at together: K distinct continuations of a tree.

    A continuation may have several roles: where a draft was left as it was, it is the edit, too.

    Attributes:
        tree: The context and its K continuations.
        roles: For each role which continuations have it, in order; a role that none has is not there.
        reference: log π_ref of each [K], once the reference has been asked.
        cost: f̂ of each, in units of the train part's mean cost [K], once costs have been estimated.
        spread: u of each, in the same units [K].
    """

    tree: ContextTree
    roles: Mapping[str, tuple[int, ...]]
    reference: tuple[float, ...] | None = None
    cost: tuple[float, ...] | None = None
    spread: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.tree.continuations)

    def of(self, role: str) -> int:
        """Which continuation has a role that one has alone.

        Raises:
            KeyError: None has it.
        """
        (index,) = self.roles[role]
        return index

    @property
    def is_pair(self) -> bool:
        """Whether there are an edit and a response that differ."""
        return EDIT in self.roles and RESPONSE in self.roles and self.of(EDIT) != self.of(RESPONSE)

    def only(self, *roles: str) -> Completions:
        """The completions of these roles alone, in the same order, with what is known of each."""
        kept = sorted({index for role in roles for index in self.roles.get(role, ())})
        if len(kept) == len(self) and set(self.roles) <= set(roles):
            return self
        place = {old: new for new, old in enumerate(kept)}

        def of_kept(values: Sequence[Any] | None) -> Any:
            return None if values is None else tuple(values[index] for index in kept)

        return Completions(
            ContextTree(self.tree.context, of_kept(self.tree.continuations)),
            {role: tuple(place[index] for index in self.roles[role]) for role in roles if role in self.roles},
            of_kept(self.reference),
            of_kept(self.cost),
            of_kept(self.spread),
        )

    def with_reference(self, log_probs: Sequence[float]) -> Completions:
        """The same with log π_ref of each continuation [K]."""
        return replace(self, reference=tuple(log_probs))


@dataclass(frozen=True, slots=True)
class Example:
    """One record as the methods see it.

    Attributes:
        id: The record's.
        context: The context, for sampling.
        edit: The edit y', for the cost of samples.
        response: The response y, for its cost.
        completions: The edit and the response; their log π_ref, once the reference pass has run.
        sampled: These and what was sampled from the reference, with log π_ref and estimated costs, once the
            cost model has been asked (see `editloop.offline.cost_model`).
    """

    id: str
    context: Context
    edit: str
    response: str
    completions: Completions
    sampled: Completions | None = None

    @property
    def tree(self) -> ContextTree:
        """The context tree of the edit and the response."""
        return self.completions.tree

    @property
    def is_pair(self) -> bool:
        """Whether the example is a preference: the response differs from the edit."""
        return self.completions.is_pair


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
        roles = {EDIT: (0,), RESPONSE: (len(tree.continuations) - 1,)}
        examples.append(Example(row.id, row.context, row.edit, record.response, Completions(tree, roles)))
    return ExampleSet(tuple(examples), +counts)
