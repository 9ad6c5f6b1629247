"""What functions of the language do, and the tests by which that is seen.

A function is run here, in this process, and may be: its text is not what somebody wrote but what `render`
makes of parts, each of which is from a closed table. What is not of the language is never run outside a
sandbox.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from editloop.lab.code.language import (
    BEHAVIOUR,
    DIGITS,
    GATHERED,
    GUARDS,
    NONE,
    OPERATIONS,
    PARAMETERS,
    PLAIN,
    canonical,
    operations,
    parameters_of,
    render,
    shape_of,
)
from editloop.users import Draft

__all__ = ["Check", "checks_of", "differ", "mutants", "outcome", "passes"]

FEWEST_TESTS, MOST_TESTS = 5, 8

POOL = 60
"""The arguments of each shape among which tests are chosen."""

_BUILTINS = {"abs": abs, "len": len, "max": max, "min": min, "sorted": sorted, "sum": sum}

_WORDS = (
    "a",
    "Bob",
    "Eve",
    "kayak",
    "Lima",
    "moss",
    "Nine",
    "on",
    "oRb",
    "Quito",
    "sky",
    "TEN",
    "under",
    "Waterfall",
)
_LETTERS = "abeioutzABEOZ0379"


class Check(NamedTuple):
    """A call of a function: its arguments, and the `repr` of what it should give, or `raised NAME`."""

    arguments: tuple[Any, ...]
    expected: str


def outcome(draft: Draft, arguments: tuple[Any, ...]) -> str:
    """Return the `repr` of what a function gives for these arguments, or `raised NAME` for its exception."""
    try:
        return repr(_compiled(_behaviour(draft))(*arguments))
    except Exception as error:
        return f"raised {type(error).__name__}"


def differ(one: Draft, other: Draft) -> bool:
    """Return whether two functions, called as the first wants to be, give something different somewhere.

    They are compared on all arguments of the pool, among which tests are chosen.
    """
    if _behaviour(one) == _behaviour(other):
        return False
    return any(outcome(one, each) != outcome(other, each) for each in _arguments(one))


def checks_of(wanted: Draft) -> tuple[Check, ...]:
    """Return the tests of a function: few calls that tell it from every mutant that the pool can tell."""
    return _tests(_behaviour(wanted))


def passes(draft: Draft, wanted: Draft) -> bool:
    """Return whether a function passes the tests of another, which call it by that one's name."""
    if draft["name"] != wanted["name"]:
        return False
    if _behaviour(draft) == _behaviour(wanted):
        return True
    return all(outcome(draft, test.arguments) == test.expected for test in checks_of(wanted))


def mutants(draft: Draft) -> Iterator[dict[str, str]]:
    """Yield every function of which one part of behaviour is another one."""
    shape = shape_of(draft)
    values: dict[str, tuple[str, ...]] = {
        "guard": (NONE, *GUARDS),
        "gather": tuple(GATHERED),
        **{name: (NONE, *templates) for name, templates in operations(shape).items()},
        **{f"{name}_by": _operands(draft) for name in OPERATIONS},
    }
    seen = {_behaviour(draft)}
    for part in BEHAVIOUR:
        for value in values[part]:
            inserted = part in OPERATIONS and draft[f"{part}_by"] == NONE
            for operand in [{f"{part}_by": each} for each in _operands(draft)] if inserted else [{}]:
                made = canonical({**draft, part: value, **operand})
                if _behaviour(made) not in seen:
                    seen.add(_behaviour(made))
                    yield made


def _operands(draft: Draft) -> tuple[str, ...]:
    """The operands that are in scope in a function."""
    return (*DIGITS, *parameters_of(draft))


Behaviour = tuple[tuple[str, str], ...]


def _behaviour(draft: Draft) -> Behaviour:
    """The parts of a function on which it depends what it does, and nothing else, to look up what is
    known."""
    shown = canonical(draft)
    return tuple((part, shown[part]) for part in ("shape", "signature", *BEHAVIOUR))


@lru_cache(maxsize=50_000)
def _compiled(behaviour: Behaviour) -> Callable[..., Any]:
    names: dict[str, Any] = {"__builtins__": _BUILTINS}
    exec(render({**PLAIN, "name": "f", **dict(behaviour)}), names)
    found: Callable[..., Any] = names["f"]
    return found


@lru_cache(maxsize=20_000)
def _tests(behaviour: Behaviour) -> tuple[Check, ...]:
    wanted: Mapping[str, str] = dict(behaviour)
    pool = _arguments(wanted)
    expected = [outcome(wanted, each) for each in pool]
    caught = [
        {i for i, each in enumerate(pool) if outcome(mutant, each) != expected[i]}
        for mutant in mutants({**PLAIN, "name": "f", **wanted})
    ]
    left = [each for each in caught if each]
    chosen = [0]  # the empty collection
    left = [each for each in left if 0 not in each]
    while len(chosen) < MOST_TESTS and (left or len(chosen) < FEWEST_TESTS):
        # Of those that catch equally many, the first that is not chosen yet: more than one thing may be
        # wrong.
        best = max(range(len(pool)), key=lambda i: (sum(i in each for each in left), i not in chosen))
        chosen.append(best)
        left = [each for each in left if best not in each]
    return tuple(Check(pool[i], expected[i]) for i in chosen)


def _arguments(draft: Draft) -> tuple[tuple[Any, ...], ...]:
    """The pool of arguments of a function, of which the first collection is empty."""
    return _pool(draft["shape"], 1 + len(parameters_of(draft)))


@lru_cache
def _pool(shape: str, size: int) -> tuple[tuple[Any, ...], ...]:
    generator = random.Random(repr(("tests", shape)))
    drawn = []
    for i in range(POOL):
        n = 0 if i == 0 else generator.randint(1, 7)
        collection = {
            "numbers": [generator.randint(-9, 12) for _ in range(n)],
            "words": [generator.choice(_WORDS) for _ in range(n)],
            "letters": "".join(generator.choice(_LETTERS) for _ in range(n)),
        }[shape]
        # Parameters that differ, so that one in place of the other shows.
        drawn.append((collection, *generator.sample(range(1, 8), len(PARAMETERS)))[:size])
    return tuple(drawn)
