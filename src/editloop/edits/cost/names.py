"""Costs by name: those of the built-in families, and those that programs and installed packages add."""

from __future__ import annotations

from typing import Any

from editloop.edits.cost.base import Cost, CostFamily, CostFunction, Tokenize
from editloop.errors import CostError
from editloop.registry import Registry

__all__ = ["COSTS", "DEFAULT_COST", "PAPER_COST", "describe_cost", "get_cost", "register_cost"]

DEFAULT_COST = "alignment:word"
"""The cost of reports and of learning: bounded, and of the built-in costs the one that length cannot lower.

The design page has the comparison.
"""

PAPER_COST = "levenshtein:word/response"
"""The cost of the paper, for its tables, and of whatever an older version saved without a cost's name."""

COSTS: Registry[Any] = Registry(
    "cost",
    "editloop.costs",
    {
        "levenshtein": "editloop.edits.cost.levenshtein:LEVENSHTEIN",
        "alignment": "editloop.edits.cost.alignment:ALIGNMENT",
        "ter": "editloop.edits.cost.ter:TER",
        "semantic": "editloop.edits.cost.semantic:SEMANTIC",
    },
    error=CostError,
)
"""Each part is a `Cost`, a function of responses and edits, or a `CostFamily`."""


def get_cost(name: str = DEFAULT_COST, tokenize: Tokenize | None = None) -> Cost:
    """Return the cost of that name.

    An empty side has length 0; the normalisers divide by at least 1, so that Δ("", y') is |y'| and
    Δ("", "") is 0.

    Args:
        name: `levenshtein:UNIT/NORMALISER`, `alignment:UNIT`, `ter:word/NORMALISER`, `semantic:ENCODER`, a
            registered name, or the name of a cost of an installed package.
        tokenize: The policy's tokenizer; only the unit `token` needs it.

    Raises:
        CostError: The name is unknown, or the unit is `token` and there is no `tokenize`.
    """
    cost = _make(name, tokenize)
    if cost.unit == "token" and tokenize is None:
        raise CostError(
            "the unit token needs the policy's tokenizer",
            seen=name,
            do="give tokenize=, or use the unit word",
        )
    return cost


def describe_cost(name: str) -> Cost:
    """Return a cost to read what it declares (unit, scale, bound). Its numbers may need a tokenizer.

    Raises:
        CostError: The name is unknown.
    """
    return _make(name, None)


def register_cost(
    name: str,
    function: CostFunction,
    *,
    unit: str = "",
    normaliser: str = "none",
    scale: float | None = None,
    bounded: bool = False,
    label: str = "",
) -> Cost:
    """Add a cost of one's own for `get_cost`, in this process. `Cost` describes the arguments.

    Raises:
        CostError: The name is empty, that of a built-in family, or taken by another cost.
    """
    if name.partition(":")[0] in COSTS.built_in:
        raise CostError("this name is that of a built-in cost", seen=name, do="choose another name")
    cost = Cost(name, function, unit, normaliser, scale, bounded, label)
    # Equal, not identical: a notebook's cell that is run again must not raise an error.
    if COSTS.registered.get(name) == cost:
        return cost
    registered: Cost = COSTS.register(name, cost)
    return registered


def _make(name: str, tokenize: Tokenize | None) -> Cost:
    family, _, rest = name.partition(":")
    # The whole name comes first, as a cost of one's own may have a colon in it. Built-in families come before
    # what is installed, because searching the installed packages takes some milliseconds.
    if name in COSTS.registered:
        names = [name]
    else:
        names = [family, name] if family in COSTS.built_in else [name, family]
    part = next((COSTS.get(each) for each in names if each in COSTS), None)
    if isinstance(part, CostFamily):
        part = part.make(name, rest, tokenize)
    if part is None:
        raise CostError("unknown cost", seen=name, do=f"use {'; '.join(_patterns())}")
    return part if isinstance(part, Cost) else Cost(name, part)


def _patterns() -> list[str]:
    """Return what a name can be: the patterns of the built-in families, then all other names."""
    built_in = {name: COSTS.get(name) for name in COSTS.built_in}
    families = {name: part for name, part in built_in.items() if isinstance(part, CostFamily)}
    others = [name for name in COSTS if name not in families]
    return [part.pattern for part in families.values()] + (
        [f"or one of {', '.join(others)}"] if others else []
    )
