"""The cost of an edit, Δ(y, y'), by name: `FAMILY:UNIT/NORMALISER`, or a cost of one's own.

`alignment` is the share of a draft that an edit took away, in [0, 1]; it is the default. `levenshtein` counts
inserted, deleted and replaced units; `ter` counts a moved stretch of words as one edit.
Units are `word` (separated by white space), `char` (code points) and `token` (the policy's own tokens);
normalisers are `response` (divide by |y|, so values above 1 occur), `edit` (by |y'|), `longest` (by
max(|y|, |y'|)) and `none`. `semantic:ENCODER` is the distance of the meanings, by a sentence encoder.

A cost of one's own is registered in the process with `register_cost`, or comes with an installed package that
names it in the entry point group `editloop.costs`: a `Cost`, a function, or a `CostFamily`. This package
loads no tokenizer; whoever asks for a cost with the unit `token` gives one.
"""

from editloop.edits.cost.base import Cost, CostFamily, CostFunction, Tokenize
from editloop.edits.cost.breakdown import AlignedCost, Alignment, Breakdown, UnitPrices
from editloop.edits.cost.names import (
    COSTS,
    DEFAULT_COST,
    PAPER_COST,
    describe_cost,
    get_cost,
    register_cost,
)
from editloop.edits.cost.unfinished import charge_unfinished

__all__ = [
    "COSTS",
    "DEFAULT_COST",
    "PAPER_COST",
    "AlignedCost",
    "Alignment",
    "Breakdown",
    "Cost",
    "CostFamily",
    "CostFunction",
    "Tokenize",
    "UnitPrices",
    "charge_unfinished",
    "describe_cost",
    "get_cost",
    "register_cost",
]
