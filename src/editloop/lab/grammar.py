"""Domains: small worlds of contexts and responses, each given by tables of templates.

A domain's tables say how contexts read (by the kind of source text), how responses read (by style
attribute), and which style users want for which kind. Everything else follows: contexts are drawn by seed,
and a response is rendered from a `Draft` and parsed back to exactly the same draft.

This module knows no particular domain, no user and no model.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from editloop.edits.cost import PAPER_COST
from editloop.lab.free import FreeTexts
from editloop.lab.templates import Notes, Templates, moved
from editloop.users import Draft

if TYPE_CHECKING:
    from editloop.policy import Sample

__all__ = ["MAX_NEW_TOKENS", "PIECE", "Domain", "Source"]

MAX_NEW_TOKENS = 64
"""The most tokens of a response: half as many again as the longest one of a domain has. Anything longer is
garbled."""

PIECE = r" ?\w+| ?[^\w\s]|\n"
"""A token of a domain's text: a word or a mark with the space before it, or a line break.

The pieces of a text, joined, are the text again, so decoding needs no rule about spaces.
"""


TABLES = ("name", "facts", "sources", "attributes", "neutral", "styles")
"""The fields of a domain on which its texts, and so its base model, depend."""


class Source(NamedTuple):
    """Where the real texts of a kind come from, and the style that users want for them.

    Attributes:
        dataset: A dataset on the Hugging Face hub, or a folder.
        fields: The columns whose texts are joined to one.
        style: The hidden style, in words.
        config: The dataset's configuration.
        split: The dataset's split that is read.
    """

    dataset: str
    fields: tuple[str, ...]
    style: str
    config: str | None = None
    split: str = "train"


@dataclass(frozen=True)
class Domain(Templates):
    """A small world, given by its tables.

    Templates name facts in braces. Attributes are listed in the order in which a response has them, and a
    response is their templates, filled and joined. So that a response can be parsed in one way only, no two
    values of an attribute may read alike, and a fact may be named by one attribute only. One value of an
    attribute may be the empty text.

    Attributes:
        name: The domain's name, as in the base `lab:NAME`.
        attributes: For each style attribute, the template of each of its values.
        neutral: The style that the base model mostly writes: a value for each attribute.
        styles: For each kind, the hidden style that users want: a value for each attribute.
        base: The folder of its base model, if it comes with one.
        pretraining: How its base model is made, where that differs from the defaults of `Recipe`.
        tuned: For each method, the hyperparameters that policies are trained with.
        task: What a context from a real text says; `{text}` is the text.
        hub: For each kind, where real texts come from; nothing if the domain has none.
        plural: What its responses are called in tables; by default its name.
        cost: The name of the cost of an edit.
        free: Its contexts and wishes for a real base and users who edit free text; None if it has none.
        piece: The pattern of a token of its texts.
        max_new_tokens: The most tokens of a response.
        chunk: The contexts that are answered at a time for a log.
    """

    attributes: Mapping[str, Mapping[str, str]]
    neutral: Mapping[str, str]
    styles: Mapping[str, Mapping[str, str]]
    base: Path | None = None
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    task: str = "{text}"
    hub: Mapping[str, Source] = field(default_factory=dict)
    plural: str = ""
    free: FreeTexts | None = None
    cost: str = PAPER_COST

    piece: ClassVar[str] = PIECE
    max_new_tokens: ClassVar[int] = MAX_NEW_TOKENS
    chunk: ClassVar[int] = 250

    def wanted(self, context: str) -> Draft:
        """Return the draft that a user wants: the hidden style of the context's kind, and its facts.

        Raises:
            ConfigError: The context is not of this domain.
        """
        notes = self.read(context)
        return {**self.styles[notes.kind], **notes.facts}

    def describe(self, context: str) -> str:
        """Return the style that a user wants for this context in words, for a user played by an LLM."""
        style = self.styles[self.read(context).kind]
        return ", ".join(f"{attribute} {value}" for attribute, value in style.items())

    def is_well_formed(self, sample: Sample) -> bool:
        """Return whether a response can be parsed."""
        return self.parse(sample.text) is not None

    def outcomes(self, context: str, response: str) -> dict[str, Any]:
        """Return what is known of a response beside its edit: nothing."""
        return {}

    def spoiled(self, context: str, draft: Draft, generator: random.Random) -> Draft:
        """Return a draft with one attribute worse than it was; if all are wrong, the draft itself.

        An attribute that was right has any of its other values.
        """
        wanted = self.wanted(context)
        right = [name for name in self.attributes if draft[name] == wanted[name]]
        if not right:
            return draft
        name = generator.choice(right)
        others = [value for value in self.attributes[name] if value != wanted[name]]
        return {**draft, name: generator.choice(others)}

    def shifted(self) -> Domain:
        """Return a domain where each kind has the style of the kind after the next: for users who drift.

        The style of the next kind would be no drift away from the base model, which uses it (see `redraw`).
        """
        return replace(self, styles=moved(self.styles, 2))

    def redraw(
        self, notes: Notes, diversity: float, generator: random.Random, *, awareness: float = 0.0
    ) -> Draft:
        """Return a draft as the base model writes it.

        Each attribute has the neutral value, or with probability `diversity` any of its values, or with
        probability `awareness` the value of the *next* kind's style. So the base distinguishes the kinds of
        contexts, as any real one does, but does not know what is wanted for them.
        """
        habits, style = moved(self.styles, 1)[notes.kind], {}
        for attribute, values in self.attributes.items():
            drawn = generator.random()
            if drawn < diversity:
                style[attribute] = generator.choice(list(values))
            else:
                style[attribute] = (habits if drawn < diversity + awareness else self.neutral)[attribute]
        return {**style, **notes.facts}

    def render(self, draft: Draft) -> str:
        """Return the response of these parts: a value for each attribute, and a word for each fact."""
        return "".join(
            values[draft[attribute]].format_map(draft) for attribute, values in self.attributes.items()
        )

    def parse(self, response: str) -> Draft | None:
        """Return the parts from which `render` makes exactly this response; None if it cannot be parsed."""
        draft: dict[str, str] = {}
        position = 0
        # The first value that fits is the right one, because no two values of an attribute may read alike.
        for attribute, patterns in self._attribute_patterns.items():
            for value, pattern in patterns.items():
                if match := pattern.match(response, position):
                    draft |= {attribute: value, **match.groupdict()}
                    position = match.end()
                    break
            else:
                return None
        return draft if position == len(response) else None

    @cached_property
    def pieces(self) -> list[str]:
        """Every token of the domain's texts, sorted."""
        templates = [template for templates in self.sources.values() for template in templates]
        templates += [template for values in self.attributes.values() for template in values.values()]
        pieces: set[str] = set()
        # A piece is one word or mark, so it comes from one fact at most: each fact's words are tried with the
        # first words of the other facts, not with all their combinations.
        for template in templates:
            for fact in _fields(template) or ["none"]:
                for word in self.facts.get(fact, ("",)):
                    filled = template.format_map(
                        {name: words[0] for name, words in self.facts.items()} | {fact: word}
                    )
                    pieces.update(re.findall(PIECE, filled))
        return sorted(pieces)

    @cached_property
    def fingerprint(self) -> str:
        """A hash over the tables, which shows whether a base model was trained on the same ones."""
        # Not sorted: the order of attributes and values is part of what the texts are.
        tables = {name: value for name, value in asdict(self).items() if name in TABLES}
        return hashlib.sha256(json.dumps(tables).encode()).hexdigest()

    @cached_property
    def _attribute_patterns(self) -> dict[str, dict[str, re.Pattern[str]]]:
        # The empty value matches anywhere, so it is tried last.
        return {
            attribute: {
                value: self._pattern(template)
                for value, template in sorted(values.items(), key=lambda item: item[1] == "")
            }
            for attribute, values in self.attributes.items()
        }


def _fields(template: str) -> list[str]:
    return [fact for _, fact, _, _ in Formatter().parse(template) if fact is not None]
