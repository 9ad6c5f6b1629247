"""The units that a cost counts: words, characters, the policy's tokens, and the tokens of code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from editloop.edits.cost.base import Tokenize
from editloop.errors import CostError

__all__ = ["UNITS", "Pieces", "in_pieces", "in_units", "plural"]

UNITS = {"word": "word", "char": "character", "token": "token", "code": "token of code"}
"""The units: in the names of costs, and as people call them."""

_CODE = re.compile(r"\n *|\w+|[^\w\s]")
"""A name or a number, a mark, or a line break with the indentation after it."""

_PATTERNS = {"word": re.compile(r"\S+"), "char": re.compile(r".", re.DOTALL), "code": _CODE}


class Pieces(NamedTuple):
    """A text in units, so that it can be put together again.

    Attributes:
        gaps: The text before each unit that is of no unit: white space [n].
        units: The units [n].
        end: The text after the last unit.
    """

    gaps: list[str]
    units: list[str]
    end: str


def plural(unit: str) -> str:
    """Return what several of a unit are called."""
    first, *rest = UNITS[unit].split(" ")
    return " ".join([f"{first}s", *rest])


def in_units(texts: Sequence[str], unit: str, tokenize: Tokenize | None) -> Iterable[Sequence[Any]]:
    """Return the texts as sequences of units; a string is a sequence of its characters already.

    Raises:
        CostError: The unit is `token`, and there is no tokenizer.
    """
    if unit == "word":
        return map(str.split, texts)
    if unit == "char":
        return texts
    if unit == "code":
        return map(_CODE.findall, texts)
    if tokenize is None:
        raise CostError(
            "the unit token needs the policy's tokenizer", do="give tokenize=, or use the unit word"
        )
    return tokenize(list(texts))


def in_pieces(text: str, unit: str) -> Pieces | None:
    """Return a text in units, with what is between them; None for tokens, whose places are not known."""
    if unit not in _PATTERNS:
        return None
    gaps, units, end = list[str](), list[str](), 0
    for found in _PATTERNS[unit].finditer(text):
        gaps.append(text[end : found.start()])
        units.append(found[0])
        end = found.end()
    return Pieces(gaps, units, text[end:])
