"""The overview: figures computed by hand for a store of a few events, on both databases."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from serving import Service, run, serving

from editloop.serve.api.overview import Sums
from editloop.serve.problem import store_unavailable
from editloop.store import writes

COLUMNS = dict.fromkeys(("response_id", "revision", "arm", "propensity", "cost", "arms"))


async def put(service: Service, *rows: tuple[float, str, str, int, str, float | None]) -> None:
    """Append events to the store: time, kind, response, revision, arm, cost."""

    def write() -> None:
        store = service.loop.store
        made: list[dict[str, Any]] = [
            {
                **COLUMNS,
                "time": time,
                "kind": kind,
                "response_id": response_id,
                "revision": revision,
                "arm": arm,
                "cost": cost,
                "scope": "",
                "epoch": 1,
            }
            for time, kind, response_id, revision, arm, cost in rows
        ]
        with store.transaction() as connection:
            for row in made:
                writes.insert_event(connection, row)

    await asyncio.to_thread(write)


async def overview(service: Service, **parameters: Any) -> dict[str, Any]:
    answer = await service.http.get("/v1/overview", params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_figures_by_hand(url: str, tmp_path: Path) -> None:
    """Eight responses in 100..200 s: two edited, one accepted after a revision, one on its way, ..."""

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await put(
                service,
                (100.0, "decided", "r1", -1, "a@1", None),
                (101.0, "decided", "r2", -1, "a@1", None),
                (102.0, "decided", "r3", -1, "b@2", None),
                (103.0, "decided", "r4", -1, "a@1", None),
                (103.5, "rerouted", "r4", -2, "b@2", None),  # answered by b
                (104.0, "decided", "r5", -1, "old@0", None),
                (105.0, "decided", "r6", -1, "a@1", None),
                (110.0, "edited", "r1", 1, "a@1", 0.25),
                (120.0, "edited", "r2", 1, "a@1", 9.0),  # a first revision: it does not count
                (149.9, "edited", "r2", 3, "a@1", 0.75),
                (150.0, "accepted", "r3", 1, "b@2", 0.0),
                (160.0, "expired", "r5", 0, "old@0", None),
                (161.0, "expired", "r6", 0, "a@1", None),
                (170.0, "edited", "r6", 1, "a@1", 0.5),  # late, but counted as an edit
                (171.0, "external", "x1", 1, "gpt", 0.4),
                (172.0, "external", "x1", 2, "gpt", 0.6),
                (180.0, "edited", "r7", 1, "b@2", 0.1),
                (181.0, "discarded", "r7", 2, "b@2", 1.0),  # edited, and thrown away after that
                (199.9, "edited", "gone", 1, "a@1", 0.5),  # of a decision before the period
                (200.0, "edited", "later", 1, "a@1", 7.0),  # after it
            )
            found = await overview(service, since=100, until=200, bins=2)
            # edited .25, .75, .5, .5; accepted 0; discarded 1: mean .5, squares .0625 + .5625 + .5 + 1
            error = math.sqrt((2.125 - 6 * 0.25) / 5 / 6)
            reach = 2.5705818 * error  # Student's t with 5 degrees of freedom
            assert found["totals"] == {
                "responses": 6,
                "edited": 4,
                "accepted": 1,
                "discarded": 1,
                "pending": 1,
                "expired": 1,
                "external": 1,
                "mean_cost": pytest.approx(0.5),
                "se": pytest.approx(error),
                "interval": pytest.approx([max(0.5 - reach, 0.0), 0.5 + reach]),
                "share_kept": pytest.approx(1 / 6),
            }
            first, second = found["series"]
            reach = 12.7062047 * 0.25  # t with 1 degree of freedom; se of .25 and .75 is .25
            assert first == {
                "time": 100.0,
                "n": 2,
                "mean": pytest.approx(0.5),
                "se": pytest.approx(0.25),
                "interval": pytest.approx([0.0, 0.5 + reach]),
                "share_kept": 0.0,
                "discarded": 0,
            }
            assert (second["time"], second["n"], second["mean"]) == (150.0, 4, pytest.approx(1 / 2))
            assert second["share_kept"] == pytest.approx(1 / 4) and second["discarded"] == 1
            a, b, old = found["arms"]
            assert (a["arm"], a["played"], a["n"], a["responses"], a["pending"]) == ("a@1", True, 4, 3, 0)
            assert a["mean"] == pytest.approx(0.5) and a["share"] == pytest.approx(3 / 6)
            assert (b["mean"], b["n"], b["discarded"]) == (0.5, 2, 1)
            assert (b["responses"], b["pending"]) == (2, 1)
            assert (old["arm"], old["played"], old["n"], old["mean"]) == ("old@0", False, 0, None)
            assert found["epoch"] == 1 and found["down"] is None
            assert found["cost"] == "alignment:word"
            assert found["cost_label"] == "share of the draft's words that were taken away"

    run(work())


def test_a_rerouted_response_counts_for_who_answered(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await put(
                service,
                (100.0, "decided", "r", -1, "a@1", None),
                (100.5, "rerouted", "r", -2, "b@2", None),
                (110.0, "edited", "r", 1, "b@2", 0.5),
            )
            found = await overview(service, since=100, until=200)
            assert found["totals"]["responses"] == 1
            assert [each["share"] for each in found["arms"]] == [0.0, 1.0]

    run(work())


def test_costs_that_are_all_alike_have_no_interval() -> None:
    """Two edits of cost .5 give no interval "0.500 to 0.500", and neither do many drafts that were kept."""
    assert Sums(2, 1.0, 0.5).figures()["interval"] is None
    kept = Sums(40, 0.0, 0.0, 40).figures()
    assert (kept["mean"], kept["se"], kept["interval"], kept["share_kept"]) == (0.0, 0.0, None, 1.0)
    assert Sums(3, 0.1 * 3, 0.1**2 * 3).figures()["interval"] is None  # sums of squares are rounded


def test_a_period_without_events(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            found = await overview(service, since=100, until=200, bins=4)
            assert [each["time"] for each in found["series"]] == [100, 125, 150, 175]
            assert all(each["n"] == 0 and each["mean"] is None for each in found["series"])
            assert found["totals"]["responses"] == 0 and found["totals"]["share_kept"] is None
            assert [each["share"] for each in found["arms"]] == [None, None]
        async with serving(url, tmp_path / "other", arms=()) as service:
            found = await overview(service)
            assert len(found["series"]) == 30

    run(work())


def test_all_time_begins_with_the_first_event(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await put(service, (50.0, "decided", "r", -1, "a@1", None), (60.0, "edited", "r", 1, "a@1", 1.0))
            found = await overview(service, until=90, bins=4)
            assert found["period"] == {"since": 50.0, "until": 90.0, "bins": 4}
            assert [each["n"] for each in found["series"]] == [0, 1, 0, 0]
            assert await overview(service, since=10, until=90, bins=4, trim=True) == found | {"now": ANY}
            found = await overview(service, since=52, until=90, trim=True)
            assert found["period"]["since"] == 60.0

    run(work())


def test_beliefs_are_those_of_a_users_scope(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path, scope="user") as service:
            answer = await service.ask(user="ada")
            await service.edit(answer.json()["id"], "Hello from me")
            ada = (await overview(service, user="ada"))["beliefs"]
            assert ada["user"] == "ada" and ada["scope"] == "user"
            assert ada["arms"] == [
                {"arm": "a@1", "pulls": 1.0, "observed": 1.0, "mean": pytest.approx(1 / 3)},
                {"arm": "b@2", "pulls": 0.0, "observed": 0.0, "mean": None},
            ]
            nobody = (await overview(service))["beliefs"]
            assert nobody["user"] is None and nobody["arms"][0]["observed"] == 0.0
            assert (await overview(service))["totals"]["edited"] == 1

    run(work())


def test_while_the_store_is_down_the_beliefs_are_reported(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:

            async def fail(query: Any) -> Any:
                raise store_unavailable("the store does not answer: gone")

            monkeypatch.setattr(service.loop, "read", fail)
            found = await overview(service)
            assert found["down"] == "the store does not answer: gone" and found["totals"] is None
            assert [each["arm"] for each in found["beliefs"]["arms"]] == ["a@1", "b@2"]

    run(work())


@pytest.mark.parametrize(
    "parameters",
    [
        {"since": 200, "until": 100},
        {"since": 100, "until": 100.5},
        {"since": -1},
        {"since": "nan"},
        {"until": "inf"},
        {"until": 1e12},
        {"bins": 0},
        {"bins": 401},
        {"user": "a\0b"},
        {"user": "x" * 257},
    ],
)
def test_bad_periods_are_refused(tmp_path: Path, parameters: dict[str, Any]) -> None:
    async def work() -> None:
        async with serving(f"sqlite:///{tmp_path}/edits.db", tmp_path) as service:
            answer = await service.http.get("/v1/overview", params=parameters)
            assert answer.status_code == 400, answer.text

    run(work())


@pytest.mark.parametrize("parameters", [{"until": 0}, {"until": 1e11, "bins": 400}, {"since": 0}])
def test_the_edges_of_periods(url: str, tmp_path: Path, parameters: dict[str, Any]) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await service.ask()
            assert len((await overview(service, **parameters))["series"]) == parameters.get("bins", 30)

    run(work())
