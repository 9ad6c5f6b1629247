"""The semantic cost of an edit: how far its meaning is from that of the response, by a sentence encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits.cost.base import Cost, CostFamily, Tokenize
from editloop.errors import CostError
from editloop.extras import requires

__all__ = ["SEMANTIC", "semantic_distance"]


def semantic_distance(encoder: str, responses: Sequence[str], edits: Sequence[str]) -> NDArray[np.float64]:
    """Return 1 − cosine of the embeddings of each pair, in [0, 2]; 0 where the texts are the same [n].

    Args:
        encoder: A sentence encoder: a hub name or a folder, as sentence-transformers takes it.
        responses: The responses [n].
        edits: Their edits [n].

    Raises:
        CostError: The encoder cannot be loaded.
        MissingExtraError: sentence-transformers is not installed.
    """
    # Each text once: an accepted response is its own edit, and encoding is all that takes time here.
    texts = list(dict.fromkeys([*responses, *edits]))
    if not texts:
        return np.empty(0)
    vectors = np.asarray(
        _load(encoder).encode(texts, normalize_embeddings=True, show_progress_bar=False), np.float64
    )
    place = {text: i for i, text in enumerate(texts)}
    ours, theirs = (vectors[[place[text] for text in side]] for side in (responses, edits))
    distance: NDArray[np.float64] = np.clip(1 - (ours * theirs).sum(axis=1), 0, 2)
    # Exactly 0, which the cosine of a vector with itself misses by its rounding.
    same = np.array([one == other for one, other in zip(responses, edits, strict=True)])
    return np.where(same, 0.0, distance)


@lru_cache(maxsize=2)
def _load(encoder: str) -> Any:
    requires("semantic")
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(encoder)
    except Exception as error:  # the hub, the files or the model's own code may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CostError(f"the sentence encoder cannot be loaded: {reason}", seen=encoder) from error


def _make(name: str, encoder: str, _: Tokenize | None) -> Cost | None:
    """Return the cost of one encoder. It declares no scale: its bound, 2, is far above what edits cost."""
    if not encoder:
        return None
    return Cost(name, partial(semantic_distance, encoder), unit="meaning", label="distance of meaning")


SEMANTIC = CostFamily("semantic:ENCODER", _make)
