"""The benchmark of best of n: the figures by hand, and one small cell that is made for real."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rerank, rerank_real
from benchmarks.cells import Cell, Column, TableSettings
from benchmarks.real_rows import Fold
from editloop.errors import RunError
from editloop.offline import FitConfig
from small_log import small_log


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
    without = {"objection": "no model", "arms": {}}
    assert rerank._column(Column("email", "weak"), [first, without])["arms"]["early"]["one"] == arm["one"]
    assert rerank._column(Column("email", "weak"), [without])["arms"] == {}


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
    assert "6 contexts of each of 1 seeds" in page and "| early |" in page
    # What is measured needs the run no more, and is not measured again.
    folder = settings.folder / Cell("email", "strong", 3).folder
    kept = (folder / "rerank.json").read_text()
    (folder / "rerank.json").unlink()
    shutil.rmtree(folder / "run/cost_model")
    (without,) = rerank.run(tmp_path / "results", settings=settings)["columns"]
    assert without["arms"] == {} and "no cost model" in without["objections"][0]
    (folder / "rerank.json").write_text(kept)
    shutil.rmtree(folder / "run")
    assert rerank.run(tmp_path / "results", settings=settings)["columns"] == data["columns"]


def test_drafts_on_the_fits_of_real(base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = small_log(60)
    monkeypatch.setattr(rerank_real, "mlqe", lambda name, data: Fold(tuple(log[:52]), tuple(log[52:])))
    short = {
        "epochs": 0.5,
        "validation_samples": 0,
        "num_samples": 1,
        "max_new_tokens": 4,
        "lora": {"rank": 2},
    }
    monkeypatch.setattr(
        rerank_real, "FitConfig", lambda methods: FitConfig(methods=methods, validation=0.25, **short)
    )
    options: dict[str, Any] = {
        "base": str(base(chat=True)),
        "dtype": "float32",
        "work": tmp_path / "work",
        "data_sets": ("ro-en",),
        "methods": ("sft", "early", "rl"),
    }
    data = rerank_real.run(tmp_path, **options)
    found = data["data_sets"]["ro-en"]
    assert found["rows"] == 8 and list(found["arms"]) == list(rerank_real.ARMS)
    assert "| ro-en |" in (tmp_path / "rerank-real.md").read_text(encoding="utf-8")
    assert rerank_real.run(tmp_path, **options)["data_sets"] == data["data_sets"]
    with pytest.raises(RunError, match="another fit"):
        rerank_real.run(tmp_path, **options | {"methods": ("sft", "rl")})
