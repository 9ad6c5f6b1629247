"""What a request says and who asks, hashed (Weinberger et al. 2009, Feature Hashing)."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Context

__all__ = ["HashedWords"]

WORDS = re.compile(r"\w+")

LONGEST = 20_000
"""The characters of a text that are read. What a request wants stands at its beginning or at its end."""


@dataclass(frozen=True)
class HashedWords:
    """Words of what the user asked, hashed; who asks, hashed; and two lengths.

    Of a chat, the words are those of the user's last message: what the system says is the same in all
    requests. Each word has a place and a sign by its hash, and counts as 1 + the logarithm of its number;
    together they have the length 1. So has the user, who has two places among a fifth of all: users who share
    one differ in the other. What a user's edits cost with an arm, beyond what others' do, is learned by the
    same shrinkage. The two lengths are those of that text and of the whole context, as
    log10(1 + characters) / 5.

    Attributes:
        size: The number of features, in all.
    """

    size: int = 320

    @property
    def kind(self) -> str:
        """See `FeatureMap`."""
        return f"hashed-{self.size}"

    def __call__(self, context: Context, user: str) -> NDArray[np.float64]:
        """See `FeatureMap`."""
        if isinstance(context, str):
            asked, whole = context, len(context)
        else:
            of_user = [message.content for message in context if message.role == "user"]
            asked = of_user[-1] if of_user else "".join(message.content for message in context[-1:])
            whole = sum(len(message.content) for message in context)
        of_users = self.size // 5
        places = self.size - of_users - 2
        found = dict[int, float]()
        text = asked if len(asked) <= LONGEST else asked[: LONGEST // 2] + " " + asked[-LONGEST // 2 :]
        for word, count in Counter(WORDS.findall(text.lower())).items():
            place, sign = _hashed(word, places)
            found[place] = found.get(place, 0.0) + sign * (1 + math.log(count))
        norm = math.sqrt(sum(value * value for value in found.values())) or 1.0
        values = np.zeros(self.size)
        for place, value in found.items():
            values[place] = value / norm
        if user:
            for salt in "ab":
                place, sign = _hashed(salt + user, of_users)
                values[places + place] += sign * math.sqrt(0.5)
        values[-2:] = _length(len(asked)), _length(whole)
        return values


@lru_cache(maxsize=16_384)  # most words come again
def _hashed(text: str, places: int) -> tuple[int, float]:
    """A place and a sign, which is of a bit that the place does not depend on."""
    # Not `hash`, which differs between processes. CRC-32 is linear, so that a change of one letter changes
    # the same bits of all texts; the multiplication mixes them.
    hashed = zlib.crc32(text.encode("utf-8", "replace")) * 0x9E3779B1 >> 7
    return (hashed >> 1) % places, 1.0 if hashed & 1 else -1.0


def _length(characters: int) -> float:
    return math.log10(1 + characters) / 5
