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
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editloop.edits import Context
from editloop.errors import BanditError

__all__ = ["MOST_FEATURES", "FeatureMap", "Features", "decoded", "encoded"]

MOST_FEATURES = 512
"""The most features of a request. The time of an update grows with the square of their number."""


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
    """The features of a request, of which only those that are not 0 are held.

    Attributes:
        kind: What the numbers mean.
        size: How many there are, zeros included.
        places: Those that are not 0 [n].
        values: Their values [n].
    """

    kind: str
    size: int
    places: NDArray[np.intp]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, kind: str, values: ArrayLike) -> Features:
        """Return the features with these values, zeros included [size]."""
        whole = np.asarray(values, np.float64)
        places = np.flatnonzero(whole)
        return cls(kind, len(whole), places, whole[places])

    @cached_property
    def with_constant(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The places and the values [1 + n] with the constant 1 before all features."""
        at, values = np.zeros(1 + len(self.places), np.intp), np.ones(1 + len(self.places))
        np.add(self.places, 1, out=at[1:])
        values[1:] = self.values
        return at, values

    def dense(self) -> NDArray[np.float64]:
        """Return all values [size]."""
        whole = np.zeros(self.size)
        whole[self.places] = self.values
        return whole


def encoded(kind: str, values: Sequence[float] | NDArray[np.float64]) -> str | None:
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
    places = np.flatnonzero(rounded)
    # A place takes as much room as a value.
    data = rounded.tobytes()
    if 2 * len(places) < len(rounded):
        data = places.astype("<u2").tobytes() + rounded[places].tobytes()
    return f"{kind}:{len(rounded)}:{base64.b64encode(data).decode()}"


@lru_cache(maxsize=4096)
def decoded(text: str) -> Features:
    """Return the features that `encoded` wrote. They must not be changed: others get the same object.

    Raises:
        BanditError: It did not write this.
    """
    try:
        kind, number, packed = text.split(":")
        size, data = int(number), base64.b64decode(packed, validate=True)
        if len(data) == 2 * size:
            found = Features.of(kind, np.frombuffer(data, "<f2"))
        else:
            half = len(data) // 2
            places = np.frombuffer(data[:half], "<u2").astype(np.intp)
            found = Features(kind, size, places, np.frombuffer(data[half:], "<f2").astype(np.float64))
    except (binascii.Error, ValueError) as error:
        raise BanditError("features cannot be read", seen=text[:40]) from error
    places = found.places
    rising = len(places) == len(found.values) and bool((places[1:] > places[:-1]).all())
    inside = not len(places) or int(places[-1]) < size
    if not (kind and 0 < size <= MOST_FEATURES and rising and inside and np.isfinite(found.values).all()):
        raise BanditError("features cannot be read", seen=text[:40])
    return found
