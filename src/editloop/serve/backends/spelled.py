"""The log-probability of a text, from the tokens that a model server lists beside it.

What a server lists may be more than the text: the thoughts of a reasoning model, the words of a tool call. So
the tokens have to spell the text. They may be followed by one more, the token that ended it, which vLLM lists
and OpenAI does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["SpelledText", "spells"]

BROKEN = re.compile("(\ufffd+)")
"""What stands for parts of characters in tokens that are shown as texts."""


class SpelledText:
    """A text that arrives in parts, and the tokens that are listed with it."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._tokens: list[bytes] = []
        self._log_probs: list[float] = []
        self._is_text = True

    def add(self, part: Mapping[str, Any], logprobs: Mapping[str, Any] | None) -> None:
        """Add a message, or the next part of one, with its `logprobs` as in OpenAI's API."""
        if isinstance(content := part.get("content"), str):
            self._text.append(content)
        self._is_text = self._is_text and not part.get("tool_calls")
        entries = (logprobs or {}).get("content") or ()
        try:
            for entry in entries:
                self._tokens.append(_bytes_of(entry))
                self._log_probs.append(float(entry["logprob"]))
        except (LookupError, TypeError, ValueError, AttributeError):
            self._is_text = False  # another form than that of the API: nothing is known of its meaning

    @property
    def logprob(self) -> float | None:
        """The sum of the tokens' log-probabilities, at most 0; None if they do not spell the text."""
        total = math.fsum(self._log_probs)
        known = self._is_text and self._text and math.isfinite(total)
        if not known or not spells(self._tokens, "".join(self._text)):
            return None
        return min(0.0, total)


def _bytes_of(entry: Mapping[str, Any]) -> bytes:
    found = entry.get("bytes")
    return bytes(found) if found is not None else str(entry["token"]).encode("utf-8", "surrogatepass")


def spells(tokens: Sequence[bytes], text: str) -> bool:
    """Whether tokens spell a text, perhaps with one more token behind it; white space does not count.

    A token shown by itself often has no leading space. Where it is a part of a character, that character is
    not compared.
    """
    return bool(tokens) and any(
        _fits(b"".join(some).decode(errors="replace"), text) for some in (tokens, tokens[:-1])
    )


def _fits(shown: str, text: str) -> bool:
    shown, text = "".join(shown.split()), "".join(text.split())
    # Pieces, and between them runs of broken parts, of which n stand for one to n characters.
    first, *rest = BROKEN.split(shown)
    if not text.startswith(first):
        return False
    at = len(first)
    for run, piece in zip(rest[::2], rest[1::2], strict=True):
        last = at + len(run)
        if piece:  # at the first place where it may be
            found = text.find(piece, at + 1, last + len(piece))
            if found < 0:
                return False
            at = found + len(piece)
        else:  # the end
            return at < len(text) <= last
    return at == len(text)
