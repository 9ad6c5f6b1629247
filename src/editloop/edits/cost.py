"""The cost of an edit, Δ(y, y'), by name: `FAMILY:UNIT/NORMALISER`, or one's own.

`levenshtein` counts inserted, deleted and replaced units; `ter` counts a moved stretch of words as one edit
(translation edit rate with shifts, by sacrebleu; an upper bound that is found greedily, as usual for TER).
Units are `word` (whitespace tokens), `char` (code points) and `token` (the policy's own tokens); normalisers
are `response` (divide by |y|, so values above 1 occur), `edit` (by |y'|: `ter:word/edit` is HTER), `longest`
(by max(|y|, |y'|)) and `none`. `semantic:ENCODER` is how far the meanings lie apart, by a sentence encoder.
It does not know where texts come from, nor loads any tokenizer: the unit `token` is given one.

A cost of one's own is registered in the process, or comes with an installed package that names it in the
entry point group `editloop.costs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rapidfuzz.distance import Levenshtein

from editloop.edits.semantic import semantic_distance
from editloop.errors import CostError
from editloop.extras import requires

DEFAULT_COST = "levenshtein:word/response"
UNITS = {"levenshtein": ("token", "word", "char"), "ter": ("word",)}
DIVISORS: Mapping[str, Callable[[Sequence[Any], Sequence[Any]], int]] = {
    "response": lambda response, edit: len(response) or 1,
    "edit": lambda response, edit: len(edit) or 1,
    "longest": lambda response, edit: max(len(response), len(edit), 1),
    "none": lambda response, edit: 1,
}
SEMANTIC = "semantic"
ENTRY_POINTS = "editloop.costs"

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

    An empty side has length 0; the normalisers divide by at least 1, so that Δ("", y') is |y'| and
    Δ("", "") is 0.

    Args:
        name: A registered name, that of an installed package's cost, `FAMILY:UNIT/NORMALISER`, or
            `semantic:ENCODER` (see `semantic_distance`).
        tokenize: The policy's tokenizer; needed by the unit `token` only.

    Raises:
        CostError: Unknown name, or the unit `token` without `tokenize`.
    """
    if name in _registered:
        return Cost(name, _registered[name])
    family, _, rest = name.partition(":")
    if family == SEMANTIC and rest:
        return Cost(name, partial(semantic_distance, rest))
    unit, _, normaliser = rest.partition("/")
    if unit not in UNITS.get(family, ()) or normaliser not in DIVISORS:
        return _installed(name)
    if unit == "token" and tokenize is None:
        raise CostError(
            "the unit token needs the policy's tokenizer",
            seen=name,
            do="give tokenize=, or use the unit word",
        )

    divisor = DIVISORS[normaliser]

    def cut(texts: Sequence[str]) -> Iterable[Sequence[Any]]:
        if unit == "word":
            return map(str.split, texts)
        return tokenize(list(texts)) if unit == "token" and tokenize is not None else texts

    def distances(responses: Sequence[str], edits: Sequence[str]) -> NDArray[np.float64]:
        # One call per pair, not RapidFuzz's cpdist over all: measured 1.7 times as fast on word lists, as
        # the words of a pair are still in the processor's cache. See the benchmark cost-speed.
        found, divisors = [], []
        distance = Levenshtein.distance if family == "levenshtein" else _ter
        for response, edit in zip(cut(responses), cut(edits), strict=True):
            found.append(distance(response, edit))
            divisors.append(divisor(response, edit))
        return np.array(found, np.float64) / np.array(divisors, np.float64)

    return Cost(name, distances)


def _ter(response: Sequence[str], edit: Sequence[str]) -> int:
    requires("ter")
    from sacrebleu.metrics.lib_ter import translation_edit_rate

    edits, _ = translation_edit_rate(list(response), list(edit))
    return int(edits)


def _installed(name: str) -> Cost:
    """The cost of an installed package.

    Raises:
        CostError: There is none of that name, or it cannot be loaded.
    """
    found = {each.name: each for each in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        own = sorted({*_registered, *found})
        raise CostError(
            "unknown cost",
            seen=name,
            do=f"use levenshtein:UNIT/NORMALISER, unit {'|'.join(UNITS['levenshtein'])}, normaliser "
            f"{'|'.join(DIVISORS)}; ter:word/NORMALISER; semantic:ENCODER{'; or one of ' * bool(own)}"
            f"{', '.join(own)}",
        )
    try:
        function = found[name].load()
    except Exception as error:  # whatever the package makes of being imported
        raise CostError(f"the cost of {found[name].value} cannot be loaded", seen=str(error)) from error
    return Cost(name, function)


def register_cost(name: str, function: CostFunction) -> Cost:
    """Add a cost of one's own for `get_cost`, in this process.

    Raises:
        CostError: The name is empty, built in or taken by another function.
    """
    if not name or name.startswith(tuple(f"{family}:" for family in (*UNITS, SEMANTIC))):
        raise CostError("this name is not free for a cost", seen=name, do="choose another name")
    if _registered.setdefault(name, function) is not function:
        raise CostError("this name already has a cost", seen=name, do="choose another name")
    return Cost(name, function)
