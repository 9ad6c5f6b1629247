"""What a feature map is, and the text in which features are kept with a decision.

Features are kept as the text `kind:size:data`. The data are float16 in base64, of all features or of those
that are not 0, after the places of these: about 80 characters for the 320 features of eight words. A bandit
learns from these rounded numbers, so that a replay computes with the same ones.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editloop.edits import Context
from editloop.errors import BanditError

__all__ = ["MOST_FEATURES", "FeatureMap", "Features", "decoded", "encoded"]

MOST_FEATURES = 512
"""The most features of a request. The time of an update grows with the square of their number."""

LARGEST = 65_504
"""The largest number in float16."""

MOST_KNOWN = 4096
"""Texts whose features are remembered: those of a decision are read again when it is counted."""

_known: dict[str, Features] = {}


class FeatureMap(Protocol):
    """Makes numbers of a request."""

    @property
    def kind(self) -> str:
        """A name for what the numbers mean, without a colon. Features of another kind are not comparable."""
        ...

    def __call__(self, context: Context, user: str) -> Sequence[float] | NDArray[np.float64]:
        """Return the features of a request, always as many; none if all requests count as alike.

        Args:
            context: What is asked; an empty text if that is not known.
            user: Who asks, by a name or a digest of one; empty if that is not known.

        They are of the size of 1: slopes are shrunk by the same penalty for all of them.
        """
        ...


@dataclass(frozen=True, eq=False)  # arrays have no one truth value
class Features:
    """The features of a request, of which only those that are not 0 are held, after the constant 1.

    Attributes:
        kind: What the numbers mean.
        size: How many there are, zeros included, the constant not.
        places: 0, the place of the constant, and the places from 1 of those n that are not 0 [1 + n].
        values: 1, and their values [1 + n].
    """

    kind: str
    size: int
    places: NDArray[np.intp]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, kind: str, values: ArrayLike) -> Features:
        """Return the features with these values, zeros included [size]."""
        whole = np.concatenate(([1.0], np.asarray(values, np.float64)))
        places = np.flatnonzero(whole)
        return cls(kind, len(whole) - 1, places, whole[places])

    def dense(self) -> NDArray[np.float64]:
        """Return all values without the constant [size]."""
        whole = np.zeros(self.size + 1)
        whole[self.places] = self.values
        return whole[1:]


def encoded(kind: str, values: Sequence[float] | NDArray[np.float64]) -> str | None:
    """Return features as the text that is kept with a decision; None if there are none.

    Raises:
        BanditError: A value is NaN, or larger than float16 can hold; there are too many; or the kind is
            empty or has a colon.
    """
    if not kind or ":" in kind:
        raise BanditError("the kind of features is a name without a colon", seen=kind)
    if not len(values):
        return None
    if len(values) > MOST_FEATURES:
        raise BanditError(f"a request has at most {MOST_FEATURES} features", seen=len(values))
    whole = np.asarray(values, dtype=np.float64)
    if not np.abs(whole).max() <= LARGEST:  # which is not so for a NaN, either
        raise BanditError(f"features are finite numbers, at most {LARGEST:,}", seen=kind)
    size = len(whole)
    rounded = np.ones(1 + size, "<f2")
    rounded[1:] = whole
    (places,) = rounded.nonzero()
    known = rounded[places]
    # A place takes as much room as a value.
    sparse = 2 * (len(places) - 1) < size
    data = (places[1:] - 1).astype("<u2").tobytes() + known[1:].tobytes() if sparse else rounded[1:].tobytes()
    text = f"{kind}:{size}:{base64.b64encode(data).decode()}"
    _remember(text, Features(kind, size, places, known.astype(np.float64)))
    return text


def decoded(text: str) -> Features:
    """Return the features that `encoded` wrote. They must not be changed: others get the same object.

    Raises:
        BanditError: It did not write this.
    """
    found = _known.get(text)
    return found if found is not None else _remember(text, _read(text))


def _remember(text: str, features: Features) -> Features:
    if len(_known) >= MOST_KNOWN:
        _known.clear()  # simpler than to find the oldest; most are read again soon or never
    _known[text] = features
    return features


def _read(text: str) -> Features:
    try:
        kind, number, packed = text.split(":")
        size, data = int(number), base64.b64decode(packed, validate=True)
        if len(data) == 2 * size:
            found = Features.of(kind, np.frombuffer(data, "<f2"))
        else:
            half = len(data) // 2
            places = np.concatenate(([0], 1 + np.frombuffer(data[:half], "<u2").astype(np.intp)))
            values = np.concatenate(([1.0], np.frombuffer(data[half:], "<f2").astype(np.float64)))
            found = Features(kind, size, places, values)
    except (binascii.Error, ValueError) as error:
        raise BanditError("features cannot be read", seen=text[:40]) from error
    places = found.places
    rising = len(places) == len(found.values) and bool((places[1:] > places[:-1]).all())
    inside = int(places[-1]) <= size
    if not (kind and 0 < size <= MOST_FEATURES and rising and inside and np.isfinite(found.values).all()):
        raise BanditError("features cannot be read", seen=text[:40])
    return found
