"""What a feature map is, and the text in which features are kept with a decision.

Features are kept as the text `kind:values`, where the values are float16, compressed, in base64: about 100
characters for the 320 features of eight words. A bandit learns from these rounded numbers, so that a replay
computes with the same ones.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Context
from editloop.errors import BanditError

__all__ = ["MOST_FEATURES", "FeatureMap", "decoded", "encoded"]

MOST_FEATURES = 512
"""The most features of a request. The time of a decision grows with the square of their number."""


class FeatureMap(Protocol):
    """Makes numbers of a request."""

    @property
    def kind(self) -> str:
        """A name for what the numbers mean, without a colon. Features of another kind are not comparable."""
        ...

    def __call__(self, context: Context, user: str) -> Sequence[float]:
        """Return the features of a request, always as many; none if all requests count as alike.

        Args:
            context: What is asked; an empty text if that is not known.
            user: Who asks, by a name or a digest of one; empty if that is not known.

        They are of the size of 1: slopes are shrunk by the same penalty for all of them.
        """
        ...


def encoded(kind: str, values: Sequence[float]) -> str | None:
    """Return features as the text that is kept with a decision; None if there are none.

    Raises:
        BanditError: A value is NaN or infinite, also after rounding; there are too many; or the kind is
            empty or has a colon.
    """
    if not kind or ":" in kind:
        raise BanditError("the kind of features is a name without a colon", seen=kind)
    if not len(values):
        return None
    if len(values) > MOST_FEATURES:
        raise BanditError(f"a request has at most {MOST_FEATURES} features", seen=len(values))
    with np.errstate(over="ignore"):
        rounded = np.asarray(values, dtype=np.float64).astype("<f2")
    if not np.isfinite(rounded).all():
        raise BanditError("features are finite numbers, at most 65,504", seen=kind)
    return f"{kind}:{base64.b64encode(zlib.compress(rounded.tobytes(), 1)).decode()}"


@lru_cache(maxsize=4096)
def decoded(text: str) -> tuple[str, NDArray[np.float64]]:
    """Return the kind and the values [features], read-only, of what `encoded` wrote.

    Raises:
        BanditError: It did not write this.
    """
    kind, colon, data = text.partition(":")
    try:
        # No more than can be right is unpacked, whatever the text claims to hold.
        packed = zlib.decompressobj().decompress(base64.b64decode(data, validate=True), 2 * MOST_FEATURES + 1)
        values = np.frombuffer(packed, dtype="<f2").astype(np.float64)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise BanditError("features cannot be read", seen=text[:40]) from error
    if not (kind and colon and 0 < values.size <= MOST_FEATURES and np.isfinite(values).all()):
        raise BanditError("features cannot be read", seen=text[:40])
    values.setflags(write=False)  # the cache gives the same array to everyone
    return kind, values
