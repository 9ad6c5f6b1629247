"""What several feature maps are made of: the text that was asked, who asks, and how long it is."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Context

__all__ = ["Asked", "asked", "hashed", "lengths_of", "user_values"]

SHORT = 32
"""The characters of the longest words whose hashes are remembered."""

LONGEST = 20_000
"""The characters of a text that are read. What a request wants stands at its beginning or at its end."""


class Asked(NamedTuple):
    """What a request says.

    Attributes:
        text: What the user asked, of which the middle is left out beyond `LONGEST` characters.
        length: Its characters, all of them.
        whole: The characters of the whole context.
    """

    text: str
    length: int
    whole: int


def asked(context: Context) -> Asked:
    """Return what a request says. Of a chat, that is the user's last message.

    What the system says is the same in all requests.
    """
    if isinstance(context, str):
        text, whole = context, len(context)
    else:
        of_user = [message.content for message in context if message.role == "user"]
        text = of_user[-1] if of_user else "".join(message.content for message in context[-1:])
        whole = sum(len(message.content) for message in context)
    shown = text if len(text) <= LONGEST else text[: LONGEST // 2] + " " + text[-LONGEST // 2 :]
    return Asked(shown, len(text), whole)


def hashed(text: str, places: int) -> tuple[int, float]:
    """Return a place below `places`, and a sign, which is of a bit that the place does not depend on."""
    return _short_hashed(text, places) if len(text) <= SHORT else _hashed(text, places)


def _hashed(text: str, places: int) -> tuple[int, float]:
    # Not `hash`, which differs between processes. CRC-32 is linear, so that a change of one letter changes
    # the same bits of all texts; the multiplication mixes them.
    number = zlib.crc32(text.encode("utf-8", "replace")) * 0x9E3779B1 >> 7
    return (number >> 1) % places, 1.0 if number & 1 else -1.0


_short_hashed = lru_cache(maxsize=16_384)(_hashed)
"""Most words come again. Long ones are not kept: a text without spaces is one word of its whole length."""


def user_values(user: str, out: NDArray[np.float64]) -> None:
    """Add who asks to values that are 0 [places], as a vector of length 1.

    A user has two places: users who share one differ in the other. What a user's edits cost with an arm,
    beyond what others' do, is then learned by the same shrinkage as all slopes.
    """
    if user:
        for salt in "ab":
            place, sign = hashed(salt + user, len(out))
            out[place] += sign * math.sqrt(0.5)


def lengths_of(request: Asked) -> tuple[float, float]:
    """Return the lengths of what was asked and of the whole context, as log10(1 + characters) / 5."""
    return math.log10(1 + request.length) / 5, math.log10(1 + request.whole) / 5
