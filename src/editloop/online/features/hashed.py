"""Hashed words and lengths (Weinberger et al. 2009, Feature Hashing for Large Scale Multitask Learning)."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from editloop.edits import Context

__all__ = ["HashedWords"]

WORDS = re.compile(r"\w+")

LONGEST = 20_000
"""The characters of a text that are read. What a request wants stands at its beginning or at its end."""


@dataclass(frozen=True)
class HashedWords:
    """Words of what the user asked, hashed, and two lengths.

    Of a chat, that is the last message of the user: what the system says is the same in all requests. Each
    word has a place and a sign by its hash, and counts as 1 + the logarithm of its number; together they have
    the length 1. The lengths are those of that text and of the whole context, as log10(1 + characters) / 5.

    Attributes:
        size: The number of features, lengths included.
    """

    size: int = 256

    @property
    def kind(self) -> str:
        """See `FeatureMap`."""
        return f"hashed-{self.size}"

    def __call__(self, context: Context) -> Sequence[float]:
        """See `FeatureMap`."""
        if isinstance(context, str):
            asked, whole = context, len(context)
        else:
            of_user = [message.content for message in context if message.role == "user"]
            asked = of_user[-1] if of_user else "".join(message.content for message in context[-1:])
            whole = sum(len(message.content) for message in context)
        places = self.size - 2
        found = [0.0] * places
        text = asked if len(asked) <= LONGEST else asked[: LONGEST // 2] + " " + asked[-LONGEST // 2 :]
        for word, count in Counter(WORDS.findall(text.lower())).items():
            # CRC-32 and not `hash`, which differs between processes. The sign is of a bit that the place
            # does not depend on.
            hashed = zlib.crc32(word.encode("utf-8", "replace"))
            found[(hashed >> 1) % places] += (1 if hashed & 1 else -1) * (1 + math.log(count))
        norm = math.sqrt(sum(value * value for value in found)) or 1.0
        return [value / norm for value in found] + [_length(len(asked)), _length(whole)]


def _length(characters: int) -> float:
    return math.log10(1 + characters) / 5
