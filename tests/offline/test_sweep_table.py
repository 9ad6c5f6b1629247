"""The table of a sweep: which line is best, seeds in one line, and figures that are not compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editloop.offline.sweep.grid import SweepRun
from editloop.offline.sweep.table import compare, show, write_comparison
from editloop.policy import RunFolder
from small_run import make_manifest


def finished(out: Path, name: str, values: dict[str, Any], **policies: dict[str, Any]) -> SweepRun:
    """A run whose policies have these figures."""
    trials = {method: {"trials": [figures]} for method, figures in policies.items()}
    RunFolder(out / name).write_manifest(make_manifest(status="done", policies=trials))
    return SweepRun(name, values, ())


def trial(loss: float, cost: float | None = None, **hyperparameters: Any) -> dict[str, Any]:
    return {"validation_loss": loss, "validation_cost": cost, "hyperparameters": hyperparameters}


def test_the_least_mean_cost_over_seeds_is_best(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path, "a0", {"seed": 0, "lora.rank": 4}, sft=trial(1.0, 0.5), dpo=trial(0.1, 0.6)),
        finished(tmp_path, "a1", {"seed": 1, "lora.rank": 4}, sft=trial(1.2, 0.3), dpo=trial(0.1, 0.6)),
        finished(tmp_path, "b0", {"seed": 0, "lora.rank": 8}, sft=trial(0.9, 0.45), dpo=trial(0.1, 0.7)),
    ]
    lines = compare(tmp_path, runs)
    assert [(line.label, line.method, line.costs, line.is_best) for line in lines] == [
        ("lora.rank=4", "sft", (0.5, 0.3), True),
        ("lora.rank=4", "dpo", (0.6, 0.6), False),
        ("lora.rank=8", "sft", (0.45,), False),
        ("lora.rank=8", "dpo", (0.7,), False),
    ]
    # By hand: the mean of .5 and .3 is .4, their standard deviation .1414, divided by the root of 2 .1.
    assert show(lines[0].costs) == "0.4000 ± 0.1000"


def test_without_costs_losses_decide_within_a_method_that_has_one_loss(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path, "a", {"x": 1}, sft=trial(1.0), dpo=trial(0.6, beta=0.1)),
        finished(tmp_path, "b", {"x": 2}, sft=trial(0.8), dpo=trial(0.5, beta=1.0)),
    ]
    best = [(line.label, line.method) for line in compare(tmp_path, runs) if line.is_best]
    assert best == [("x=2", "sft")]  # DPO's losses with another beta are another function


def test_one_fit_without_a_cost_makes_no_line_best_by_cost(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path, "a", {"x": 1}, sft=trial(1.0, 0.9)),
        finished(tmp_path, "b", {"x": 2}, sft=trial(0.8)),
    ]
    assert [line.label for line in compare(tmp_path, runs) if line.is_best] == ["x=2"]


def test_the_files_say_what_was_found_and_what_failed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = [finished(tmp_path, "a", {"x": "1|2"}, sft=trial(1.0, 0.5)), SweepRun("b", {"x": 2}, ())]
    write_comparison(tmp_path, runs, {"b": "out of memory"})
    page = (tmp_path / "sweep.md").read_text()
    assert "1 of 2 fits are done" in page and "- b failed: out of memory" in page
    assert "| 1\\|2 | sft | 1 | 0.5000 | 1.0000 |" in page
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["failed"] == {"b": "out of memory"}
    assert content["lines"][0]["validation_costs"] == [0.5] and content["lines"][0]["best"]
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_of_failures_has_no_figure(tmp_path: Path) -> None:
    assert write_comparison(tmp_path, [SweepRun("b", {"x": 2}, ())], {"b": "no log"}) == []
    assert not (tmp_path / "sweep.png").exists()
