"""A judge of two drafts over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.errors import BudgetError, UserError
from editloop.users import LLMJudge, LLMSettings
from llm_server import Server


def judge(server: Server, transcript: Path | None = None, wish: Any = "", **settings: Any) -> LLMJudge:
    options = {"model": "m", "base_url": server.url, "api_key": "k", "retries": 0, **settings}
    return LLMJudge(LLMSettings(**options), wish, transcript=transcript)


def longer(prompt: str) -> str:
    """Prefers the longer draft, whichever is named first."""
    a, b = (prompt.split(f"Draft {name}:\n")[1].split("\n\n")[0] for name in "AB")
    return "tie" if len(a) == len(b) else "A" if len(a) > len(b) else "**B**."


def test_the_better_draft_wins_in_either_order(server: Server) -> None:
    server.answer = longer
    assert judge(server).wins("x", "long draft", "short") == 1
    assert judge(server).wins("x", "short", "long draft") == 0
    assert judge(server).wins("x", "abc", "xyz") == 0.5
    assert len(server.prompts) == 6


def test_a_judge_who_prefers_what_comes_first_decides_nothing(server: Server) -> None:
    server.answer = lambda _: "A"
    assert judge(server).wins("x", "one", "two") == 0.5


def test_equal_drafts_are_not_asked_about(server: Server) -> None:
    assert judge(server).wins("x", "same", "same") == 0.5
    assert server.prompts == []


def test_the_transcript_is_kept_and_nothing_is_asked_twice(server: Server, tmp_path: Path) -> None:
    server.answer = longer
    path = tmp_path / "judge.jsonl"
    judge(server, path, wish="short letters").wins("tea", "long draft", "short")
    assert all("The reader wants: short letters." in prompt and "tea" in prompt for prompt in server.prompts)
    judge(server, path, wish="short letters").wins("tea", "long draft", "short")
    assert len(server.prompts) == 2
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["A", "**B**."]


def test_the_wish_may_follow_the_context(server: Server) -> None:
    server.answer = longer
    judge(server, wish=lambda context: f"like {context}").wins("tea", "one", "three")
    assert "like tea" in server.prompts[0]


def test_nonsense_is_counted_and_the_other_pairs_are_kept(server: Server) -> None:
    server.answer = lambda prompt: "I love both!" if "odd" in prompt else longer(prompt)
    values, reasons = judge(server).wins_many(
        ["x", "odd", "x"], ["long draft", "a", "b"], ["short", "bc", "cde"]
    )
    assert values[[0, 2]].tolist() == [1.0, 0.0]
    assert np.isnan(values[1])
    assert reasons == ["the judge's verdict is neither A, B nor tie: 'I love both!' (use another model)"]


@pytest.mark.parametrize(
    ("first", "second", "wins"),
    [("Draft A", "draft b", 1.0), ("b.", "*A*", 0.0), ("A tie", "Tie!", 0.5)],
)
def test_a_verdict_may_be_said_in_several_ways(server: Server, first: str, second: str, wins: float) -> None:
    server.answer = lambda prompt: first if "Draft A:\none" in prompt else second
    assert judge(server).wins("x", "one", "two") == wins


@pytest.mark.parametrize("answer", ["", "  ", "C", "because", "1", "A better one is B"])
def test_what_is_no_verdict_is_refused(server: Server, answer: str) -> None:
    server.answer = lambda _: answer
    with pytest.raises(UserError):
        judge(server).wins("x", "one", "two")


def test_a_spent_budget_ends_it(server: Server, tmp_path: Path) -> None:
    server.answer = longer
    with pytest.raises(BudgetError, match="the budget of requests is spent"):
        judge(server, tmp_path / "t.jsonl", budget=3, concurrency=1).wins_many(
            ["x"] * 2, ["a", "b"], ["cc", "dd"]
        )
    # What was paid for is there when it goes on.
    judge(server, tmp_path / "t.jsonl", budget=4, concurrency=1).wins_many(
        ["x"] * 2, ["a", "b"], ["cc", "dd"]
    )
    assert len(server.prompts) == 4
