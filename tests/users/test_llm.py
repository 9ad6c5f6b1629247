"""The LLM user over real HTTP, against a server on loopback."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from editloop.errors import BudgetError, ConfigError, UserError
from editloop.users import LLMSettings, LLMUser
from llm_server import Server, by_style


def user(server: Server, transcript: Path | None = None, **settings: Any) -> LLMUser:
    options = {"model": "m", "base_url": server.url, "api_key": "k", "retries": 2, **settings}
    return LLMUser(LLMSettings(**options), "formal", transcript=transcript)


def test_what_suits_is_left_and_what_does_not_is_revised(server: Server) -> None:
    someone = user(server)
    assert someone.edit("Write to Ada.", "Dear Ada, hi.") == "Dear Ada, hi."
    assert someone.edit("Write to Ada.", "Ada, hi.") == "Dear Ada, hi."
    assert someone.requests == 3
    assert all("formal" in prompt and "Write to Ada." in prompt for prompt in server.prompts)


def test_the_style_may_follow_the_context(server: Server) -> None:
    settings = LLMSettings(model="m", base_url=server.url, api_key="k")
    LLMUser(settings, lambda context: f"like {context}").edit("tea", "Dear tea")
    assert "like tea" in server.prompts[0]


def test_what_was_asked_before_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    assert user(server, path).edit("x", "hi") == "Dear hi"
    with path.open("a") as file:
        file.write('{"key": "cut sh')
    again = user(server, path)
    assert again.edit("x", "hi") == "Dear hi"
    assert (again.requests, len(server.prompts)) == (2, 2)
    again.edit("x", "hi", round=1)
    assert again.requests == 4
    assert user(server, path).edit("x", "hi", round=1) == "Dear hi"  # the cut line is gone from the file
    assert len(server.prompts) == 4
    first = json.loads(path.read_text().splitlines()[0])
    assert first["prompt"] == server.prompts[0]
    assert (first["answer"], first["usage"]["total_tokens"]) == ("No.", 12)
    path.write_text("{}\n")
    with pytest.raises(UserError, match="is not a transcript"):
        user(server, path)


def test_the_same_question_is_asked_once_by_two_threads(server: Server) -> None:
    def answer(prompt: str) -> str:
        time.sleep(0.2)  # time enough for the second thread to come
        return by_style(prompt)

    server.answer = answer
    someone = user(server, concurrency=2)
    assert someone.edit_many(["x", "x"], ["hi", "hi"]) == ["Dear hi", "Dear hi"]
    assert len(server.prompts) == 2  # a verdict and a revision


def test_a_failed_request_is_tried_again(server: Server) -> None:
    states: list[str | tuple[int, dict[str, str]]] = [
        (429, {"Retry-After": "0.05"}),
        (503, {"Retry-After": "0.05"}),
        "yes",
    ]
    server.answer = lambda _: states.pop(0)
    assert user(server).edit("x", "hi") == "hi"
    assert len(server.prompts) == 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, {"Retry-After": "0.01"}), "no answer after 3 tries.*InternalServerError"),
        ((429, {"Retry-After": "0.01"}), "no answer after 3 tries.*RateLimitError"),
        ((401, {}), "no answer after 3 tries.*AuthenticationError"),
        ("perhaps", "neither yes nor no: 'perhaps'"),
        ("<html>", "no answer|not a chat completion"),
    ],
)
def test_an_endpoint_that_fails_is_one_line(
    server: Server, answer: str | tuple[int, dict[str, str]], said: str
) -> None:
    server.answer = lambda _: answer
    with pytest.raises(UserError, match=said) as caught:
        user(server).edit("x", "hi")
    assert "\n" not in str(caught.value)


def test_an_empty_revision_is_refused(server: Server) -> None:
    server.answer = lambda prompt: "no" if "yes or no" in prompt else " "
    with pytest.raises(UserError, match="revision is empty"):
        user(server).edit("x", "hi")


def test_an_endpoint_that_is_down_or_slow_is_reported(server: Server) -> None:
    with pytest.raises(UserError, match=r"no answer after 1 tries.*APIConnectionError"):
        user(server, base_url="http://127.0.0.1:9/v1", retries=0).edit("x", "hi")
    server.answer = lambda _: time.sleep(1) or "yes"  # type: ignore[func-returns-value]
    with pytest.raises(UserError, match="APITimeoutError"):
        user(server, retries=0, timeout=0.1).edit("x", "hi")


def test_the_budget_is_kept_and_what_was_answered_stays(server: Server) -> None:
    someone = user(server, budget=3)
    assert someone.edit("x", "hi") == "Dear hi"
    with pytest.raises(UserError, match="budget of requests is spent: 3"):
        someone.edit("x", "hello")
    assert someone.edit("x", "hi") == "Dear hi"
    assert len(server.prompts) == 3


def test_a_budget_holds_over_restarts_and_for_all_wishes(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    user(server, path, budget=3).edit("x", "hi")
    again = user(server, path, budget=3)
    casual = again.with_style("casual")
    with pytest.raises(BudgetError, match="spent: 3"):
        casual.edit("x", "hi")  # two were asked before, and the verdict is the third
    assert "casual" in server.prompts[-1] and len(server.prompts) == 3
    with pytest.raises(BudgetError):
        again.edit("x", "hello")
    assert (again.settings["style"], casual.settings["style"]) == ("formal", "casual")


def test_an_answer_that_was_cut_or_says_nothing_is_not_kept(server: Server, tmp_path: Path) -> None:
    someone = user(server, tmp_path / "transcript.jsonl")
    server.reason = "length"
    with pytest.raises(UserError, match="cut after 1024 tokens"):
        someone.edit("x", "hi")
    server.reason, server.answer = "stop", lambda _: "perhaps"
    with pytest.raises(UserError, match="neither yes nor no"):
        someone.edit("x", "hi")
    server.answer = lambda _: "yes"
    assert someone.edit("x", "hi") == "hi"


def test_many_edits_are_asked_for_a_few_at_a_time_and_keep_their_order(server: Server) -> None:
    server.answer = lambda prompt: time.sleep(0.02) or by_style(prompt)  # type: ignore[func-returns-value]
    drafts = [f"hi {i}" for i in range(12)]
    assert user(server, concurrency=3).edit_many(["x"] * 12, drafts) == [f"Dear {draft}" for draft in drafts]
    assert 1 < server.most_at_once <= 3


def test_settings_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="needs a key"):
        LLMUser(LLMSettings(model="m"), "formal")
    for bad in ({"timeout": 0}, {"concurrency": 0}, {"retries": -1}, {"budget": -1}):
        with pytest.raises(ConfigError):
            LLMSettings(model="m", **bad)  # type: ignore[arg-type]
