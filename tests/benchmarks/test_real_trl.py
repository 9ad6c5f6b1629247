"""The comparison with TRL on people's edits: arms are scored alike, results add up and are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import real_trl
from benchmarks.real_trl import Settings, pooled
from benchmarks.real_trl_arms import RealSpec, measure
from benchmarks.train_spec import write_rows
from editloop.edits import Record
from editloop.errors import ConfigError, RunError

pytest.importorskip("trl")


def rows(count: int, first: int = 0) -> list[Record]:
    """Rows of which every fourth is unedited."""
    return [
        Record(context=f"say {i}", response=f"abc {i}", edit=f"abc {i}" if i % 4 == 0 else f"abd {i}")
        for i in range(first, first + count)
    ]


@pytest.fixture
def spec(base: Any, tmp_path: Path) -> RealSpec:
    train = write_rows(rows(24), tmp_path / "train.jsonl")
    test = write_rows(rows(8, first=20), tmp_path / "test.jsonl")
    folder = tmp_path / "work"
    return RealSpec("", (), str(base(chat=True)), train, test, 2, str(tmp_path / "reference"), str(folder))


@pytest.mark.parametrize(
    ("arm", "methods"),
    [
        ("ours tuned", ("sft", "dpo")),
        ("trl tuned", ("early",)),
        ("trl default", ("sft",)),
        ("trl default", ("dpo",)),
    ],
)
def test_an_arm_learns_and_is_scored(
    spec: RealSpec, arm: str, methods: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    spec = replace(spec, arm=arm, methods=methods)
    assert RealSpec.from_json(spec.to_json()) == spec
    measured = measure(spec)
    assert list(measured["scores"]) == list(methods)
    assert measured["processor_seconds"] > 0 and measured["peak_mb"] > 100
    for scores in measured["scores"].values():
        found = pooled([scores])
        assert (len(found.chosen), len(found.pair)) == (8, 6)
        assert not np.allclose(found.chosen, found.ref_chosen, atol=1e-6)  # it has learned
        assert found.lengths.tolist() == [7.0] * 8  # six characters and the end token


def test_folds_are_pooled_as_one_set_of_rows() -> None:
    part = {"chosen": [-1.0, -3.0], "lengths": [1.0, 2.0], "ref_chosen": [-2.0, -2.0]}
    part |= {"pair": [1], "rejected": [-4.0], "ref_rejected": [-1.0]}
    both = pooled([part, part])
    assert both.pair.tolist() == [1, 3]
    assert both.margin.tolist() == [-3 + 4 - (-2 + 1)] * 2
    figures = both.figures()
    assert figures["edit_nll_per_token"] is not None and figures["edit_nll_per_token"]["n"] == 4
    assert figures["edit_nll_per_token"]["mean"] == pytest.approx(8 / 6)


@pytest.fixture
def faked(base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A small folder of data, and processes that cost what is written here; `calls` counts them."""
    lines = [
        {"user": f"w{i % 3}"} | row.model_dump(include={"context", "response", "edit"})
        for i, row in enumerate(rows(40))
    ]
    (tmp_path / "lamp16.jsonl").write_text("\n".join(map(json.dumps, lines)))
    made: dict[str, Any] = {"calls": [], "data": tmp_path, "base": str(base(chat=True))}
    seconds = {"ours": 300.0, "ours tuned": 120.0, "trl tuned": 80.0, "trl default": 200.0}

    def in_process(_: str, argument: Any, name: str) -> dict[str, Any]:
        spec = RealSpec.from_json(argument("anywhere"))
        made["calls"].append(name)
        scores = {"chosen": [-1.0, -2.0], "lengths": [1.0, 1.0], "ref_chosen": [-2.0, -2.0]}
        scores |= {"pair": [0, 1], "rejected": [-3.0, -3.0], "ref_rejected": [-3.0, -1.0]}
        each = seconds[spec.arm]
        figures = {"seconds": 2 * each, "processor_seconds": each, "peak_mb": 10 * each, "machine": "a b"}
        return figures | {"scores": dict.fromkeys(spec.methods, scores)}

    def process(spec: Any) -> dict[str, Any]:
        made["calls"].append(spec.arm)
        return {"processor_seconds": {"ours": 1.0, "trl tuned": 2.0}.get(spec.arm, 3.0), "peak_mb": 5.0}

    monkeypatch.setattr(real_trl, "in_process", in_process)
    monkeypatch.setattr(real_trl, "process", process)
    return made


def test_results_add_up_and_are_kept(faked: dict[str, Any], tmp_path: Path) -> None:
    settings = Settings(sets=("lamp",), folds=2, rows=9, steps=3, speed_steps=1, repeats=1)
    options: dict[str, Any] = {"base": faked["base"], "data": faked["data"], "work": tmp_path / "work"}
    measured = real_trl.run(tmp_path, settings=settings, **options)
    assert len(faked["calls"]) == 2 * 7 + 2 * 3
    assert real_trl.run(tmp_path, settings=settings, **options) == measured
    assert len(faked["calls"]) == 2 * 7 + 2 * 3
    (found,) = measured["sets"]
    assert (found["train"], found["test"]) == (18, 18)
    three = found["costs"]["three"]
    assert three["trl tuned"] == {"minutes": 16.0, "processor_minutes": 8.0, "peak_mb": 800.0}
    assert (
        three["ours tuned"]["processor_minutes"] == 4.0
        and found["costs"]["times"]["processor_minutes"] == 2.0
    )
    assert found["speed"][1]["times_as_fast_as"] == {"trl tuned": 2.0, "trl default": 3.0}
    assert found["speed"][1]["tokens_per_second"]["ours"] == found["speed"][1]["tokens"]
    names = list(found["policies"])
    assert names[:3] == ["base", "sft, ours", "sft, ours tuned"] and len(names) == 1 + 4 + 4 + 3
    assert found["policies"]["base"]["edit_nll_per_token"]["mean"] == 2.0
    assert found["policies"]["dpo, trl default"]["edit_nll_per_token"]["mean"] == 1.5
    assert found["policies"]["dpo, trl default"]["reference_accuracy"]["mean"] == 1.0
    page = (tmp_path / "real-trl.md").read_text()
    assert (
        "On a b. Three policies take tuned TRL 2.00 times the processor time" in page
        and str(tmp_path) not in page
    )
    with pytest.raises(RunError, match="another comparison"):
        real_trl.run(tmp_path, settings=replace(settings, steps=4), **options)


def test_unknown_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown data"):
        real_trl.run(tmp_path, settings=Settings(sets=("fr-en",)), work=tmp_path)
