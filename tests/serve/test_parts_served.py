"""The parts of a cost over the API: they add up to the cost that is kept, by whatever cost a server has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from serving import run, serving, sqlite

from editloop.edits.cost import register_cost
from editloop.online import BanditConfig


@pytest.mark.parametrize(
    "cost",
    [
        "alignment:word",
        "alignment:char",
        "alignment:code",
        "levenshtein:word/response",
        "levenshtein:code/longest",
    ],
)
def test_the_sum_is_the_cost(tmp_path: Path, cost: str) -> None:
    async def work() -> None:
        config = BanditConfig(algorithm="ucb", cost=cost)
        async with serving(sqlite(tmp_path), tmp_path, config=config) as service:
            service.backend.says = lambda arm, request: "def f(x):\n    return x + 1"
            response_id = (await service.ask()).json()["id"]
            await service.edit(response_id, "def g(x, y):\n    return x + y")
            found: dict[str, Any] = (await service.http.get(f"/v1/edits/{response_id}")).json()
            (one,) = found["revisions"]
            assert found["cost"] == cost and one["cost"] > 0
            assert one["sum"] == pytest.approx(one["cost"], rel=1e-12)
            assert sum(part["cost"] for part in one["parts"]) == pytest.approx(one["sum"])
            pieces = [(kind, text) for kind, text in one["redline"]]
            assert "".join(text for kind, text in pieces if kind != "inserted") == found["response"]
            assert "".join(text for kind, text in pieces if kind != "deleted") == one["edit"]

    run(work())


def test_a_cost_without_parts_says_so(tmp_path: Path) -> None:
    register_cost("half", lambda responses, edits: [0.5] * len(responses), scale=1.0, bounded=True)

    async def work() -> None:
        config = BanditConfig(algorithm="ucb", cost="half")
        async with serving(sqlite(tmp_path), tmp_path, config=config) as service:
            response_id = (await service.ask()).json()["id"]
            await service.edit(response_id, "Hi")
            (one,) = (await service.http.get(f"/v1/edits/{response_id}")).json()["revisions"]
            assert (one["cost"], one["parts"], one["sum"]) == (0.5, None, None)
            assert one["changes"] == "1 replaced, 2 deleted, 0 inserted of 3 words"
            assert (await service.http.get("/v1/me")).json()["alignment"] is None

    run(work())


def test_a_draft_that_is_no_answer_costs_more_than_its_parts(tmp_path: Path) -> None:
    async def work() -> None:
        config = BanditConfig(algorithm="ucb", non_answer_cost=0.6)
        async with serving(sqlite(tmp_path), tmp_path, config=config) as service:
            service.backend.says = lambda arm, request: "I'm sorry, but I can't help with that."
            response_id = (await service.ask()).json()["id"]
            await service.edit(response_id, "I'm sorry, but I can't help with this.")
            found = (await service.http.get(f"/v1/edits/{response_id}")).json()
            (one,) = found["revisions"]
            assert found["non_answer"] == "refusal" and one["cost"] == 0.6
            assert one["sum"] == pytest.approx(1 / 8)

    run(work())
