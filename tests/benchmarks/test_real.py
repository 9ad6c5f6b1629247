"""The benchmarks on a real base, here a tiny one: what is measured, and that nothing is measured twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import real, real_table, row_figures
from benchmarks.real_rows import Fold
from benchmarks.real_table import PAPER_COST, TableOnRealBase
from editloop.errors import ConfigError, RunError
from editloop.offline import FitConfig
from editloop.policy import Policy
from editloop.results import machine_name
from small_log import small_log


def rows(log_prob: list[float], margin: list[float | None], cost: list[float]) -> dict[str, Any]:
    n = len(log_prob)
    return {
        "context": ["a", "a", "b"][:n],
        "edit": ["x"] * n,
        "log_prob": log_prob,
        "tokens": [2, 2, 4][:n],
        "margin": margin,
        "sample": ["y"] * n,
        "cost": cost,
        "finished": [True, False, True][:n],
        "ratio": [1.0, 2.0, 3.0][:n],
    }


def test_the_figures_by_hand() -> None:
    base = rows([-4.0, -4.0, -8.0], [0.0, None, 0.0], [0.5, 0.5, 0.8])
    mine = rows([-2.0, -4.0, -6.0], [1.0, None, -1.0], [0.5, 0.1, 0.6])
    found = row_figures.figures_of(mine, base, row_figures.resampled_rows(base["context"]))
    assert found["log_prob_per_token"]["value"] == pytest.approx(-12 / 8)
    assert found["gain_per_token"]["value"] == pytest.approx(4 / 8)
    assert found["reference_accuracy"]["value"] == 0.5
    assert found["cost"]["value"] == pytest.approx(0.4)
    assert found["cost_saved"]["value"] == pytest.approx(0.2)
    assert found["cost_saved_where_both_finish"]["value"] == pytest.approx((0.0 + 0.2) / 2)
    assert found["finished"]["value"] == pytest.approx(2 / 3)
    assert found["length_ratio"]["value"] == 2.0
    # Contexts are resampled whole: both rows of "a" twice, both contexts, or "b" twice.
    assert found["gain_per_token"]["interval"] == pytest.approx([2 / 4, 2 / 4])
    assert found["cost_saved"]["interval"] == pytest.approx([0.2, 0.2])
    assert found["length_ratio"]["interval"] == pytest.approx([1.5, 3.0])
    own = row_figures.figures_of(base, base, row_figures.resampled_rows(base["context"]))
    nothing = {"value": 0.0, "interval": [0.0, 0.0]}
    assert own["gain_per_token"] == own["cost_saved"] == own["cost_saved_where_both_finish"] == nothing


def test_a_resampled_log_keeps_the_rows_of_a_context_together() -> None:
    for draw in row_figures.resampled_rows(["a", "b", "a", "c"])[:50]:
        assert sorted(draw[draw == 0] + 2) == sorted(draw[draw == 2])


@pytest.fixture
def small(base: Any, monkeypatch: pytest.MonkeyPatch, one_process: None) -> Path:
    """A tiny base's folder; every data set is one fold of made-up rows, and a fit is short."""
    log = small_log(48)
    fold = Fold(tuple(log[:40]), tuple(log[40:]))
    monkeypatch.setattr(real, "_folds", lambda name, data: [fold])
    monkeypatch.setattr(real, "FitConfig", lambda methods: short(methods))
    folder: Path = base(chat=True)
    return folder


def short(methods: Any) -> FitConfig:
    return FitConfig(
        methods=methods,
        epochs=1,
        evaluations=1,
        validation=0.25,
        validation_samples=2,
        lora={"rank": 2},
        max_new_tokens=6,
    )


def test_each_policy_is_measured_once(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {
        "base": str(small),
        "work": tmp_path / "work",
        "methods": ("sft", "dpo", "kto"),
    }
    found = real.run(tmp_path, data_sets=("lamp",), **options)["data_sets"]["lamp"]
    assert list(found["policies"])[:4] == ["base", "sft", "dpo", "kto"]
    assert found["rows"] == 8 and len(found["texts"]) == real.SHOWN
    assert found["policies"]["sft"]["gain_per_token"]["value"] != 0
    page = (tmp_path / "real.md").read_text(encoding="utf-8")
    assert "8 test rows" in page and "| sft" in page

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(Policy, "sample", never)
    monkeypatch.setattr(row_figures, "score", never)
    shutil.rmtree(tmp_path / "work" / "lamp-0" / "run")  # what is measured needs its fit no more
    again = real.run(tmp_path, data_sets=("lamp",), **options)
    assert again["data_sets"]["lamp"] == found
    assert f"fit 1, on {machine_name()}" in page
    with pytest.raises(RunError, match="another fit"):
        real.run(tmp_path, data_sets=("lamp",), **options | {"methods": ("sft",)})


def test_a_method_without_rows_is_left_out(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = [record for record in small_log(60) if record.edit != record.response]
    monkeypatch.setattr(real, "_folds", lambda name, data: [Fold(tuple(log[:32]), tuple(log[32:36]))])
    real.run(tmp_path, base=str(small), work=tmp_path / "work", data_sets=("lamp",), methods=("sft", "kto"))
    assert "Without dpo, early, rl, kto, mixture: not every fit" in (tmp_path / "real.md").read_text(
        encoding="utf-8"
    )


def test_an_unknown_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown data set"):
        real.run(tmp_path, data_sets=("laamp",))


def test_the_table_goes_on_and_shares_drafts(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_process: None
) -> None:
    changes = short(("sft",)).model_dump(
        include={"epochs", "evaluations", "validation", "validation_samples"}
    )
    monkeypatch.setattr(real_table, "TRAINABLE", ("sft", "dpo"))
    few = tuple({**changes, "max_new_tokens": 8}.items())
    size = TableOnRealBase(str(base(chat=True)), "float32", (1,), 24, 5, few)
    asked: list[int] = []
    sample = Policy.sample

    def counted(self: Policy, contexts: Any, **named: Any) -> Any:
        asked.append(len(contexts))
        return sample(self, contexts, **named)

    monkeypatch.setattr(Policy, "sample", counted)
    found = real_table.run(tmp_path, work=tmp_path / "work", settings=size)
    assert [(cell["trained"], cell["seed"]) for cell in found["cells"]] == [("strong", 1), ("weak", 1)]
    for cell in found["cells"]:
        costs = cell["costs"][PAPER_COST]
        assert {"base", "sft", "dpo", "late"} <= costs.keys() and all(np.isfinite(list(costs.values())))
        assert sum(cell["shares"][PAPER_COST].values()) == pytest.approx(1)
    # The base's drafts of the rounds are the same whoever edited the log.
    assert len({cell["costs"][PAPER_COST]["base"] for cell in found["cells"]}) == 1
    before = len(asked)
    for folder in (tmp_path / "work").glob("*/run"):
        shutil.rmtree(folder)
    again = real_table.run(tmp_path, work=tmp_path / "work", settings=size)
    assert len(asked) == before
    assert [cell["costs"] for cell in again["cells"]] == [cell["costs"] for cell in found["cells"]]
    page = (tmp_path / "real-table.md").read_text(encoding="utf-8")
    assert "| DPO | " in page and "| 0.337 |" in page  # the paper's, beside ours
