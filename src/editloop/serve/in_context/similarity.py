"""How similar a request is to those of past edits: by the words that they share, or by what they mean.

A similarity of one's own is a function of this form, registered by `SIMILARITIES.register(name, function)` or
named in the entry point group `editloop.similarities`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from editloop.registry import Registry

__all__ = ["SIMILARITIES", "Similarity", "shared_words", "similar_meaning"]

WORDS = re.compile(r"\w+")


class Similarity(Protocol):
    """Compares a request with earlier ones."""

    def __call__(self, asked: str, past: Sequence[str]) -> NDArray[np.float64]:
        """Return how similar each of the earlier requests is, at most 1 [n]."""
        ...


def shared_words(asked: str, past: Sequence[str]) -> NDArray[np.float64]:
    """Return the cosine of tf-idf vectors of the words (Salton and Buckley 1988), between 0 and 1 [n].

    A word that occurs c times counts as 1 + ln c, times ln((1 + n) / (1 + d)) + 1, where d of the n earlier
    requests have it. So what an application writes into all requests decides least.
    """
    rows = [_counted(text) for text in past]
    with_word = Counter(word for row in rows for word in row)
    weight = {word: math.log((1 + len(rows)) / (1 + d)) + 1 for word, d in with_word.items()}
    # A word that no earlier request has would make all products smaller by the same factor; it is left out.
    wanted = {word: tf * weight[word] for word, tf in _counted(asked).items() if word in weight}
    length = math.sqrt(sum(value**2 for value in wanted.values()))
    found = np.zeros(len(rows))
    for i, row in enumerate(rows):
        product = sum(tf * weight[word] * wanted.get(word, 0.0) for word, tf in row.items())
        if product:
            own = math.sqrt(sum((tf * weight[word]) ** 2 for word, tf in row.items()))
            found[i] = product / (own * length)
    return found


def _counted(text: str) -> dict[str, float]:
    """The words of a text, each with 1 + ln of how often it occurs."""
    return {word: 1 + math.log(n) for word, n in Counter(WORDS.findall(text.lower())).items()}


def similar_meaning(asked: str, past: Sequence[str]) -> NDArray[np.float64]:
    """Return the cosine of the embeddings that the extra `embeddings` brings, between -1 and 1 [n].

    Raises:
        MissingExtraError: The extra is not installed.
    """
    from editloop.online.features.embedded import SIZE, EmbeddedText

    embedded = EmbeddedText()
    own = embedded(asked, "")[:SIZE]
    return np.array([float(embedded(text, "")[:SIZE] @ own) for text in past])


SIMILARITIES: Registry[Similarity] = Registry(
    "similarity of requests",
    "editloop.similarities",
    {
        "meaning": "editloop.serve.in_context.similarity:similar_meaning",
        "words": "editloop.serve.in_context.similarity:shared_words",
    },
)
"""Similarities by name."""
