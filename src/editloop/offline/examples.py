"""Turn records into training examples: each record's completions in one context tree, with their roles.

The views of the log decide which rows become examples. This module encodes each once and counts those that
were cut or left out. Which examples a method learns from is decided by the method
(`editloop.offline.methods`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from editloop.edits import Context, Record, preferences, supervision
from editloop.errors import EmptyViewError, ModelError
from editloop.policy import ContextTree, Encoder

__all__ = [
    "EDIT",
    "RESPONSE",
    "REVISION",
    "SAMPLED",
    "Completions",
    "Example",
    "ExampleSet",
    "check_window",
    "make_examples",
]

EDIT, RESPONSE, REVISION, SAMPLED = "edit", "response", "revision", "sampled"
"""The roles of a completion: the user's edit, the logged draft, an earlier revision of the edit, and a sample
from the reference."""


@dataclass(frozen=True, slots=True)
class Completions:
    """The K completions of one context that a loss compares, as continuations of one tree.

    They are distinct, or differ in their weights. A continuation may have several roles: a draft that was
    left unchanged is its own edit.

    Attributes:
        tree: The context and its K continuations.
        roles: For each role the indices of its continuations, in order; roles without any are absent.
        reference: log π_ref of each continuation [K], after the reference pass.
        cost: Estimated cost f̂ of each, in units of the train part's mean cost [K], once it is estimated.
        spread: Uncertainty u of each, in the same units [K].
        start: Log-probability of each by the policy at which training begins [K], where that is not the
            reference and a figure needs it.
    """

    tree: ContextTree
    roles: Mapping[str, tuple[int, ...]]
    reference: tuple[float, ...] | None = None
    cost: tuple[float, ...] | None = None
    spread: tuple[float, ...] | None = None
    start: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.tree.continuations)

    def of(self, role: str) -> int:
        """The index of the continuation that alone has a role.

        Raises:
            KeyError: No continuation has the role.
            ValueError: Several have it.
        """
        (index,) = self.roles[role]
        return index

    @property
    def is_pair(self) -> bool:
        """Whether there is an edit and a response, and they differ."""
        return EDIT in self.roles and RESPONSE in self.roles and self.of(EDIT) != self.of(RESPONSE)

    def only(self, *roles: str) -> Completions:
        """The completions with these roles, in the same order, with whatever is known of each."""
        kept = sorted({index for role in roles for index in self.roles.get(role, ())})
        # If nothing is left out, the object itself is returned, whose tree may have its layout cached.
        if len(kept) == len(self) and set(self.roles) <= set(roles):
            return self
        place = {old: new for new, old in enumerate(kept)}

        def of_kept(values: Sequence[Any] | None) -> Any:
            return None if values is None else tuple(values[index] for index in kept)

        return Completions(
            ContextTree(self.tree.context, of_kept(self.tree.continuations), of_kept(self.tree.weights)),
            {role: tuple(place[index] for index in self.roles[role]) for role in roles if role in self.roles},
            of_kept(self.reference),
            of_kept(self.cost),
            of_kept(self.spread),
            of_kept(self.start),
        )

    def with_reference(self, log_probs: Sequence[float]) -> Completions:
        """The same completions with log π_ref of each [K]."""
        return replace(self, reference=tuple(log_probs))


@dataclass(frozen=True, slots=True)
class Example:
    """One record as the methods see it.

    Attributes:
        id: The record's id.
        context: The context x as text or messages, to sample responses to it.
        edit: The edit y' as text, to compute the cost of samples.
        response: The response y as text, to compute its cost.
        completions: The edit and the response as tokens; with log π_ref after the reference pass.
        sampled: The edit, the response and completions sampled from the reference, with log π_ref and
            estimated costs; None unless a method needs a cost model (see `editloop.offline.cost_model`).
        revisions: The earlier revisions of the edit as tokens, the oldest first, without blank ones.
        policy: The policy that wrote the response, as the log names it; None if it names none.
        logprob: The log-probability of the response that was logged when it was served; None if none was.
        cost: What the edit of the response cost, in units of the train part's mean cost; None unless a method
            needs it.
    """

    id: str
    context: Context
    edit: str
    response: str
    completions: Completions
    sampled: Completions | None = None
    revisions: tuple[tuple[int, ...], ...] = ()
    policy: str | None = None
    logprob: float | None = None
    cost: float | None = None

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
    """The examples of a part of the log, and what was counted while they were made.

    Attributes:
        examples: The examples, in the order of the records.
        counts: Numbers of rows by what happened to them: cut, left out, unedited.
    """

    examples: tuple[Example, ...]
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def pairs(self) -> tuple[Example, ...]:
        """The examples that are preferences."""
        return tuple(e for e in self.examples if e.is_pair)


def make_examples(records: Sequence[Record], encoder: Encoder) -> ExampleSet:
    """Encode the supervision view and the preference view of records, with each context once.

    A pair whose two sides differ only after the cut is kept for supervision alone, and counted.

    Args:
        records: The records of one part of the log.
        encoder: The base's encoder.
    """
    # The supervision view has a row for each observed record, in order. Records are matched with rows by this
    # order and not by id, because two records may have the same id.
    demonstrations = supervision(records)
    observed = [record for record in records if record.is_observed]
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
        own = Completions(tree, roles)
        examples.append(
            Example(
                row.id,
                row.context,
                row.edit,
                record.response,
                own,
                revisions=_revisions(record, tree, encoder),
                policy=record.policy,
                logprob=record.logprob,
            )
        )
    return ExampleSet(tuple(examples), +counts)  # the plus drops reasons with a count of 0


def _revisions(record: Record, tree: ContextTree, encoder: Encoder) -> tuple[tuple[int, ...], ...]:
    """The earlier revisions of a record's edit as tokens, cut as its tree is."""
    # A blank one is what is saved of a user who empties the field to write anew. It is nobody's wish.
    room = encoder.max_length - len(tree.context)
    return tuple(encoder.continuation(text)[:room] for text in record.revisions if text.strip())


def check_window(records: Sequence[Record], found: ExampleSet, encoder: Encoder) -> None:
    """Refuse records of which no edit fits into the window: a policy would learn no end of any text.

    Args:
        records: The records.
        found: What `make_examples` made of them.
        encoder: The base's encoder.

    Raises:
        EmptyViewError: Every edit is cut, or its context leaves no room for it.
    """
    observed = supervision(records).rows
    ends = [e.completions.tree.continuations[e.completions.of(EDIT)][-1] for e in found.examples]
    if not observed or encoder.end in ends:
        return
    lengths = []
    for row in observed:
        with suppress(ModelError):  # a context that the chat template refuses has no length
            lengths.append(len(encoder.prompt(row.context)) + len(encoder.continuation(row.edit)))
    if lengths and min(lengths) > encoder.max_length:
        raise EmptyViewError(
            f"no edit fits, with its context, into the window of {encoder.max_length} tokens",
            seen=f"{len(lengths)} rows of {min(lengths)} to {max(lengths)} tokens",
            do="raise --max-length, or choose a --base with a longer window",
        )
