"""The benchmark of best of n: the figures by hand, and one small cell that is made for real."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rerank
from benchmarks.cells import Cell, Column, TableSettings


def cell(chosen: dict[str, list[float]], best: dict[str, list[float]], objection: str | None) -> Any:
    arm = {"seconds": {"one": 1.0, "all": 5.0}, "chosen": chosen, "best": best}
    return {"objection": objection, "arms": dict.fromkeys(rerank.ARMS, arm)}


def test_the_savings_by_hand() -> None:
    first = cell(
        {"1": [0.4, 0.6], "2": [0.4, 0.2], "4": [0.2, 0.2], "8": [0.2, 0.6]},
        {"1": [0.4, 0.6], "2": [0.2, 0.2], "4": [0.2, 0.2], "8": [0.0, 0.2]},
        None,
    )
    found = rerank._column(Column("email", "weak"), [first, first | {"objection": "nothing"}])
    arm = found["arms"]["early"]
    assert found["objections"] == [None, "nothing"]
    assert arm["one"] == pytest.approx(0.5)
    mean, error = arm["saved"][2]  # of 0, .4, 0, .4
    assert (mean, error) == (pytest.approx(0.2), pytest.approx((0.16 / 3) ** 0.5 / 2))
    assert arm["saved"][8][0] == pytest.approx(0.1)
    assert arm["most"][8] == pytest.approx(0.4)
    assert arm["seconds"] == {"one": 1.0, "all": 5.0}


def test_a_cell_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_process: None) -> None:
    monkeypatch.setattr(rerank, "COLUMNS", (Column("email", "strong"),))
    settings = TableSettings(
        tmp_path / "work",
        seeds=(3,),
        rounds=6,
        rows=30,
        changes=(("epochs", 1.0), ("validation_samples", 0), ("num_samples", 1)),
    )
    data = rerank.run(tmp_path / "results", settings=settings)
    (column,) = data["columns"]
    for found in column["arms"].values():
        assert found["most"][2] <= found["most"][4] <= found["most"][8]
        assert all(found["saved"][n][0] <= found["most"][n] + 1e-12 for n in (2, 4, 8))
    page = (tmp_path / "results" / "rerank.md").read_text(encoding="utf-8")
    assert "6 contexts and 1 seeds" in page and "| early |" in page
    # What is measured needs the run no more, and is not measured again.
    shutil.rmtree(settings.folder / Cell("email", "strong", 3).folder / "run")
    assert rerank.run(tmp_path / "results", settings=settings)["columns"] == data["columns"]
