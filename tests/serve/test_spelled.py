"""The log-probability of a text from listed tokens: of those that spell it, with one more at the end."""

from __future__ import annotations

from typing import Any

import pytest

from editloop.serve.backends.spelled import SpelledText, spells


def entries(*tokens: str, raw: bool = False, values: tuple[float, ...] = ()) -> dict[str, Any]:
    """Tokens as OpenAI's API lists them, each of −.5 unless values are given."""
    given = values or (-0.5,) * len(tokens)
    return {
        "content": [
            {"token": token, "logprob": value, "bytes": list(token.encode()) if raw else None}
            for token, value in zip(tokens, given, strict=True)
        ]
    }


def logprob_of(text: str | None, logprobs: Any, **more: Any) -> float | None:
    spelled = SpelledText()
    spelled.add({"role": "assistant", "content": text, **more}, logprobs)
    return spelled.logprob


@pytest.mark.parametrize("raw", [False, True])
def test_the_sum_counts_the_token_that_ended_the_text(raw: bool) -> None:
    assert logprob_of("Dear Ada", entries("Dear", " Ada", raw=raw)) == pytest.approx(-1.0)
    assert logprob_of("Dear Ada", entries("Dear", " Ada", "<|end|>", raw=raw)) == pytest.approx(-1.5)
    assert logprob_of("Dear Ada", entries("Dear", " Ada", "", raw=raw)) == pytest.approx(-1.5)
    assert logprob_of("", entries("<|end|>", raw=raw)) == pytest.approx(-0.5)


def test_tokens_that_say_something_else_are_no_log_probability_of_the_text() -> None:
    assert logprob_of("42", entries("Let", " me", " think", "42")) is None  # the thoughts are not shown
    assert logprob_of("Dear Ada", entries("Dear")) is None
    assert logprob_of("Dear Ada", entries("Dear", " Ada", "!", "!")) is None
    assert logprob_of("Dear Ada", None) is None and logprob_of("Dear Ada", {"content": None}) is None
    assert logprob_of("Dear", entries("Dear"), tool_calls=[{"id": "1"}]) is None
    assert logprob_of(None, entries("call")) is None


@pytest.mark.parametrize("content", [[0.5], ["Dear"], [{"token": "Dear"}], [{"logprob": -1}], "Dear", [None]])
def test_another_form_is_not_understood(content: Any) -> None:
    assert logprob_of("Dear", {"content": content}) is None


def test_values_that_are_no_log_probabilities() -> None:
    assert logprob_of("a", entries("a", values=(float("-inf"),))) is None
    assert logprob_of("a", entries("a", values=(float("nan"),))) is None
    assert logprob_of("a", entries("a", values=(1e-7,))) == 0.0  # rounding in the server


def test_white_space_and_parts_of_characters() -> None:
    assert spells([b"Dear", b"Ada"], "Dear Ada")  # a token by itself may be shown without its space
    assert spells(["né".encode()[:2], "né".encode()[2:]], "né")  # real bytes
    broken = "\ufffd".encode()
    assert spells([b"n", broken, broken, b" a"], "né a")  # each part of a character as a text of its own
    assert spells([broken, broken, broken], "日") and spells([broken, broken, b"x", broken], "日x本")
    assert not spells([b"n", broken, b"b"], "né a") and not spells([b"m", broken, broken], "né")
    assert not spells([], "")


def test_a_stream_is_read_as_it_comes() -> None:
    spelled = SpelledText()
    for delta, logprobs in (
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Dear"}, entries("Dear")),
        ({"content": " Ada, hi"}, entries(" Ada", ",", " hi")),
        ({}, entries("<|end|>")),
    ):
        spelled.add(delta, logprobs)
    assert spelled.logprob == pytest.approx(-2.5)
