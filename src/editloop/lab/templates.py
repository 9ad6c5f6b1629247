"""Contexts that are made from templates and read back: by kind of source text, with facts filled in."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import TypeVar

from editloop.errors import ConfigError

__all__ = ["Notes", "Templates", "moved"]

T = TypeVar("T")


@dataclass(frozen=True)
class Notes:
    """What a context says: its kind of source text, and its facts by name."""

    kind: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Templates:
    """Contexts made from templates, each of which is read back to exactly its kind and facts.

    Attributes:
        name: The name, on which the contexts of a seed depend.
        facts: For each fact, the words it can be.
        sources: For each kind of source text, the templates of its contexts; each names every fact.
    """

    name: str
    facts: Mapping[str, tuple[str, ...]]
    sources: Mapping[str, tuple[str, ...]]

    def contexts(self, seed: int, *, stream: str = "log") -> Iterator[str]:
        """Yield contexts without end, drawn uniformly over kinds, templates and facts.

        Args:
            seed: The same seed gives the same contexts.
            stream: What they are used for. The streams of one seed are independent, so the contexts of an
                evaluation are not those of the log.
        """
        # Seeded by the text of `repr`, because `hash` differs between processes.
        generator = random.Random(repr((self.name, stream, seed)))
        kinds = list(self.sources)
        while True:
            template = generator.choice(self.sources[generator.choice(kinds)])
            yield template.format_map({fact: generator.choice(words) for fact, words in self.facts.items()})

    def read(self, context: str) -> Notes:
        """Return the kind and the facts of a context.

        Raises:
            ConfigError: The context is not of this domain.
        """
        for kind, patterns in self._source_patterns.items():
            for pattern in patterns:
                if match := pattern.fullmatch(context):
                    return Notes(kind, match.groupdict())
        raise ConfigError(f"not a context of the {self.name} domain", seen=context)

    def kind(self, context: str) -> str:
        """Return the kind of a context's source text.

        Raises:
            ConfigError: The context is not of this domain.
        """
        return self.read(context).kind

    @property
    def n_contexts(self) -> int:
        """The number of distinct contexts."""
        n = sum(len(templates) for templates in self.sources.values())
        for words in self.facts.values():
            n *= len(words)
        return n

    @cached_property
    def _source_patterns(self) -> dict[str, list[re.Pattern[str]]]:
        return {
            kind: [self._pattern(template) for template in templates]
            for kind, templates in self.sources.items()
        }

    def _pattern(self, template: str) -> re.Pattern[str]:
        pattern = ""
        for text, fact, _, _ in Formatter().parse(template):
            pattern += re.escape(text)
            if fact is not None:
                pattern += f"(?P<{fact}>{'|'.join(map(re.escape, self.facts[fact]))})"
        return re.compile(pattern)


def moved(by_kind: Mapping[str, T], by: int) -> dict[str, T]:
    """For each kind, what belongs to the kind that many places later, in a cycle."""
    kinds = list(by_kind)
    return {kind: by_kind[kinds[(i + by) % len(kinds)]] for i, kind in enumerate(kinds)}
