"""What a code agent is asked: a request, the code as it is, and what is hidden, how it should be.

=========== ==============================================================================================
stratum     what is asked
=========== ==============================================================================================
`modify`    the code, in the style of its repository, has a bug or follows an older rule; the request says
            what it should do
`refactor`  the code does what it should, in another style; the request does not say in which
`mixed`     both
=========== ==============================================================================================

The style that is wanted depends on the repository alone, whose kind shows in the path and is never explained.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from editloop.errors import ConfigError
from editloop.lab.code.faults import draw_kind, faulty_by
from editloop.lab.code.language import (
    DIGITS,
    FINISHES,
    GUARDS,
    NONE,
    OPERATIONS,
    PARAMETERS,
    SCALAR,
    SEQUENCE,
    SHAPES,
    STYLE,
    Shape,
    canonical,
    operation_of,
    operations,
    parse,
    render,
    shape_of,
)
from editloop.users import Draft

__all__ = ["NAMES", "STRATA", "Task", "draw_task", "read_task", "write_request"]

STRATA: Mapping[str, tuple[str, ...]] = {
    "modify": ("Fix", "Change"),
    "refactor": ("Refactor", "Clean"),
    "mixed": ("Rework", "Rewrite"),
}
"""The verbs by which a request says what is wanted."""

NAMES = (
    *("pick", "tally", "collect", "reduce", "scan", "gather", "select", "digest"),
    *("brief", "trim", "sift", "weigh", "merge", "glean", "pack", "screen"),
)
"""What functions are called."""

_GATHERS = {"sum": "Sum", "count": "Count", "list": "List", "join": "Join"}
_KEEPS = {
    "above": "above {by}",
    "from": "from {by}",
    "below": "below {by}",
    "upto": "up to {by}",
    "even": "that are even",
    "odd": "that are odd",
    "longer": "longer than {by}",
    "atleast": "of {by} or more",
    "shorter": "shorter than {by}",
    "capital": "with a capital",
    "small": "without a capital",
    "vowel": "that are vowels",
    "digit": "that are digits",
}
_CHANGES = {
    "times": "times {by}",
    "plus": "plus {by}",
    "minus": "minus {by}",
    "squared": "squared",
    "absolute": "without sign",
    "upper": "in capitals",
    "lower": "in lower case",
    "reversed": "turned around",
    "start": "only {by} at the start",
    "end": "only {by} at the end",
}
_FINISHES = {
    "cap": "at most {by}",
    "floor": "at least {by}",
    "modulo": "modulo {by}",
    "first": "the first {by}",
    "last": "the last {by}",
    "sorted": "sorted",
    "backwards": "backwards",
}
_WORDS = {"keep": _KEEPS, "change": _CHANGES, "finish": _FINISHES}
_GUARDS = {guard: f"if empty {value}" for guard, value in GUARDS.items()}


@dataclass(frozen=True)
class Task:
    """What is asked of a code agent.

    Attributes:
        kind: The kind of the repository, on which the wanted style depends.
        stratum: One of `STRATA`.
        current: The code as it is.
        wanted: The function that does what is asked; of its parts of style, nothing is meant.
    """

    kind: str
    stratum: str
    current: Draft
    wanted: Draft


def draw_task(styles: Mapping[str, Draft], generator: random.Random) -> tuple[Task, str]:
    """Draw a task and return it with its context.

    Args:
        styles: By kind of repository, the style that is wanted there.
        generator: Draws everything.
    """
    kind, stratum = generator.choice(list(styles)), generator.choice(list(STRATA))
    wanted = current = canonical({**_draw_function(generator), **styles[kind]})
    if stratum != "refactor":
        # The bug first: functions are drawn until one can have it, so that the kinds keep their shares.
        fault = draw_kind(generator)
        while (broken := faulty_by(fault, wanted, generator)) is None:
            wanted = canonical({**_draw_function(generator), **styles[kind]})
        current = broken
    if stratum != "modify":
        # At least one part of the style is another one, and on average half of them are.
        while True:
            drawn = {part: generator.choice(values) for part, values in STYLE.items()}
            restyled = canonical({**current, **drawn})
            if render(restyled) != render(canonical({**current, **styles[kind]})):
                current = restyled
                break
    verb = generator.choice(STRATA[stratum])
    return Task(kind, stratum, current, wanted), write_request(kind, verb, current, wanted)


def write_request(kind: str, verb: str, current: Draft, wanted: Draft) -> str:
    """Return the context of a task: the request in one line, and the code as it is."""
    says = "" if verb in STRATA["refactor"] else f" {_sentence(wanted)}"
    return f"{verb} {kind}/{wanted['name']}.{says}\n{render(current)}"


@lru_cache(maxsize=10_000)
def read_task(context: str, kinds: tuple[str, ...]) -> Task:
    """Return the task of a context.

    Raises:
        ConfigError: The context is not of this world.
    """
    line, _, code = context.partition("\n")
    match = _REQUEST.fullmatch(line)
    current = parse(code)
    stratum = next((name for name, verbs in STRATA.items() if match and match["verb"] in verbs), None)
    if match and current and stratum and match["kind"] in kinds and match["name"] == current["name"]:
        wanted = current if stratum == "refactor" else _said(match["says"] or "", current)
        if wanted is not None:
            return Task(match["kind"], stratum, current, wanted)
    raise ConfigError("not a context of the code domain", seen=context)


_REQUEST = re.compile(r"(?P<verb>[A-Z][a-z]+) (?P<kind>[a-z]+)/(?P<name>[a-z]+)\.(?: (?P<says>.*))?")


def _sentence(draft: Draft) -> str:
    """What a function does, in words."""
    said = {name: _WORDS[name].get(draft[name], "").format(by=draft[f"{name}_by"]) for name in OPERATIONS}
    keep, change, finish = said["keep"], said["change"], said["finish"]
    text = f"{_GATHERS[draft['gather']]} {shape_of(draft).items}" + (f" {keep}" if keep else "")
    text += (f", {change}" if change else "") + (f"; {finish}" if finish else "")
    return text + (f"; {_GUARDS[draft['guard']]}" if draft["guard"] != NONE else "") + "."


def _said(sentence: str, current: Draft) -> dict[str, str] | None:
    """The function that a sentence describes, with the style of the code as it is; None if it is none."""
    first, *parts = sentence.removesuffix(".").split("; ")
    first, _, change = first.partition(", ")
    verb, _, rest = first.partition(" ")
    items, _, keep = rest.partition(" ")
    shape = next((name for name, each in SHAPES.items() if each.items == items), None)
    gather = next((name for name, each in _GATHERS.items() if each == verb), None)
    if shape is None or gather is None:
        return None
    found = {**current, "shape": shape, "gather": gather, "guard": NONE}
    for guard, said in _GUARDS.items():
        if said in parts:
            parts.remove(said)
            found["guard"] = guard
    texts = {"keep": keep, "change": change, "finish": parts[0] if parts else ""}
    for name, known in operations(SHAPES[shape]).items():
        phrases = {value: _WORDS[name][value] for value in known}
        found |= operation_of(name, phrases, texts[name])
    found = canonical(found)
    return found if _sentence(found) == sentence else None


def _draw_function(generator: random.Random) -> dict[str, str]:
    """A function that makes sense, with at least one operation, and parameters that it uses."""
    name, shape = generator.choice(list(SHAPES.items()))
    draft = {"shape": name, "name": generator.choice(NAMES), "gather": generator.choice(shape.gathers)}
    draft["guard"] = generator.choice((*GUARDS, *(NONE,) * 3))
    chosen = _draw_operations(shape, draft["gather"], generator)
    parametrised = [each for each, template in chosen.items() if "{by}" in template[1]]
    generator.shuffle(parametrised)
    parameters = dict(zip(parametrised, PARAMETERS[: generator.randint(0, 2)], strict=False))
    for operation in OPERATIONS:
        value, template = chosen.get(operation, (NONE, ""))
        by = parameters.get(operation) or generator.choice(DIGITS)
        draft |= {operation: value, f"{operation}_by": by if "{by}" in template else NONE}
    # In the order of the signature, whichever operation has which.
    draft["signature"] = "".join(f", {each}" for each in PARAMETERS if each in parameters.values())
    return draft


def _draw_operations(shape: Shape, gather: str, generator: random.Random) -> dict[str, tuple[str, str]]:
    """Some operations, each with its template; one at least."""
    fitting = (
        SCALAR
        if gather in ("sum", "count")
        else [each for each in SEQUENCE if each != "sorted" or gather == "list"]
    )
    known = {
        "keep": (0.75, shape.keeps),
        "change": (0.0 if gather == "count" else 0.6, shape.changes),
        "finish": (0.5, {each: FINISHES[each] for each in fitting}),
    }
    while True:
        chosen = {
            name: generator.choice(list(templates.items()))
            for name, (probability, templates) in known.items()
            if generator.random() < probability
        }
        if chosen:
            return chosen
