"""The benchmark of training speed: its workload has the stated shape, its arms run, its results add up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import train_arms, train_spec, train_speed
from benchmarks.train_spec import Spec
from benchmarks.train_workload import SIZES, Size, build_base, build_tokenizer, count_tokens, make_pairs
from editloop.errors import ConfigError
from editloop.offline import make_examples
from editloop.policy import Encoder

PARAMETERS = {"10m": 10.1e6, "0.5b": 0.49e9, "1.5b": 1.54e9, "3b": 3.09e9, "8b": 8.03e9}


@pytest.mark.parametrize("name", SIZES)
def test_bases_have_the_size_of_their_name(name: str) -> None:
    model = build_base(name, "meta")
    assert model.num_parameters() == pytest.approx(PARAMETERS[name], rel=0.01)
    assert model.config._attn_implementation == "sdpa"
    assert len(build_tokenizer()) <= model.config.vocab_size


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown size"):
        build_base("70b", "meta")


@pytest.mark.parametrize("shared", [0.0, 0.25, 0.5, 0.75])
def test_pairs_share_what_is_asked(shared: float) -> None:
    rows = make_pairs(60, tokens=240, shared=shared)
    trees = [each.tree for each in make_examples(rows, Encoder(build_tokenizer(), 4096)).examples]
    sequences = [[len(tree.context) + len(c) for c in tree.continuations] for tree in trees]
    assert [sum(each) for each in sequences] == [count_tokens(row, "dpo") for row in rows]
    assert [each[0] for each in sequences] == [count_tokens(row, "sft") for row in rows]
    in_common = [2 * (len(t.context) + t.fork) / sum(each) for t, each in zip(trees, sequences, strict=True)]
    assert np.mean(in_common) == pytest.approx(shared, abs=0.01)
    assert np.median(sequences) == pytest.approx(240, rel=0.15) and np.std(np.log(sequences)) > 0.3
    assert rows == make_pairs(60, tokens=240, shared=shared)


@pytest.mark.parametrize(
    ("arm", "method"), [("ours", "early"), ("ours", "rl"), ("trl tuned", "dpo"), ("trl tuned", "sft")]
)
def test_an_arm_is_timed(arm: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setitem(SIZES, "tiny", Size(32, 64, 2, (2, 2), 8192, True, tokens=16, batch=2))
    measured = train_arms.measure(Spec(arm, (method,), str(tmp_path), "tiny", 0.5, steps=2))
    assert measured["seconds"] > 0 and measured["peak_mb"] > 100


def test_rl_is_timed_on_rows_of_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_spec, "LAB_BATCH", 2)
    measured = {
        method: train_arms.measure(Spec("ours", (method,), str(tmp_path / method), "summary", steps=1))
        for method in ("dpo", "rl")
    }
    assert all(each["seconds"] > 0 for each in measured.values())
    assert 1.5 < measured["rl"]["tokens"] / measured["dpo"]["tokens"] < 5


def test_the_passes_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", Size(32, 64, 2, (2, 2), 8192, True, tokens=16, batch=2))
    measured = train_arms.measure(Spec("ours", ("pass",), str(tmp_path), "tiny", 0.5, steps=2))
    assert measured["rows"] == 6
    assert all(measured[key] > 0 for key in ("reference", "features", "cost_model"))


def test_results_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    seconds = {"ours": 2.0, "trl tuned": 3.0, "trl default": 5.0}
    seen: list[Spec] = []

    def process(spec: Spec) -> dict[str, Any]:
        seen.append(spec)
        wall = 10.0 * (1 + (spec.arm != "ours"))
        if spec.methods == ("pass",):
            return {"reference": 10.0, "features": 10.4, "cost_model": 0.5, "rows": 4}
        each = seconds[spec.arm] * (1.5 if spec.methods == ("rl",) else 1)
        tokens = 30 if spec.methods == ("rl",) else 12
        return {"seconds": each, "peak_mb": 100.0 * each, "wall": wall, "tokens": tokens}

    monkeypatch.setattr(train_speed, "process", process)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    measured = train_speed.run(tmp_path, repeats=2, steps=1, whole_steps=1, step_size="10m")
    assert [spec.arm for spec in seen[1:5]] == ["ours", "trl tuned", "trl default", "ours"]
    assert len(seen) == 2 * (5 * 3 + 2 * 6 + 1 + 4) + 1
    assert [(each["times"], each["tokens"]) for each in measured["rl"]] == [(1.5, 2.5)] * 6
    assert [each["size"] for each in measured["rl"][4:]] == ["summary", "email"]
    assert measured["passes"]["added"] == pytest.approx(0.09)
    rate = measured["rates"][2]
    assert (rate["method"], rate["shared"], rate["goal"]) == ("dpo", 0.5, 1.4)
    assert rate["times_as_fast_as"] == {"trl tuned": 1.5, "trl default": 2.5}
    assert rate["tokens_per_second"]["ours"] == rate["tokens"] / 2
    assert (measured["whole"]["trl_seconds"], measured["whole"]["times_as_fast"]) == (60.0, 6.0)
    assert (seen[0].methods, seen[0].steps) == (("dpo",), 0)
    assert measured["step"]["peak_mb"] == 200.0
    assert measured["whole"]["rows"] == SIZES["10m"].batch
    assert json.loads((tmp_path / "train-speed.json").read_text())["left_out"] == ["0.5b", "1.5b", "3b", "8b"]
    assert "0.2 GB at its peak (goal: at most 24 GB)" in (tmp_path / "train-speed.md").read_text()
    assert "| 10m | dpo | 0.5 |" in (tmp_path / "train-speed.md").read_text()


def test_a_base_of_its_own_takes_the_place_of_the_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    folder = tmp_path / "Some-Base"
    monkeypatch.setitem(SIZES, "tiny", Size(32, 64, 2, (2, 2), 8192, True, tokens=16, batch=2))
    build_base("tiny", "cpu").save_pretrained(folder)
    seen: list[Spec] = []

    def process(spec: Spec) -> dict[str, Any]:
        seen.append(spec)
        figures = {"reference": 10.0, "features": 10.4, "cost_model": 0.5, "rows": 4}
        return figures | {"seconds": 1.0, "peak_mb": 100.0, "wall": 1.0, "tokens": 12}

    monkeypatch.setattr(train_speed, "process", process)
    measured = train_speed.run(
        tmp_path, repeats=1, steps=1, whole_steps=1, base=str(folder), step_size="tiny"
    )
    assert {spec.size for spec in seen[1:]} == {str(folder)}
    assert {each["size"] for each in measured["rates"] + measured["rl"]} == {"Some-Base"}
    assert not measured["left_out"]
    page = (tmp_path / "train-speed-some-base.md").read_text()
    assert "| Some-Base | sft |" in page and str(tmp_path) not in page


@pytest.mark.parametrize("arm", ["ours", "trl tuned"])
def test_an_arm_is_timed_on_the_rows_of_a_log_with_the_tokenizer_of_the_base(
    base: Any, arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(train_spec, "LOG_BATCH", 2)
    rows = [{"context": f"say {i}", "response": f"ab {i}", "edit": f"abc {i}"} for i in range(8)]
    rows.insert(0, {"context": "say", "response": "ab", "edit": "ab"})  # which is no pair
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = Spec(arm, ("dpo",), str(tmp_path), str(base(chat=True)), steps=2, log=str(tmp_path / "log.jsonl"))
    taken, batch = train_spec.make_rows(spec)
    assert [row.context for row in taken] == [f"say {i}" for i in range(6)] and batch == 2
    assert train_arms.measure(spec)["seconds"] > 0
    with pytest.raises(ConfigError, match="10 edited rows: 8"):
        train_spec.make_rows(replace(spec, steps=4))
