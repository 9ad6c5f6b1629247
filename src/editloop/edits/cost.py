"""The cost of an edit, Δ(y, y'), by name: `levenshtein:UNIT/NORMALISER`, or one's own.

Units are `word` (whitespace tokens), `char` (code points) and `token` (the policy's own tokens); normalisers
are `response` (divide by |y|, so values above 1 occur), `longest` (by max(|y|, |y'|), so they do not) and
`none`. It does not know where texts come from, nor loads any tokenizer: the unit `token` is given one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rapidfuzz.distance import Levenshtein

from editloop.errors import CostError

DEFAULT_COST = "levenshtein:word/response"
UNITS = ("token", "word", "char")
NORMALISERS = ("response", "longest", "none")

CostFunction = Callable[[Sequence[str], Sequence[str]], ArrayLike]
"""Responses and edits, n texts each, to n finite numbers."""

Tokenize = Callable[[list[str]], list[list[int]]]
"""Texts to token ids, without the special tokens that open or close a text."""

_registered: dict[str, CostFunction] = {}


@dataclass(frozen=True)
class Cost:
    """A named cost Δ; called on n responses and their n edits it returns n costs.

    Attributes:
        name: What the cost is called in logs, reports and run folders.
        function: What computes it.
    """

    name: str
    function: CostFunction

    def __call__(self, responses: Sequence[str], edits: Sequence[str]) -> NDArray[np.float64]:
        """Return the cost of each pair, float64 [n].

        Raises:
            CostError: The two sides differ in length, or the cost gave anything but n finite numbers.
        """
        if len(responses) != len(edits):
            raise CostError(
                "responses and edits differ in number", seen=(len(responses), len(edits)), do="give one each"
            )
        values = np.asarray(self.function(responses, edits), dtype=np.float64)
        if values.shape != (len(responses),):
            raise CostError(
                f"cost {self.name} gave the wrong shape",
                seen=values.shape,
                do=f"return {len(responses)} numbers",
            )
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise CostError(
                f"cost {self.name} is not finite", seen=responses[row], do="return finite numbers"
            )
        return values


def get_cost(name: str = DEFAULT_COST, tokenize: Tokenize | None = None) -> Cost:
    """Return the cost of that name.

    An empty side has length 0; both normalisers divide by at least 1, so that Δ("", y') is |y'| and
    Δ("", "") is 0.

    Args:
        name: A registered name, or `levenshtein:UNIT/NORMALISER`.
        tokenize: The policy's tokenizer; needed by the unit `token` only.

    Raises:
        CostError: Unknown name, or the unit `token` without `tokenize`.
    """
    if name in _registered:
        return Cost(name, _registered[name])
    family, _, rest = name.partition(":")
    unit, _, normaliser = rest.partition("/")
    if family != "levenshtein" or unit not in UNITS or normaliser not in NORMALISERS:
        own = f", or one of {', '.join(sorted(_registered))}" if _registered else ""
        raise CostError(
            "unknown cost",
            seen=name,
            do=f"use levenshtein:UNIT/NORMALISER, unit {'|'.join(UNITS)}, normaliser "
            f"{'|'.join(NORMALISERS)}{own}",
        )
    if unit == "token" and tokenize is None:
        raise CostError(
            "the unit token needs the policy's tokenizer",
            seen=name,
            do="give tokenize=, or use the unit word",
        )

    def cut(texts: Sequence[str]) -> Iterable[Sequence[Any]]:
        if unit == "word":
            return map(str.split, texts)
        return tokenize(list(texts)) if unit == "token" and tokenize is not None else texts

    def levenshtein(responses: Sequence[str], edits: Sequence[str]) -> NDArray[np.float64]:
        # One call per pair, not RapidFuzz's cpdist over all: measured 1.7 times as fast on word lists, as
        # the words of a pair are still in the processor's cache. See the benchmark cost-speed.
        distances, divisors = [], []
        distance = Levenshtein.distance
        for response, edit in zip(cut(responses), cut(edits), strict=True):
            distances.append(distance(response, edit))
            divisors.append(len(response) if normaliser == "response" else max(len(response), len(edit)))
        values = np.array(distances, dtype=np.float64)
        return values if normaliser == "none" else values / np.maximum(divisors, 1)

    return Cost(name, levenshtein)


def register_cost(name: str, function: CostFunction) -> Cost:
    """Add a cost of one's own for `get_cost`, in this process.

    Raises:
        CostError: The name is empty, built in or taken by another function.
    """
    if not name or name.startswith("levenshtein:"):
        raise CostError("this name is not free for a cost", seen=name, do="choose another name")
    if _registered.setdefault(name, function) is not function:
        raise CostError("this name already has a cost", seen=name, do="choose another name")
    return Cost(name, function)
