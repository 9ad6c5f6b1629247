"""The little language: Python functions over numbers, words and letters, each taken apart into its parts.

A function walks over a collection, keeps some of its items, changes each, gathers them, and finishes what it
gathered. What it does is in its parts of behaviour, how it reads in its parts of style. `render` writes it,
and `parse` reads exactly what `render` writes, so the language is closed: everything else is not of it.

======== =========================== ==========================================================
part     behaviour                   of numbers, for example
======== =========================== ==========================================================
guard    what an empty one gives     `if not values: return -1`
keep     which items                 `if value > 3`, with the operand `3` or a parameter
change   what becomes of each        `value * 2`
gather   what they are gathered in   `result += value`, a count, a list, a text
finish   what is done in the end     `min(result, 9)`
======== =========================== ==========================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from keyword import iskeyword

from editloop.users import Draft

__all__ = [
    "BEHAVIOUR",
    "DIGITS",
    "FINISHES",
    "GATHERED",
    "GUARDS",
    "NONE",
    "OPERANDS",
    "OPERATIONS",
    "PARAMETERS",
    "PLAIN",
    "SCALAR",
    "SEQUENCE",
    "SHAPES",
    "STYLE",
    "Shape",
    "canonical",
    "operation_of",
    "operations",
    "parameters_of",
    "parse",
    "render",
    "shape_of",
]

NONE = "none"

PARAMETERS = ("limit", "step")
"""Parameters beside the collection, in the order of the signature, which has none, the first, or both."""

DIGITS = tuple("23456789")

OPERANDS = (*DIGITS, *PARAMETERS)
"""What an operation with an operand may have."""

OPERATIONS = ("keep", "change", "finish")
"""The parts that may have an operand, which is a part of its own: `keep_by`, `change_by`, `finish_by`."""

BEHAVIOUR = ("guard", "keep", "keep_by", "change", "change_by", "gather", "finish", "finish_by")
"""The parts on which it depends what a function does."""

STYLE: Mapping[str, tuple[str, ...]] = {
    "names": ("plain", "short", "telling"),
    "form": ("loop", "comprehension"),
    "exits": ("early", "single"),
    "docstring": ("no", "yes"),
    "hints": ("no", "yes"),
}
"""The parts on which it depends how a function reads, and the values of each."""

PLAIN: Mapping[str, str] = {part: values[0] for part, values in STYLE.items()}
"""The first value of each part of style, where style is of no importance."""

GUARDS = {"minus": "-1", "nothing": "None"}

GATHERED = {
    "sum": ("0", "{r} += {value}", "sum({value} for {rest})"),
    "count": ("0", "{r} += 1", "sum(1 for {rest})"),
    "list": ("[]", "{r}.append({value})", "[{value} for {rest}]"),
    "join": ('""', "{r} += {value}", '"".join({value} for {rest})'),
}
"""For each way to gather: what a loop begins with, its step, and the comprehension."""

FINISHES = {
    "cap": "min({r}, {by})",
    "floor": "max({r}, {by})",
    "modulo": "{r} % {by}",
    "first": "{r}[:{by}]",
    "last": "{r}[-{by}:]",
    "sorted": "sorted({r})",
    "backwards": "{r}[::-1]",
}
SCALAR, SEQUENCE = ("cap", "floor", "modulo"), ("first", "last", "backwards", "sorted")


@dataclass(frozen=True)
class Shape:
    """What a kind of collection is called, and what can be done with its items.

    Attributes:
        items: What the items are called in a request.
        names: For each way of naming, the names of collection, item and result.
        hint: The type of the collection.
        keeps: For each condition, its template.
        changes: For each change of an item, its template.
        gathers: How items can be gathered so that it makes sense.
    """

    items: str
    names: Mapping[str, tuple[str, str, str]]
    hint: str
    keeps: Mapping[str, str]
    changes: Mapping[str, str]
    gathers: tuple[str, ...]


SHAPES: Mapping[str, Shape] = {
    "numbers": Shape(
        "numbers",
        {
            "plain": ("values", "value", "result"),
            "short": ("xs", "x", "r"),
            "telling": ("numbers", "number", "found"),
        },
        "list[int]",
        {
            "above": "{x} > {by}",
            "from": "{x} >= {by}",
            "below": "{x} < {by}",
            "upto": "{x} <= {by}",
            "even": "{x} % 2 == 0",
            "odd": "{x} % 2 == 1",
        },
        {
            "times": "{x} * {by}",
            "plus": "{x} + {by}",
            "minus": "{x} - {by}",
            "squared": "{x} ** 2",
            "absolute": "abs({x})",
        },
        ("sum", "count", "list"),
    ),
    "words": Shape(
        "words",
        {
            "plain": ("items", "item", "result"),
            "short": ("ws", "w", "r"),
            "telling": ("words", "word", "found"),
        },
        "list[str]",
        {
            "longer": "len({x}) > {by}",
            "atleast": "len({x}) >= {by}",
            "shorter": "len({x}) < {by}",
            "capital": "{x}[0].isupper()",
            "small": "{x}[0].islower()",
        },
        {
            "upper": "{x}.upper()",
            "lower": "{x}.lower()",
            "reversed": "{x}[::-1]",
            "start": "{x}[:{by}]",
            "end": "{x}[-{by}:]",
        },
        ("list", "count", "join"),
    ),
    "letters": Shape(
        "letters",
        {
            "plain": ("text", "letter", "result"),
            "short": ("s", "c", "r"),
            "telling": ("message", "sign", "kept"),
        },
        "str",
        {
            "vowel": '{x} in "aeiou"',
            "digit": "{x}.isdigit()",
            "capital": "{x}.isupper()",
            "small": "{x}.islower()",
        },
        {"upper": "{x}.upper()", "lower": "{x}.lower()", "times": "{x} * {by}"},
        ("join", "count", "list"),
    ),
}

INDENT = "    "


def operations(shape: Shape) -> dict[str, Mapping[str, str]]:
    """For each of `OPERATIONS`, the templates of a shape."""
    return {"keep": shape.keeps, "change": shape.changes, "finish": FINISHES}


def shape_of(draft: Draft) -> Shape:
    """Return the shape of a function's collection."""
    return SHAPES[draft["shape"]]


def canonical(draft: Mapping[str, str]) -> dict[str, str]:
    """Return the parts as `parse` finds them: without those that do not show in the text.

    An operation that the shape does not have is none, and so is one that lacks its operand; one that takes no
    operand has none, a count does not show how items are changed, and without a guard and a finish a
    function has one exit, however it is written.
    """
    found, shape = dict(draft), shape_of(draft)
    if found["gather"] == "count":
        found["change"] = NONE
    for name, known in operations(shape).items():
        template = known.get(found[name], "")
        if "{by}" not in template:
            found[f"{name}_by"] = NONE
        elif found[f"{name}_by"] == NONE:
            template = ""
        found[name] = found[name] if template else NONE
    if found["guard"] == NONE and found["finish"] == NONE:
        found["exits"] = "early"
    return found


def render(draft: Draft) -> str:
    """Return the text of a function, without a line break at its end."""
    shape = shape_of(draft)
    xs, x, r = shape.names[draft["names"]]
    lines = [f"def {draft['name']}({_signature(draft, xs, shape)}):"]
    if draft["docstring"] == "yes":
        lines.append(f'{INDENT}"""Take {shape.items}."""')
    gathering = _gathering(draft, shape, xs, x, r)
    finish = _filled(FINISHES, draft, "finish", r=r)
    guard = GUARDS.get(draft["guard"])
    if draft["exits"] == "early":
        checked = [f"if not {xs}:", f"{INDENT}return {guard}"] if guard else []
        body = [*checked, *gathering, f"return {finish or r}"]
    else:
        work = [*gathering, *([f"{r} = {finish}"] if finish else [])]
        if guard:
            work = [f"if {xs}:", *(INDENT + line for line in work), "else:", f"{INDENT}{r} = {guard}"]
        body = [*work, f"return {r}"]
    return "\n".join([*lines, *(INDENT + line for line in body)])


def parse(text: str) -> dict[str, str] | None:
    """Return the parts of which `render` makes exactly this text; None if it is not of the language.

    Lines are read by their place, whatever they hold. What makes it right is the comparison at the end, and
    the text is never run.
    """
    head = _HEAD.match(text)
    if head is None or iskeyword(head["name"]):
        return None
    for shape_name, shape in SHAPES.items():
        for naming, (xs, x, r) in shape.names.items():
            if head["collection"] == xs and f" for {x} in {xs}" in text:
                try:
                    draft = _read(text[head.end() :].split("\n"), shape, xs, x, r)
                except (IndexError, ValueError):  # a line is missing
                    return None
                draft |= {"shape": shape_name, "names": naming, "name": head["name"]}
                draft["signature"] = "".join(f", {each}" for each in PARAMETERS if f", {each}" in head[0])
                draft["hints"] = "yes" if ": " in head[0] else "no"
                return draft if render(draft) == text else None
    return None


_HEAD = re.compile(r"def (?P<name>[a-z]+)\((?P<collection>[a-z]+)[^\n]*\):\n")


def _signature(draft: Draft, xs: str, shape: Shape) -> str:
    if draft["hints"] == "no":
        return xs + draft["signature"]
    return f"{xs}: {shape.hint}" + "".join(f", {each}: int" for each in parameters_of(draft))


def parameters_of(draft: Draft) -> list[str]:
    """Return the parameters of a function beside the collection."""
    return draft["signature"].split(", ")[1:]


def _gathering(draft: Draft, shape: Shape, xs: str, x: str, r: str) -> list[str]:
    """The lines that gather the items."""
    begin, step, comprehension = GATHERED[draft["gather"]]
    value = _filled(shape.changes, draft, "change", x=x) or x
    condition = _filled(shape.keeps, draft, "keep", x=x)
    if draft["form"] == "comprehension":
        rest = f"{x} in {xs}" + (f" if {condition}" if condition else "")
        return [f"{r} = {comprehension.format(value=value, rest=rest)}"]
    step = step.format(r=r, value=value)
    inner = [f"if {condition}:", INDENT + step] if condition else [step]
    return [f"{r} = {begin}", f"for {x} in {xs}:", *(INDENT + line for line in inner)]


def _filled(templates: Mapping[str, str], draft: Draft, name: str, **names: str) -> str:
    """The template of an operation with its names and operand; empty if there is no such operation."""
    template = templates.get(draft[name])
    return template.format(**names, by=draft[f"{name}_by"]) if template else ""


def _read(lines: list[str], shape: Shape, xs: str, x: str, r: str) -> dict[str, str]:
    """The parts that the lines after the head have, if they are of the language with these names."""
    found = {"docstring": "yes" if '"""' in lines[0] else "no", "exits": "early", "guard": NONE}
    body = [line[len(INDENT) :] for line in lines[found["docstring"] == "yes" :]]
    if body[0] == f"if not {xs}:":
        found["guard"], body = _guard(body[1]), body[2:]
    elif body[0] == f"if {xs}:":
        end = body.index("else:")
        found |= {"exits": "single", "guard": _guard(body[end + 1])}
        body = [line[len(INDENT) :] for line in body[1:end]] + body[end + 2 :]
    if body[1].startswith("for "):
        condition = body[2].removeprefix(f"{INDENT}if ")[:-1] if body[2].endswith(":") else ""
        size = 4 if condition else 3
        gather, value = _gathered(body[size - 1].strip(), 1, r, body[0])
        found["form"] = "loop"
    else:
        body[0], _, condition = body[0].partition(" if ")
        closed = body[0] if not condition else body[0] + condition[-1]
        gather, value = _gathered(closed.removeprefix(f"{r} = "), 2, r, "")
        condition, size = condition[:-1], 1
        found["form"] = "comprehension"
    rest = body[size:]
    if len(rest) == 2:
        found["exits"] = "single"
    finish = rest[0].removeprefix(f"{r} = ").removeprefix("return ")
    found["gather"] = gather
    for name, seen in {"keep": condition, "change": value, "finish": finish}.items():
        found |= operation_of(name, operations(shape)[name], seen, x=x, r=r)
    return found


def _guard(line: str) -> str:
    """The guard that gives what a line ends with."""
    return next((name for name, value in GUARDS.items() if line.endswith(f" {value}")), NONE)


def _gathered(text: str, column: int, r: str, begin: str) -> tuple[str, str]:
    """The way to gather of which a step (column 1) or a comprehension (column 2) is made, and the value in
    it."""
    for name in ("count", "sum", "list", "join"):  # a sum of ones is a count
        pattern = re.escape(GATHERED[name][column].format(r=r, value="\0", rest="\1"))
        match = re.fullmatch(pattern.replace("\0", "(.+?)").replace("\1", ".+"), text)
        if match and (column == 2 or begin == f"{r} = {GATHERED[name][0]}"):
            return name, match[1] if match.groups() else ""
    raise ValueError(text)


def operation_of(name: str, templates: Mapping[str, str], text: str, **names: str) -> dict[str, str]:
    """Return the parts of an operation of which a text is made; none of them if it is made of no template.

    Args:
        name: The operation, one of `OPERATIONS`.
        templates: By the operation's value, its template, with an operand `{by}` or none.
        text: The text.
        **names: The words of the templates beside `by`.
    """
    for operation, template in templates.items():
        pattern = re.escape(template.format(**names, by="\0")).replace("\0", f"({'|'.join(OPERANDS)})")
        if match := re.fullmatch(pattern, text):
            return {name: operation, f"{name}_by": match[1] if match.groups() else NONE}
    return {name: NONE, f"{name}_by": NONE}
