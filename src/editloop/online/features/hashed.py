"""What a request says and who asks, hashed (Weinberger et al. 2009, Feature Hashing)."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Context
from editloop.online.features.parts import asked, hashed, lengths_of, user_values

__all__ = ["HashedWords"]

WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class HashedWords:
    """Words of what the user asked, hashed; who asks, hashed; and two lengths.

    Each word has a place and a sign by its hash, and counts as 1 + the logarithm of its number; together they
    have the length 1. So has the user, who has two places among a fifth of all.

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
        request, of_users = asked(context), self.size // 5
        places = self.size - of_users - 2
        found = dict[int, float]()
        for word, count in Counter(WORDS.findall(request.text.lower())).items():
            place, sign = hashed(word, places)
            found[place] = found.get(place, 0.0) + sign * (1 + math.log(count))
        norm = math.sqrt(sum(value * value for value in found.values())) or 1.0
        values = np.zeros(self.size)
        for place, value in found.items():
            values[place] = value / norm
        user_values(user, values[places:-2])
        values[-2:] = lengths_of(request)
        return values
