"""Edits of code, line by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from editloop.edits import diff_lines, reads_as_code

BEFORE = """def pick(values):
    result = 0
    for value in values:
        result += value
    return result"""
AFTER = """def pick(values):
    if not values:
        return -1
    result = 0
    for value in values:
        result += value * 2
    return result"""


def shown(before: str, after: str) -> str:
    marks = {"kept": "  ", "deleted": "- ", "inserted": "+ "}
    lines = diff_lines(before, after)
    assert lines is not None
    return "\n".join(marks[line.kind] + line.text for line in lines)


def test_lines_that_are_new_or_changed_are_marked():
    assert shown(BEFORE, AFTER) == (
        "  def pick(values):\n"
        "+     if not values:\n"
        "+         return -1\n"
        "      result = 0\n"
        "      for value in values:\n"
        "-         result += value\n"
        "+         result += value * 2\n"
        "      return result"
    )


def test_within_a_changed_line_only_the_change_is_marked():
    changed = [
        line for line in diff_lines(BEFORE, AFTER) or [] if "value *" in line.text or "+= value" in line.text
    ]
    assert [(span.kind, span.text) for span in changed[0].spans] == [("kept", "        result += value")]
    assert [(span.kind, span.text) for span in changed[1].spans] == [
        ("kept", "        result += value"),
        ("inserted", " * 2"),
    ]


def test_lines_that_have_nothing_in_common_are_whole():
    lines = diff_lines("def f():\n    return 1", "def f():\n    yield from others()") or []
    assert [(line.kind, line.spans[0].kind, len(line.spans)) for line in lines[1:]] == [
        ("deleted", "deleted", 1),
        ("inserted", "inserted", 1),
    ]


texts = st.text(alphabet="ab (:\n\t", max_size=60)


@given(texts, texts)
def test_the_lines_make_up_both_texts(before, after):
    lines = diff_lines("def f():\n" + before, "def f():\n    x = 1\n    y = 2\n" + after)
    assume(lines is not None)
    assert lines is not None
    assert "\n".join(line.text for line in lines if line.kind != "inserted") == "def f():\n" + before
    assert "\n".join(line.text for line in lines if line.kind != "deleted").startswith(
        "def f():\n    x = 1\n"
    )
    assert all(span.kind in ("kept", line.kind) for line in lines for span in line.spans)


@pytest.mark.parametrize(
    "text",
    [
        "Dear Ada,\n\nthe plan is ready.\n\nYours sincerely, Alex",
        "One line: with a colon",
        "This is about:\n- plan: ready\n- report: done",
        "",
        "A paragraph.\n\nAnother paragraph, which goes on,\nover lines.",
    ],
)
def test_text_is_not_code(text):
    assert not reads_as_code(text)
    assert diff_lines(text, text) is None


@pytest.mark.parametrize(
    "text", [BEFORE, "function f(a) {\n  return a;\n}", "SELECT\n  a,\n  b\nFROM t;", "if x {\n\treturn\n}"]
)
def test_code_is_code(text):
    assert reads_as_code(text)


def test_peoples_code_is_code_and_peoples_letters_are_not(data: Path) -> None:
    code = [json.loads(line) for line in (data / "humanevalfix_python.jsonl").read_text().splitlines()]
    assert sum(reads_as_code(each["response"]) for each in code) >= 0.95 * len(code)
    letters = [json.loads(line) for line in (data / "lamp16.jsonl").read_text().splitlines()]
    assert not any(reads_as_code(each["edit"]) for each in letters)


def test_a_block_of_many_lines_is_not_compared_pair_by_pair():
    before, after = ("\n".join(f"    {word}{i} = 1" for i in range(150)) for word in ("a", "b"))
    lines = diff_lines(before, after) or []
    assert [line.kind for line in lines] == ["deleted"] * 150 + ["inserted"] * 150
    assert all(len(line.spans) == 1 for line in lines)
    # A smaller one is.
    few = diff_lines("\n".join(before.split("\n")[:50]), "\n".join(after.split("\n")[:50])) or []
    assert all(len(line.spans) > 1 for line in few)


def test_a_long_text_is_left_to_the_redline():
    assert diff_lines("x = (\n" * 3000, "y = (\n" * 3000) is None
