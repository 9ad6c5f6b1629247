"""The little language: what `render` writes, `parse` reads, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_draft import DRAFT
from editloop.lab.code.language import (
    FINISHES,
    GATHERED,
    GUARDS,
    NONE,
    OPERANDS,
    SHAPES,
    STYLE,
    canonical,
    operations,
    parse,
    render,
)


@st.composite
def drafts(draw: st.DrawFn) -> dict[str, str]:
    """Functions of the language, also such that make no sense."""
    shape = draw(st.sampled_from(sorted(SHAPES)))
    draft = {
        "shape": shape,
        "name": draw(st.sampled_from(["pick", "tally"])),
        "signature": draw(st.sampled_from(["", ", limit", ", step", ", limit, step"])),
        "guard": draw(st.sampled_from([NONE, *GUARDS])),
        "gather": draw(st.sampled_from(sorted(GATHERED))),
    }
    for part, values in STYLE.items():
        draft[part] = draw(st.sampled_from(values))
    for name, templates in operations(SHAPES[shape]).items():
        draft[name] = draw(st.sampled_from([NONE, *templates]))
        draft[f"{name}_by"] = draw(st.sampled_from(OPERANDS))
    return canonical(draft)


def test_a_loop_with_an_early_return_reads_as_people_write_it():
    assert render(DRAFT) == (
        "def pick(values, limit):\n"
        "    if not values:\n"
        "        return -1\n"
        "    result = 0\n"
        "    for value in values:\n"
        "        if value > 3:\n"
        "            result += value * limit\n"
        "    return min(result, 9)"
    )


def test_the_same_function_in_another_style():
    style = {"names": "short", "form": "comprehension", "exits": "single", "docstring": "yes", "hints": "yes"}
    assert render({**DRAFT, **style}) == (
        "def pick(xs: list[int], limit: int):\n"
        '    """Take numbers."""\n'
        "    if xs:\n"
        "        r = sum(x * limit for x in xs if x > 3)\n"
        "        r = min(r, 9)\n"
        "    else:\n"
        "        r = -1\n"
        "    return r"
    )


@given(drafts())
def test_what_is_written_is_read_and_is_python(draft):
    text = render(draft)
    compile(text, "<draft>", "exec")
    assert parse(text) == draft


@given(drafts(), st.data())
def test_what_is_damaged_is_read_as_what_it_is_or_not_at_all(draft, data):
    text = render(draft)
    i = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:i] + data.draw(st.sampled_from(["", "x", " ", "\n", "9", ")", ":"])) + text[i + 1 :]
    found = parse(damaged)
    assert found is None or render(found) == damaged


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pick the numbers",
        "def pick(values):",
        "def pick(values):\n",
        "def pick(values):\n    return 1",
        "def pick(values):\n for value in values",
        "def pick(values):\n    for value in values:\n        __import__('os').system('true')",
        "import os\n" + render(DRAFT),
        render(DRAFT) + "\nimport os",
        render(DRAFT).replace("9", "10"),
        render(DRAFT).replace("min", "eval"),
        "\0",
        "\ud800",
        "def pick(values):\n" + "(" * 1_000_000,
    ],
)
def test_other_text_is_not_of_the_language(text):
    assert parse(text) is None


def test_what_does_not_show_is_not_a_part():
    shown = canonical({**DRAFT, "gather": "count", "keep": "even"})
    assert (shown["change"], shown["change_by"], shown["keep_by"]) == (NONE, NONE, NONE)
    # Without a guard and a finish, there is one exit, however it is written.
    bare = {**DRAFT, "guard": NONE, "finish": NONE}
    assert canonical({**bare, "exits": "single"}) == canonical({**bare, "exits": "early"})
    # A condition on numbers is none on words.
    assert canonical({**DRAFT, "shape": "words"})["keep"] == NONE


def test_every_shape_can_do_something_with_an_operand():
    for shape in SHAPES.values():
        assert any("{by}" in template for template in [*shape.changes.values(), *FINISHES.values()])
        assert set(shape.names) == set(STYLE["names"])
