"""What a request means: the mean of its tokens' embeddings, which the package `wordllama` ships (MIT).

Only its two files are read. The package is not imported, because that would change the program's logging.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Context
from editloop.errors import ConfigError
from editloop.extras import requires
from editloop.online.features.parts import asked, lengths_of, user_values

__all__ = ["EmbeddedText"]

PACKAGE = "wordllama"
WEIGHTS, TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
TENSOR = "embedding.weight"

SIZE = 64
"""Numbers of an embedding that are used: its first ones are trained to do without the others."""

USERS = 32
"""Places for who asks."""


class EmbeddedText:
    """The embedding of what the user asked, who asks, hashed, and two lengths: 98 features.

    Requests that mean the same in other words have like features, which hashed words have not. All numbers of
    an embedding count, so that a choice takes longer than by some words. The embedding has the length 1.

    Raises:
        MissingExtraError: The extra `embeddings` is not installed.
        ConfigError: The package has no such files.
    """

    kind = f"embedded-{SIZE}"

    def __init__(self) -> None:
        requires("embeddings")
        self._tokenizer, self._vectors = _files()

    def __call__(self, context: Context, user: str) -> NDArray[np.float64]:
        """See `FeatureMap`."""
        request = asked(context)
        values = np.zeros(SIZE + USERS + 2)
        text = request.text.encode("utf-8", "replace").decode()  # a lone half of a pair is no text
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        if tokens:
            mean = self._vectors[tokens].mean(axis=0, dtype=np.float64)
            values[:SIZE] = mean / (np.linalg.norm(mean) or 1.0)
        user_values(user, values[SIZE:-2])
        values[-2:] = lengths_of(request)
        return values


@lru_cache(maxsize=1)
def _files() -> tuple[Any, NDArray[np.float32]]:
    """Return the tokenizer, and the vectors of its tokens [tokens, SIZE]."""
    from safetensors import safe_open
    from tokenizers import Tokenizer

    spec = find_spec(PACKAGE)
    folders = (spec.submodule_search_locations or ()) if spec else ()
    for folder in map(Path, folders):
        if (folder / WEIGHTS).is_file() and (folder / TOKENIZER).is_file():
            with safe_open(folder / WEIGHTS, "numpy") as weights:
                vectors = weights.get_slice(TENSOR)[:, :SIZE].astype(np.float32)
            return Tokenizer.from_file(str(folder / TOKENIZER)), vectors
    raise ConfigError(
        f"{PACKAGE} is installed without its embeddings", seen=PACKAGE, do="pip install editloop[embeddings]"
    )
