"""Domains: small worlds of contexts and responses, each written down as tables of templates.

A domain says how contexts read (by kind of source text), how responses read (by style attribute), and
which style is wanted for which kind. Everything else follows from the tables: contexts are drawn by seed,
a response is rendered from a `Draft` and parsed back to the same draft, exactly.

This module knows no particular domain, no user and no model.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from string import Formatter
from typing import Any

from editloop.errors import ConfigError
from editloop.users import Draft

__all__ = ["PIECE", "Domain", "Notes"]

PIECE = r" ?\w+| ?[^\w\s]|\n"
"""A token of a domain's text: a word or a mark with the space before it, or a line break.

Joined, the pieces of a text are the text: no rule about spaces is needed to decode.
"""


@dataclass(frozen=True)
class Notes:
    """What a context says: its kind of source text, and its facts by name."""

    kind: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Domain:
    """A small world, given by its tables.

    Templates name facts in braces. Attributes are listed in the order in which a response has them, and a
    response is their templates, filled and joined. No two values of an attribute may read alike; one value
    of an attribute may be the empty text.

    Attributes:
        name: The domain's name, as in the base `lab:NAME`.
        facts: For each fact, the words it can be.
        sources: For each kind of source text, the templates of its contexts; each names every fact.
        attributes: For each style attribute, the template of each of its values.
        neutral: The style that the base model mostly writes: a value for each attribute.
        styles: For each kind, the hidden style that users want: a value for each attribute.
        hyperparameters: For each method, what its policies of this domain are trained with (chosen by
            `make bench NAME=tune`, see docs/lab.md). They are no part of the world, nor of its fingerprint.
    """

    name: str
    facts: Mapping[str, tuple[str, ...]]
    sources: Mapping[str, tuple[str, ...]]
    attributes: Mapping[str, Mapping[str, str]]
    neutral: Mapping[str, str]
    styles: Mapping[str, Mapping[str, str]]
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)

    def contexts(self, seed: int, *, stream: str = "log") -> Iterator[str]:
        """Endless contexts, drawn uniformly over kinds, templates and facts.

        Args:
            seed: The same seed gives the same contexts.
            stream: What they are for. Streams of one seed are independent, so contexts for an evaluation
                are not those of the log.
        """
        generator = random.Random(repr((self.name, stream, seed)))
        kinds = list(self.sources)
        while True:
            template = generator.choice(self.sources[generator.choice(kinds)])
            yield template.format_map({fact: generator.choice(words) for fact, words in self.facts.items()})

    def read(self, context: str) -> Notes:
        """The kind and the facts of a context.

        Raises:
            ConfigError: The context is not of this domain.
        """
        for kind, patterns in self._source_patterns.items():
            for pattern in patterns:
                if match := pattern.fullmatch(context):
                    return Notes(kind, match.groupdict())
        raise ConfigError(f"not a context of the {self.name} domain", seen=context)

    def kind(self, context: str) -> str:
        """The kind of a context's source text.

        Raises:
            ConfigError: The context is not of this domain.
        """
        return self.read(context).kind

    def wanted(self, context: str) -> Draft:
        """The draft that a user wants: the style hidden behind the context's kind, and the context's facts.

        Raises:
            ConfigError: The context is not of this domain.
        """
        notes = self.read(context)
        return {**self.styles[notes.kind], **notes.facts}

    def describe(self, context: str) -> str:
        """The style that a user wants for this context, in words, for a user who is played by an LLM."""
        style = self.styles[self.read(context).kind]
        return ", ".join(f"{attribute} {value}" for attribute, value in style.items())

    def shifted(self) -> Domain:
        """The same domain, but each kind wants the style of the kind after the next: for users who drift.

        Not of the next kind, whose style the base model knows of (see `redraw`).
        """
        return replace(self, styles=self._moved(2))

    def _moved(self, by: int) -> dict[str, Mapping[str, str]]:
        """For each kind the style of the kind that comes so many later."""
        kinds = list(self.styles)
        return {kind: self.styles[kinds[(i + by) % len(kinds)]] for i, kind in enumerate(kinds)}

    def redraw(
        self, notes: Notes, diversity: float, generator: random.Random, *, awareness: float = 0.0
    ) -> Draft:
        """A draft as the base model writes it.

        Each attribute has the neutral value, or with probability `diversity` any of its values, or with
        probability `awareness` the value that the *next* kind's style has: so the base tells the kinds of
        contexts apart, as any real one does, and what it knows of them is not what is wanted.
        """
        habits, style = self._moved(1)[notes.kind], {}
        for attribute, values in self.attributes.items():
            drawn = generator.random()
            if drawn < diversity:
                style[attribute] = generator.choice(list(values))
            else:
                style[attribute] = (habits if drawn < diversity + awareness else self.neutral)[attribute]
        return {**style, **notes.facts}

    def render(self, draft: Draft) -> str:
        """The response that is made of these parts: a value for each attribute, a word for each fact."""
        return "".join(
            values[draft[attribute]].format_map(draft) for attribute, values in self.attributes.items()
        )

    def parse(self, response: str) -> Draft | None:
        """The parts of a response, such that `render` gives the response again; None if it is garbled."""
        draft: dict[str, str] = {}
        position = 0
        for attribute, patterns in self._attribute_patterns.items():
            for value, pattern in patterns.items():
                if match := pattern.match(response, position):
                    draft |= {attribute: value, **match.groupdict()}
                    position = match.end()
                    break
            else:
                return None
        return draft if position == len(response) else None

    @property
    def n_contexts(self) -> int:
        """How many distinct contexts there are."""
        n = sum(len(templates) for templates in self.sources.values())
        for words in self.facts.values():
            n *= len(words)
        return n

    @cached_property
    def pieces(self) -> list[str]:
        """Every token of the domain's texts, sorted."""
        templates = [template for templates in self.sources.values() for template in templates]
        templates += [template for values in self.attributes.values() for template in values.values()]
        pieces: set[str] = set()
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
        """A hash over the tables, by which a base model that was trained on other tables is recognised."""
        tables = {name: value for name, value in asdict(self).items() if name != "hyperparameters"}
        return hashlib.sha256(json.dumps(tables).encode()).hexdigest()

    @cached_property
    def _source_patterns(self) -> dict[str, list[re.Pattern[str]]]:
        return {
            kind: [self._pattern(template) for template in templates]
            for kind, templates in self.sources.items()
        }

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

    def _pattern(self, template: str) -> re.Pattern[str]:
        pattern = ""
        for text, fact, _, _ in Formatter().parse(template):
            pattern += re.escape(text)
            if fact is not None:
                pattern += f"(?P<{fact}>{'|'.join(map(re.escape, self.facts[fact]))})"
        return re.compile(pattern)


def _fields(template: str) -> list[str]:
    return [fact for _, fact, _, _ in Formatter().parse(template) if fact is not None]
