"""What a cost Δ(y, y') is: a named function of responses and edits that declares what its numbers mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editloop.errors import CostError

__all__ = ["Cost", "CostFamily", "CostFunction", "Tokenize"]

CostFunction = Callable[[Sequence[str], Sequence[str]], ArrayLike]
"""Takes n responses and their n edits, and returns n finite numbers."""

Tokenize = Callable[[list[str]], list[list[int]]]
"""Turns texts into token ids, without the special tokens that open or close a text."""


@dataclass(frozen=True)
class Cost:
    """A named cost Δ. Called with n responses and their n edits, it returns n costs.

    What the numbers mean is declared here, so that nobody has to read it from the name.

    Attributes:
        name: What the cost is called in logs, reports, stores and run folders.
        function: Computes it.
        unit: What is counted: `word`, `character`, `token`, or what else the numbers measure.
        normaliser: What the count is divided by: `response`, `edit`, `longest` (the longer of the two), or
            `none`.
        scale: A typical large cost, which the bandit's exploration is proportional to: 1 for normalised
            costs; None if it depends on the log.
        bounded: Whether no cost exceeds `scale`.
        label: What the numbers are, for the axis of a plot; the name where it is empty.
    """

    name: str
    function: CostFunction
    unit: str = ""
    normaliser: str = "none"
    scale: float | None = None
    bounded: bool = False
    label: str = ""

    def __call__(self, responses: Sequence[str], edits: Sequence[str]) -> NDArray[np.float64]:
        """Return the cost of each pair, float64 [n].

        Raises:
            CostError: The two sides differ in length, or the function gave anything but n finite numbers.
        """
        if len(responses) != len(edits):
            raise CostError(
                "responses and edits differ in number",
                seen=(len(responses), len(edits)),
                do="give one edit for each response",
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


@dataclass(frozen=True)
class CostFamily:
    """Costs whose names begin alike, `FAMILY:REST`.

    Attributes:
        pattern: The names, for the message about an unknown one.
        make: From the whole name, its rest, and the policy's tokenizer, if there is one, makes the cost; None
            if the rest is not understood. A cost whose unit is `token` is made without a tokenizer, too, to
            say what it declares.
    """

    pattern: str
    make: Callable[[str, str, Tokenize | None], Cost | None]
