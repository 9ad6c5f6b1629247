"""What a cost Δ(y, y') is: a named function of responses and edits that declares what its numbers mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editloop.errors import CostError

if TYPE_CHECKING:
    from editloop.edits.cost.breakdown import AlignedCost

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
        unit: What is counted: `word`, `character`, `token`, or whatever else the numbers measure.
        normaliser: What the count is divided by: `response`, `edit`, `longest` (the longer of the two), or
            `none`.
        scale: A typical large cost, to which the bandit's exploration is proportional: 1 for normalised
            costs; None if it depends on the log.
        bounded: Whether no cost exceeds `scale`.
        label: What the numbers are, for the axis of a plot. If it is empty, the name is shown.
        breakdown: Breaks the cost of a response and its edit down into its parts, for a redline; it returns
            None for texts that are too long. None if the cost is no sum over an alignment.
    """

    name: str
    function: CostFunction
    unit: str = ""
    normaliser: str = "none"
    scale: float | None = None
    bounded: bool = False
    label: str = ""
    breakdown: AlignedCost | None = None

    def __call__(self, responses: Sequence[str], edits: Sequence[str]) -> NDArray[np.float64]:
        """Return the cost of each pair, float64 [n].

        Raises:
            CostError: The two sides differ in length, or the function did not return n finite numbers.
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
                f"the cost {self.name} returned the wrong shape",
                seen=values.shape,
                do=f"return {len(responses)} numbers",
            )
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise CostError(
                f"the cost {self.name} is not finite", seen=responses[row], do="return finite numbers"
            )
        return values


@dataclass(frozen=True)
class CostFamily:
    """Costs whose names begin alike, `FAMILY:REST`.

    Attributes:
        pattern: What the names look like, for the message about an unknown one.
        make: Makes a cost from the whole name, its REST, and the policy's tokenizer or None; returns None for
            a REST that it does not know. It must also make a cost whose unit is `token` without a tokenizer,
            for what that cost declares.
    """

    pattern: str
    make: Callable[[str, str, Tokenize | None], Cost | None]
