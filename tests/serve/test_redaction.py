"""Redaction: every text is shown to the hook in readable form before it is kept, wherever it occurs."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import error, run, serving, sqlite
from sqlalchemy import select

from editloop.serve.backends.base import Completion
from editloop.serve.loop.logged_text import logged_context, logged_metadata
from editloop.serve.loop.redaction import redact_leaves, redact_text
from editloop.store.schema import drafts, edits

SECRET = "José"


def redact(text: str) -> str:
    return text.replace(SECRET, "[name]")


def holds_secret(kept: str | bytes) -> bool:
    """Whether a text holds the secret, in UTF-8 or in JSON's escapes."""
    raw = kept.encode() if isinstance(kept, str) else kept
    return SECRET.encode() in raw or re.search(rb"Jos\\+u00e9", raw, re.IGNORECASE) is not None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Dear José,", "Dear [name],"),
        (r'{"to": "Jos\u00e9", "n":1}', '{"to": "[name]", "n":1}'),
        (r'{"to": "Jos\u00E9", "and": "B\u00e9a"}', r'{"to": "[name]", "and": "B\u00e9a"}'),
        (r'{"to": "Jos\u00e9", "wh', '{"to": "[name]", "wh'),  # arguments that were cut off
        (r'{"to": "Jos\u00e9', '{"to": "[name]'),
        ('{"to": "Jos\\u00e9\\', '{"to": "[name]'),
        ('{"to": "Jos\\u00e9\\\\', '{"to": "[name]\\\\'),
        (r'{"to": "Jos\u00e9\"', r'{"to": "[name]\"'),
        (r"Jos\u00e9, without quotation marks", "[name], without quotation marks"),
        (r'3" of Jos\u00e9 "and more', '3" of [name] "and more'),
        (json.dumps({"a": json.dumps({"b": json.dumps({"c": SECRET})})}), None),
        (r"C:\users\new \ud800 \u0000", r"C:\users\new \ud800 \u0000"),
        (r'{"a": "Jos\u00e9 \ud800 \u0000"}', '{"a": "[name]  \\u0000"}'),
    ],
)
def test_a_text_is_redacted_as_it_reads(text: str, kept: str | None) -> None:
    found = redact_text(text, redact)
    assert not holds_secret(found)
    found.encode()
    if kept is None:
        assert json.loads(json.loads(json.loads(found)["a"])["b"]) == {"c": "[name]"}
    else:
        assert found == kept


def test_keys_are_redacted_and_no_value_is_lost() -> None:
    value = {"José": 1, "[name]": 2, "José José": 3, "[name] (2)": 4, "Ada": 5}
    found = redact_leaves(value, lambda text: "[name]" if "[" in text or SECRET in text else text)
    assert sorted(found.values()) == [1, 2, 3, 4, 5] and not holds_secret(json.dumps(found))
    assert redact_leaves({"José": 1, "[name] (2)": 2, "[name]": 3}, redact) == {
        "[name]": 1,
        "[name] (2)": 2,
        "[name] (3)": 3,
    }


def test_many_equal_keys_take_no_longer_than_others() -> None:
    """Each key gets its number in one step; 20,000 keys took minutes when each tried all numbers."""
    value = {f"{SECRET}{i}": i for i in range(20_000)}
    found = redact_leaves(value, lambda text: "gone")
    assert list(found.values()) == ["gone"] * 20_000 and "gone (20000)" in found


def test_quotation_marks_without_end_are_read_once() -> None:
    """A pattern that started again at each quotation mark would take 2e9 steps."""
    started = time.perf_counter()
    assert redact_text('"' + '\\"' * 60_000 + "\\", redact).startswith('"')
    assert time.perf_counter() - started < 20


def test_a_number_is_redacted_as_it_is_written() -> None:
    def card(text: str) -> str:
        return re.sub(r"\d{16}", "####", text)

    value = {"card": 4111111111111111, "n": 3, "share": 0.5, "yes": True, "none": None}
    kept = {"card": "####", "n": 3, "share": 0.5, "yes": True, "none": None}
    assert redact_leaves(value, card) == kept


def test_a_hook_that_gives_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="returns NoneType"):
        redact_leaves({"a": ["x"]}, lambda text: None)  # type: ignore[arg-type, return-value]


pieces = st.lists(st.sampled_from([SECRET, "Jos", "é", "Ada", '"', "\\", "\n", " ", "u00e9", "{", "😀"]))
texts = pieces.map("".join)
values = st.recursive(
    texts | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def written(draw: Callable[..., Any]) -> str:
    """A JSON value as a text, with or without escapes, and perhaps as JSON within JSON."""
    text = json.dumps(draw(values), ensure_ascii=draw(st.booleans()))
    return json.dumps({"inner": text}, ensure_ascii=draw(st.booleans())) if draw(st.booleans()) else text


@st.composite
def messages(draw: Callable[..., Any]) -> list[dict[str, Any]]:
    """A chat with parts that are not texts, a tool call, and the tool's result."""
    parts = [
        {"type": "text", "text": draw(texts)},
        {"type": "image_url", "image_url": {"url": draw(texts), "detail": draw(texts)}},
    ]
    function = {"name": draw(texts), "arguments": draw(written())}
    call = {"id": draw(texts), "type": "function", "function": function}
    return [
        {"role": "user", "content": parts, "name": draw(texts)},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": draw(written())},
        {"role": "user", "content": draw(texts), "extra": draw(values)},
    ]


def readings(value: Any) -> Iterator[str]:
    """All texts in a value, including those in JSON within a text."""
    if isinstance(value, str):
        yield value
        try:
            inner = json.loads(value)
        except ValueError:
            return
        yield from readings(inner) if inner != value else ()
    elif isinstance(value, dict):
        yield from readings([*value, *value.values()])
    elif isinstance(value, list):
        for each in value:
            yield from readings(each)


def leaves(value: Any) -> int:
    """The number of leaves in a JSON value."""
    if isinstance(value, dict):
        return sum(map(leaves, value.values()))
    return sum(map(leaves, value)) if isinstance(value, list) else 1


@pytest.mark.parametrize(
    "text",
    [
        r'{"José": "\\u00e9"}',
        r'{"José": "\\\u00e9"}',
        r'{"José": "\u0022 \u005c \u000a \u00e9"}',
        r'{"José": "\ud83d\ude00 \\\\ud83d"}',
        r'{"José": "\\\\\u00e9\u00e9"}',
    ],
)
def test_json_that_is_redacted_stays_json(text: str) -> None:
    kept = json.loads(redact_text(text, redact))
    (key,) = kept
    assert SECRET not in key and isinstance(kept[key], str)


@settings(max_examples=200, deadline=None)
@given(messages(), st.dictionaries(texts, values, max_size=4))
def test_nothing_that_is_kept_holds_the_secret(chat: list[dict[str, Any]], metadata: dict[str, Any]) -> None:
    context = logged_context(chat, redact)
    kept = logged_metadata(metadata, redact)
    assert not any(SECRET in text for text in readings([context, kept]))
    assert leaves(context) == leaves(chat) and leaves(json.loads(kept or "{}")) == leaves(metadata)
    call, result = context[1]["tool_calls"][0], context[2]
    assert call["id"] == result["tool_call_id"]
    for text in (call["function"]["arguments"], result["content"]):
        json.loads(text)  # it is JSON still
    assert [each["role"] for each in context] == ["user", "assistant", "tool", "user"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages(), st.dictionaries(texts, values, max_size=4))
def test_a_hook_that_changes_nothing_changes_nothing(
    chat: list[dict[str, Any]], other: dict[str, Any]
) -> None:
    assert logged_context(chat, str) == chat
    assert json.loads(logged_metadata(other, str) or "{}") == other


def test_the_store_holds_no_secret_anywhere(url: str, tmp_path: Path) -> None:
    """Not in tool calls, tools' results, parts, metadata or the log-probabilities of tokens."""
    escaped = json.dumps({"to": SECRET})
    chat = [
        {
            "role": "user",
            "content": [{"type": "text", "text": f"To {SECRET}"}, {"type": "image_url", SECRET: SECRET}],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "function": {"name": SECRET, "arguments": escaped}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": escaped},
    ]
    metadata = {"to": [SECRET, {SECRET: escaped}]}
    logprobs = {"content": [{"token": SECRET, "logprob": -0.1, "bytes": list(SECRET.encode())}]}

    async def speak(arm: str, request: Any, response_id: str) -> Completion:
        text = f"Dear {SECRET} {escaped}"
        return Completion(text, "stop", {"role": "assistant", "content": text}, None, logprobs)

    async def work() -> None:
        async with serving(url, tmp_path, app_options={"redact": redact}) as service:
            service.backend.complete = speak  # type: ignore[method-assign]
            done = await service.http.post(
                "/v1/chat/completions",
                json={"model": "editloop", "messages": chat, "metadata": metadata, "logprobs": True},
            )
            assert done.json()["choices"][0]["logprobs"] == logprobs and SECRET in done.text
            sent = await service.edit(done.json()["id"], f"Hi {SECRET} {escaped}")
            assert sent.json()["cost"] > 0
            triple = {"context": chat, "response": escaped, "edit": f"{escaped}!", "metadata": metadata}
            assert (await service.http.post("/v1/edits", json=triple)).status_code == 200
            await service.loop.snapshots.write(service.loop.take_snapshot())
            rows = await service.loop.read(lambda c: [c.execute(select(t)).all() for t in (drafts, edits)])
            assert str(rows).count("[name]") > 10
            assert not holds_secret("\n".join(str(each) for table in rows for row in table for each in row))
            for path in filter(Path.is_file, tmp_path.rglob("*")):
                assert not holds_secret(path.read_bytes()), path

    run(work())


def test_a_redaction_that_fails_keeps_nothing(tmp_path: Path) -> None:
    """Wherever the hook fails, the request fails, no edit is expected, and no text is kept."""

    def hook(text: str) -> str:
        if SECRET in text:
            raise ValueError("no")
        return text

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options={"redact": hook}) as service:
            error(await service.ask(metadata={"a": [{SECRET: 1}]}), 500, "internal_error")
            service.backend.says = lambda arm, request: SECRET
            error(await service.ask("Hi"), 500, "internal_error")
            await asyncio.sleep(0.1)
            assert service.loop.state.in_flight == {} and service.loop.bandit.state.pending == 0
            for path in filter(Path.is_file, tmp_path.rglob("*")):
                assert not holds_secret(path.read_bytes()), path

    run(work())
