"""Where the fields of a record come from, and contexts that hold their own answer."""

from __future__ import annotations

from typing import Any

import pytest

from editloop.edits import Message, read_log
from editloop.edits.columns import MISSING, look_up
from editloop.errors import TooManyBadRows

Write = Any
ROW = {
    "a": [1, 2, 3],
    "b": {"c": [{"d": "e"}]},
    "a.0": "named so",
    "json": '{"x": [5, 6]}',
    "text": "no json",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.0", "named so"),
        ("a.1", 2),
        ("a.-1", 3),
        ("a.:-1", [1, 2]),
        ("a.1:", [2, 3]),
        ("a.1:2", [2]),
        ("a.:", [1, 2, 3]),
        ("a.5:", []),
        ("a.3", MISSING),
        ("a.--1", MISSING),
        ("a.x", MISSING),
        ("b.c.0.d", "e"),
        ("b.c.:1.0.d", "e"),
        ("json.x.1", 6),
        ("json.y", MISSING),
        ("text.x", MISSING),
        ("none", MISSING),
        ("b:1", MISSING),
    ],
)
def test_paths(path: str, value: Any) -> None:
    found = look_up(ROW, path)
    assert found is value if value is MISSING else found == value


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]


def test_a_chat_that_ends_with_its_answer_is_refused_with_the_way_out(write: Write) -> None:
    rows = [{"messages": chat("q", f"r{i}"), "response": f"r{i}", "edit": f"e{i}"} for i in range(4)]
    rows += [{"messages": chat("q", f"e{i} "), "response": f"r{i}", "edit": f"e{i}"} for i in range(4, 6)]
    path = write(*rows)
    with pytest.raises(TooManyBadRows, match=r"6 of 6 rows are bad.*--map context=messages.:-1"):
        read_log(path)
    log = read_log(path, map="context=messages.:-1")
    assert [record.context for record in log] == [(Message(role="user", content="q"),)] * 6


def test_openai_rows_are_read_by_slices(write: Write) -> None:
    path = write({"messages": chat("q", "first", "more", "r"), "final": "e"})
    (record,) = read_log(path, map="context=messages.:-1,response=messages.-1.content,edit=final")
    assert record.response == "r" and [each.content for each in record.context] == ["q", "first", "more"]


def test_earlier_answers_and_other_texts_are_no_leak(write: Write) -> None:
    rows = [
        {"messages": chat("q", "r", "again", "s"), "response": "r", "edit": "e"},
        {"messages": chat("r"), "response": "r", "edit": "e"},  # the user's words
        {"messages": chat("q", "", "and"), "response": "r", "edit": ""},
    ]
    assert read_log(write(*rows)).report.bad_rows == 0


def test_content_in_parts_is_text_where_all_parts_are(write: Write) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    image = [{"type": "image_url", "image_url": {"url": "data:"}}]
    rows = [
        {"messages": [{"role": "user", "content": content}], "response": "r", "edit": "e"}
        for content in (parts, image)
    ]
    log = read_log(write(*rows), max_bad_share=0.5)
    assert [record.context for record in log] == [(Message(role="user", content="Hello"),)]
    assert log.report.first_bad == "line 2: context: neither text nor a chat of {role, content} messages"
