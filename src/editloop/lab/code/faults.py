"""How code goes wrong: the kinds of bugs that people put into the functions of HumanEvalFix, with their
shares.

Each kind changes parts of a right function. Whatever it makes, tests can tell it from the right one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from editloop.lab.code.behaviour import differ
from editloop.lab.code.language import (
    DIGITS,
    FINISHES,
    GUARDS,
    NONE,
    OPERATIONS,
    SCALAR,
    SEQUENCE,
    canonical,
    operations,
    parameters_of,
    shape_of,
)
from editloop.users import Draft

__all__ = ["FAULTS", "Fault", "draw_kind", "faulty", "faulty_by"]

Changed = Iterator[Mapping[str, str]]
"""The parts that change, in each way in which a kind of bug can be put into a function."""


class Fault(NamedTuple):
    """A kind of bug.

    Attributes:
        share: How many of the 164 bugs of HumanEvalFix are of this kind.
        changes: Yields, for a right function, the parts that become others.
    """

    share: int
    changes: Callable[[Draft], Changed]


def _value(draft: Draft) -> Changed:
    for name in OPERATIONS:
        if draft[f"{name}_by"] in DIGITS:
            yield from ({f"{name}_by": digit} for digit in DIGITS if digit != draft[f"{name}_by"])
    if draft["guard"] != NONE:
        yield from ({"guard": guard} for guard in GUARDS if guard != draft["guard"])


def _missing(draft: Draft) -> Changed:
    yield from ({name: NONE} for name in ("guard", *OPERATIONS) if draft[name] != NONE)


def _excess(draft: Draft) -> Changed:
    if draft["guard"] == NONE:
        yield from ({"guard": guard} for guard in GUARDS)
    for name, templates in operations(shape_of(draft)).items():
        if draft[name] == NONE and not (name == "change" and draft["gather"] == "count"):
            fitting = _fitting(draft) if name == "finish" else templates
            yield from ({name: each, f"{name}_by": digit} for each in fitting for digit in DIGITS)


_OPERATORS = (
    *(("above", "from"), ("below", "upto"), ("above", "below"), ("from", "upto"), ("even", "odd")),
    *(
        ("times", "plus"),
        ("plus", "minus"),
        ("longer", "atleast"),
        ("longer", "shorter"),
        ("capital", "small"),
    ),
)
_FUNCTIONS = (
    *(("cap", "floor"), ("upper", "lower"), ("first", "last"), ("start", "end"), ("sorted", "backwards")),
    *(("sum", "count"), ("list", "count"), ("digit", "capital"), ("squared", "absolute")),
)


def _swapped(draft: Draft, pairs: tuple[tuple[str, str], ...]) -> Changed:
    for part in (*OPERATIONS, "gather"):
        for one, other in pairs:
            if draft[part] in (one, other):
                yield {part: other if draft[part] == one else one}


def _variable(draft: Draft) -> Changed:
    known = parameters_of(draft)
    for name in OPERATIONS:
        if draft[f"{name}_by"] != NONE:
            yield from ({f"{name}_by": each} for each in known if each != draft[f"{name}_by"])


FAULTS: Mapping[str, Fault] = {
    "value": Fault(44, _value),
    "missing": Fault(33, _missing),
    "excess": Fault(31, _excess),
    "operator": Fault(25, lambda draft: _swapped(draft, _OPERATORS)),
    "variable": Fault(23, _variable),
    "function": Fault(8, lambda draft: _swapped(draft, _FUNCTIONS)),
}


def faulty(draft: Draft, generator: random.Random) -> dict[str, str]:
    """Return a function with a bug, whose kind is drawn by its share among those that it can have."""
    kinds = dict(FAULTS)
    while kinds:
        kind = draw_kind(generator, kinds)
        del kinds[kind]
        if (made := faulty_by(kind, draft, generator)) is not None:
            return made
    raise AssertionError(f"nothing can go wrong with {dict(draft)}")  # every function can lose its operation


def faulty_by(kind: str, draft: Draft, generator: random.Random) -> dict[str, str] | None:
    """Return a function with a bug of a kind that a test could see; None if the function cannot have one."""
    changes = list(FAULTS[kind].changes(draft))
    generator.shuffle(changes)
    made = (canonical({**draft, **change}) for change in changes)
    return next((each for each in made if differ(draft, each)), None)


def draw_kind(generator: random.Random, kinds: Mapping[str, Fault] = FAULTS) -> str:
    """Draw one of some kinds of bugs by its share among them."""
    (kind,) = generator.choices(list(kinds), [fault.share for fault in kinds.values()])
    return kind


def _fitting(draft: Draft) -> tuple[str, ...]:
    """What can be done in the end with what is gathered."""
    if draft["gather"] in ("sum", "count"):
        return SCALAR
    return tuple(each for each in FINISHES if each in SEQUENCE)
