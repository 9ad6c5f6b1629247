"""Non-answers at the server: counted by arm, kept with the draft, reported, and priced if asked."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest
from serving import Parrot, run, serving
from sqlalchemy import select

from editloop.online import BanditConfig
from editloop.serve.loop.non_answers import ENOUGH, LATEST, NonAnswers
from editloop.store.schema import drafts

LETTER = "Dear Ada, the demo moves to Friday at two, because the room was taken. Best, Bob"
QUESTION = "Could you tell me more about it?"


def test_an_arm_that_asks_back_is_named(caplog: pytest.LogCaptureFixture) -> None:
    watch, rng = NonAnswers(), random.Random(0)
    for _ in range(40):
        watch.examine("a", QUESTION if rng.random() < 0.7 else LETTER, 30)
        watch.examine("b", LETTER, 30)
    found = watch.shares("a")
    assert found["n"] == 40 and 20 < found["by_rule"]["question"] < 36
    why = watch.suspicion("a")
    assert why is not None and why.startswith("a: ") and "(question " in why and "of the others' 0%" in why
    assert watch.suspicion("b") is None
    assert caplog.text.count("are no answers") == 1  # once, not with each draft


def test_questions_that_all_ask_are_no_reason() -> None:
    """Where requests are vague, every arm asks back."""
    watch, rng = NonAnswers(), random.Random(1)
    for i in range(600):
        watch.examine("ab"[i % 2], QUESTION if rng.random() < 0.4 else LETTER, 30)
    assert watch.suspicion("a") is None and watch.suspicion("b") is None


def test_an_arm_that_becomes_worse_is_named() -> None:
    watch = NonAnswers()
    for i in range(300 + LATEST):
        watch.examine("a", QUESTION if i >= 300 and i % 2 else LETTER, 30)
    why = watch.suspicion("a")
    assert why is not None and "50% of its last 100 drafts" in why and "before 0%" in why


def test_a_draft_that_is_far_shorter_than_the_others_is_short() -> None:
    watch = NonAnswers()
    for _ in range(ENOUGH):
        assert watch.examine("a", LETTER * 3, 30) is None
    assert watch.examine("b", "On Friday, two.", 30) == "short"
    assert watch.examine("b", LETTER, 30) is None
    assert watch.examine("b", "On Friday, two.", 3000) is None  # nothing is known of such requests
    assert watch.examine("a", "On Friday, two.", 30) is None  # the others are not longer


def test_the_store_keeps_them_and_the_next_start_knows_them(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        backend = Parrot()
        backend.says = lambda arm, request: QUESTION if arm == "a@1" else LETTER
        async with serving(url, tmp_path, backend=backend) as service:
            for i in range(20):
                assert (await service.http.get("/v1/overview")).json()["alarms"] == []
                await service.ask(id=f"r{i}", model="a@1" if i % 2 else "b@2", stream=i % 3 == 0)
            found = (await service.http.get("/v1/overview")).json()
            (alarm,) = found["alarms"]
            assert alarm == "a@1: 100% of its drafts are no answers (question 10), of the others' 0%"
            assert found["arms"][0]["non_answers"] == {"n": 10, "by_rule": {"question": 10}}
            rows = service.loop.store.read(lambda c: c.execute(select(drafts)).all())
            assert {(row.policy, row.non_answer) for row in rows} == {("a@1", "question"), ("b@2", None)}
        async with serving(url, tmp_path) as service:
            assert (await service.http.get("/v1/overview")).json()["alarms"] == [alarm]

    run(work())


def test_they_have_a_price_if_asked(url: str, tmp_path: Path) -> None:
    """An accepted question costs it; an edit that costs more costs more; all stays when measured again."""
    config = BanditConfig(non_answer_cost=0.6)

    async def work() -> None:
        backend = Parrot()
        backend.says = lambda arm, request: QUESTION
        async with serving(url, tmp_path, ("a@1",), backend, config=config) as service:
            for i in range(3):
                await service.ask(id=f"r{i}")
            assert (await service.edit("r0")).json()["cost"] == 0.6
            assert (await service.edit("r1", LETTER)).json()["cost"] > 0.6
            thrown = await service.http.post("/v1/edits", json={"response_id": "r2", "discarded": True})
            assert thrown.json()["cost"] == 1.0
            before = service.loop.bandit.state.pool("a@1").cost
        async with serving(url, tmp_path, (), backend, config=config, reprice=True) as service:
            assert service.loop.bandit.state.pool("a@1").cost == pytest.approx(before)
        async with serving(
            url, tmp_path / "free", (), backend, config=BanditConfig(), reprice=True
        ) as service:
            assert service.loop.bandit.state.pool("a@1").cost == pytest.approx(before - 0.6)

    run(work())


def test_a_rule_that_fails_loses_no_response(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from editloop.edits.non_answers import NON_ANSWERS

    monkeypatch.setitem(NON_ANSWERS.registered, "broken", lambda text: 1 / 0 > 0)

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            answer = await service.ask(id="r")
            assert json.loads(answer.text)["choices"][0]["message"]["content"] == "Hello from a@1"

    with caplog.at_level(logging.WARNING, "editloop.serve"):
        run(work())
    assert "rules for non-answers have failed" in caplog.text
