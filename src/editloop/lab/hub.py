"""A domain's contexts from real texts of the hub, for real base models and users who are played by an LLM.

A text's kind is the source that it comes from, and each kind has its hidden style, in words. The domain names
the sources. Style users cannot read real texts; only a user played by an LLM can.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from editloop.edits import Record, context_text
from editloop.edits.cost import PAPER_COST
from editloop.errors import ConfigError
from editloop.extras import requires
from editloop.lab.domains import get_domain
from editloop.lab.grammar import Source

if TYPE_CHECKING:
    from editloop.policy import Sample

__all__ = ["HubTexts"]

STREAMS = ("log", "evaluation", "online")
"""What texts are used for. A text belongs to one stream only; eight of ten texts are for the log."""

SHORTEST, LONGEST = 20, 400
"""Words of a text: shorter ones are skipped, and longer ones are cut."""

SHUFFLED = 1000
"""The size of the buffer from which the next text is drawn."""


class HubTexts:
    """Contexts of a domain that are made from real texts.

    Args:
        name: The name of a domain.
        sources: Sources by kind that replace those of the domain.

    Raises:
        ConfigError: There is no such domain, or it names no texts on the hub.
    """

    max_new_tokens: ClassVar[int] = 512
    chunk: ClassVar[int] = 16
    cost: ClassVar[str] = PAPER_COST

    def __init__(self, name: str, sources: Mapping[str, Source] | None = None) -> None:
        domain = get_domain(name)
        if not domain.hub:
            raise ConfigError("this domain names no texts on the hub", seen=name, do="use its own texts")
        self.name, self.task = name, domain.task
        self.sources = dict(sources or domain.hub)
        self._kinds: dict[str, str] = {}

    def contexts(self, seed: int, *, stream: str = "log") -> Iterator[str]:
        """Yield contexts, drawn uniformly over kinds, until a source ends.

        Args:
            seed: The same seed gives the same contexts while the datasets do not change.
            stream: What they are used for, one of `STREAMS`; no text is in two of them.

        Raises:
            ConfigError: The texts cannot be downloaded.
        """
        generator = random.Random(repr((self.name, stream, seed)))
        texts = {kind: self._texts(source, seed, stream) for kind, source in self.sources.items()}
        while True:
            kind = generator.choice(list(texts))
            text = next(texts[kind], None)
            if text is None:
                return
            context = self.task.format(text=text)
            self._kinds[context] = kind
            yield context

    def remember(self, records: Iterable[Record]) -> None:
        """Take the kinds of a log's contexts from its metadata, where `stream_log` puts them."""
        for record in records:
            if record.metadata.get("kind") in self.sources:
                self._kinds[context_text(record.context)] = str(record.metadata["kind"])

    def kind(self, context: str) -> str:
        """Return the kind of a context that came from `contexts` or is known by `remember`.

        Raises:
            ConfigError: The context is not known.
        """
        if context not in self._kinds:
            raise ConfigError(f"not a context of the {self.name} texts", seen=context, do="give the style")
        return self._kinds[context]

    def describe(self, context: str) -> str:
        """Return the style that a user wants for this context, in words."""
        return self.sources[self.kind(context)].style

    def is_well_formed(self, sample: Sample) -> bool:
        """Return whether the policy ended its response, and said something."""
        return sample.finished and bool(sample.text.strip())

    def outcomes(self, context: str, response: str) -> dict[str, Any]:
        """Return what is known of a response beside its edit: nothing."""
        return {}

    def _texts(self, source: Source, seed: int, stream: str) -> Iterator[str]:
        requires("datasets")
        try:
            for row in _load(source).shuffle(seed=seed, buffer_size=SHUFFLED):
                text = " ".join(_words(row, source.fields)[:LONGEST])
                if text.count(" ") + 1 >= SHORTEST and _stream(text) == stream:
                    yield text
        # A hub that is down, or a dataset that was moved, raises exceptions of several libraries.
        except Exception as error:
            raise ConfigError(
                f"the texts of {source.dataset} cannot be read, {type(error).__name__}: {error}",
                do="check the connection to the hub; the lab's own texts need none",
            ) from error


def _load(source: Source) -> Any:
    """The dataset as a stream. If only a script can read it, the hub's conversion to Parquet is taken."""
    import datasets

    try:
        return datasets.load_dataset(source.dataset, source.config, split=source.split, streaming=True)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        return datasets.load_dataset(
            source.dataset, source.config, split=source.split, streaming=True, revision="refs/convert/parquet"
        )


def _words(row: Mapping[str, Any], fields: tuple[str, ...]) -> list[str]:
    """The words of a row's columns, joined; a column may be a text, a list of texts, or empty."""
    parts = [row[field] for field in fields]
    return " ".join(" ".join(part) if isinstance(part, list) else part or "" for part in parts).split()


def _stream(text: str) -> str:
    """The stream that a text belongs to, by its hash: the same in every process, whatever the seed."""
    drawn = hashlib.sha256(text.encode()).digest()[0] % 10
    return STREAMS[max(drawn - 7, 0)]
