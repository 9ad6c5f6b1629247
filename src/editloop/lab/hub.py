"""A domain's contexts from real texts of the hub, for real base models and users who are played by an LLM.

The sources are those of the paper's domains (Gao et al. 2024). A text's kind is the source that it comes
from, and each kind has its hidden style, in words. Style users cannot read real texts: only an LLM can.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from editloop.edits import Record, context_text
from editloop.errors import ConfigError
from editloop.extras import requires

__all__ = ["HubTexts", "Source"]

STREAMS = ("log", "evaluation", "online")
"""What texts are for. A text belongs to one stream alone: the log gets eight of ten."""

SHORTEST, LONGEST = 20, 400
"""Words of a text; a shorter one is passed over, of a longer one the beginning is taken."""

SHUFFLED = 1000
"""Texts that are held to draw from."""


class Source(NamedTuple):
    """Where the texts of a kind come from, and the style that users want for them.

    Attributes:
        dataset: A dataset of the hub, or a folder.
        fields: The columns that make a text.
        style: The hidden style.
        config: The dataset's configuration.
        split: The part that is read.
    """

    dataset: str
    fields: tuple[str, ...]
    style: str
    config: str | None = None
    split: str = "train"


HUB: Mapping[str, Mapping[str, Source]] = {
    "email": {
        "paper": Source(
            "orieg/elsevier-oa-cc-by",
            ("title", "abstract", "author_highlights"),
            "structured, to the point, respectful, professional greeting and closing",
        ),
        "problem": Source("JeremyAlain/SLF5K", ("post",), "informal, conversational, no closing"),
        "review": Source("launch/ampere", ("text",), "casual, positive, clear, with a call to action"),
        "post": Source(
            "nitsanb/paper_tweet", ("text",), "engaging, personalised, professional, with a thankful closing"
        ),
    },
    "summary": {
        "news": Source(
            "abisee/cnn_dailymail",
            ("article",),
            "for young children, storytelling, playful, in short sentences",
            config="3.0.0",
        ),
        "forum": Source(
            "JeremyAlain/SLF5K", ("post",), "second person, brief, emotional, with a personal reflection"
        ),
        "entry": Source(
            "wikimedia/wikipedia",
            ("text",),
            "bullet points, parallel structure, brief",
            config="20231101.simple",
        ),
        "abstract": Source(
            "CShorten/ML-ArXiv-Papers",
            ("abstract",),
            "like a tweet, simple, inquisitive, with foreshadowing and emojis",
        ),
        "movie": Source("stanfordnlp/imdb", ("text",), "questions and answers"),
    },
}
TASKS = {
    "email": "Notes: {text}\n\nWrite a short email from these notes.",
    "summary": "Article: {text}\n\nSummarise this article.",
}


class HubTexts:
    """Contexts of a domain, from real texts.

    Args:
        name: The domain, one of `HUB`.
        sources: Other sources than those of `HUB`, by kind.

    Raises:
        ConfigError: There is no such domain.
    """

    def __init__(self, name: str, sources: Mapping[str, Source] | None = None) -> None:
        if name not in HUB:
            raise ConfigError("no texts on the hub for this domain", seen=name, do=f"use {', '.join(HUB)}")
        self.name = name
        self.sources = dict(sources or HUB[name])
        self._kinds: dict[str, str] = {}

    def contexts(self, seed: int, *, stream: str = "log") -> Iterator[str]:
        """Contexts, drawn uniformly over kinds; they end when a source does.

        Args:
            seed: The same seed gives the same contexts, as long as the datasets stay as they are.
            stream: What they are for, one of `STREAMS`; no text is in two of them.

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
            context = TASKS[self.name].format(text=text)
            self._kinds[context] = kind
            yield context

    def remember(self, records: Iterable[Record]) -> None:
        """Learn the kinds of a log's contexts, as `stream_log` notes them."""
        for record in records:
            if record.metadata.get("kind") in self.sources:
                self._kinds[context_text(record.context)] = str(record.metadata["kind"])

    def kind(self, context: str) -> str:
        """The kind of a context that `contexts` gave or `remember` learned.

        Raises:
            ConfigError: It gave no such context.
        """
        if context not in self._kinds:
            raise ConfigError(f"not a context of the {self.name} texts", seen=context, do="give the style")
        return self._kinds[context]

    def describe(self, context: str) -> str:
        """The style that a user wants for this context, in words."""
        return self.sources[self.kind(context)].style

    def _texts(self, source: Source, seed: int, stream: str) -> Iterator[str]:
        requires("datasets")
        try:
            for row in _load(source).shuffle(seed=seed, buffer_size=SHUFFLED):
                text = " ".join(_words(row, source.fields)[:LONGEST])
                if text.count(" ") + 1 >= SHORTEST and _stream(text) == stream:
                    yield text
        except Exception as error:  # whatever a hub that is down, or a dataset that has moved, makes it raise
            raise ConfigError(
                f"the texts of {source.dataset} cannot be read, {type(error).__name__}: {error}",
                do="is the hub to be reached? The lab's own texts need none",
            ) from error


def _load(source: Source) -> Any:
    """The dataset as a stream; one whose data only a script can read is taken as the hub converted it."""
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
    parts = [row[field] for field in fields]
    return " ".join(" ".join(part) if isinstance(part, list) else part or "" for part in parts).split()


def _stream(text: str) -> str:
    drawn = hashlib.sha256(text.encode()).digest()[0] % 10
    return STREAMS[max(drawn - 7, 0)]
