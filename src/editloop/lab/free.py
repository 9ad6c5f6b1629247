"""A domain's contexts and wishes for a real base: tasks in plain English, and rules over free text.

A base that was not made for the lab writes whatever it writes. A context is therefore a task as a person
would give it, and what is wanted is no style that a response is rendered from but a hidden set of rules, by
the kind of context, which a rule user applies to any text. The rules are in the domain's file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from editloop.edits.cost import PAPER_COST
from editloop.lab.templates import Templates, moved
from editloop.users.text_rules import Facts, Rule

if TYPE_CHECKING:
    from editloop.policy import Sample

__all__ = ["FreeTexts"]


@dataclass(frozen=True)
class FreeTexts(Templates):
    """Tasks made from templates, and the rules that users follow for each kind.

    Attributes:
        rules_by_kind: For each kind the rules by name, in the order in which they are applied. A name says
            what the rule wants, in words.
        max_new_tokens: The most tokens of a response. A draft that is longer is cut, and the user leaves out
            its unfinished sentence.
        chunk: The contexts that are answered at a time for a log.
    """

    rules_by_kind: Mapping[str, Mapping[str, Rule]] = field(default_factory=dict)
    max_new_tokens: int = 120

    chunk: ClassVar[int] = 16
    cost: ClassVar[str] = PAPER_COST

    def stated_facts(self, context: str) -> Facts:
        """Return what a context states, by name.

        Raises:
            ConfigError: The context is not of these texts.
        """
        return self.read(context).facts

    def rules(self, context: str) -> Mapping[str, Rule]:
        """Return the rules that hold for a context, by name.

        Raises:
            ConfigError: The context is not of these texts.
        """
        return self.rules_by_kind[self.kind(context)]

    def describe(self, context: str) -> str:
        """Return what is wanted for a context in words, for a user played by an LLM."""
        return ", ".join(self.rules(context))

    def is_well_formed(self, sample: Sample) -> bool:
        """Return whether the policy ended its response, and said something."""
        return sample.finished and bool(sample.text.strip())

    def outcomes(self, context: str, response: str) -> dict[str, Any]:
        """Return what is known of a response beside its edit: nothing."""
        return {}

    def shifted(self) -> FreeTexts:
        """Return texts where each kind has the rules of the kind after the next: for users who drift."""
        return replace(self, rules_by_kind=moved(self.rules_by_kind, 2))

    @cached_property
    def fingerprint(self) -> str:
        """A hash over the tasks and the names of the rules."""
        rules = {kind: list(rules) for kind, rules in self.rules_by_kind.items()}
        tables = (self.name, self.facts, self.sources, rules)
        return hashlib.sha256(json.dumps(tables).encode()).hexdigest()
