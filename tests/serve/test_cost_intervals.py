"""The dashboard's lifetime intervals: what they count, and that a restart does not change them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from serving import run, serving

from editloop.online import BanditConfig
from editloop.online.sequences import ConfidenceSequence
from editloop.serve.loop.intervals import CostIntervals


def test_an_arm_has_the_sequence_of_its_costs() -> None:
    intervals, sequence = CostIntervals(1.0), ConfidenceSequence()
    for cost in (0.2, 0.4, 1.0) * 20:
        intervals.add("a", cost)
        sequence.add(cost)
    found = intervals.of("a")
    assert (found["n"], found["interval"]) == (60, list(sequence.interval))
    assert found["mean"] == pytest.approx(1.6 / 3)
    assert intervals.of("b") == {"n": 0, "mean": None, "interval": None}
    again = CostIntervals.from_json(json.loads(json.dumps(intervals.to_json())), 1.0)
    intervals.add("a", 0.3)
    again.add("a", 0.3)
    assert again.to_json() == intervals.to_json() and again.of("a") == intervals.of("a")


def test_without_a_bound_there_is_no_interval() -> None:
    intervals = CostIntervals(math.inf)
    intervals.add("a", 19.0)
    assert intervals.of("a")["interval"] is None


def test_the_overview_has_them_and_a_restart_keeps_them(url: str, tmp_path: Path) -> None:
    """From the snapshot, and from the events alone; a revision does not count again."""

    async def work() -> None:
        async with serving(url, tmp_path, arms=("a@1",)) as service:
            for i in range(5):
                await service.ask(id=f"r{i}")
                await service.edit(f"r{i}", "Hello from Ada" if i else None)
            await service.edit("r1", "Hi")  # a revision
            (arm,) = (await service.http.get("/v1/overview")).json()["arms"]
            low, high = arm["lifetime"]["interval"]
            assert arm["lifetime"]["n"] == 5 and low < arm["lifetime"]["mean"] < high
            assert arm["lifetime"]["mean"] == pytest.approx(4 / 3 / 5)
            assert arm["mean"] == pytest.approx((3 / 3 + 1) / 5)  # of the period, with the last revision
        for _ in range(2):
            async with serving(url, tmp_path) as service:
                (again,) = (await service.http.get("/v1/overview")).json()["arms"]
                assert again["lifetime"] == arm["lifetime"]
            (tmp_path / "snapshot.json").unlink()

    run(work())


def test_costs_that_are_not_bounded_have_none(tmp_path: Path) -> None:
    async def work() -> None:
        config = BanditConfig(bounded=False)
        async with serving(f"sqlite:///{tmp_path}/edits.db", tmp_path, config=config) as service:
            await service.ask(id="r")
            await service.edit("r", "Hi")
            (arm, *_) = (await service.http.get("/v1/overview")).json()["arms"]
            assert arm["lifetime"]["interval"] is None

    run(work())
