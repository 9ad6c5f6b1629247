"""`editloop sweep`: command lines, a real sweep of which one fit fails, and going on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from small_log import small_log

FLAGS = (
    "--methods sft --epochs 0.5 --validation 0.2 --validation-samples 2 --max-new-tokens 4 --lora-rank 2 "
    "--device cpu --set sft.learning_rate=1e-2"
)


def test_a_dry_run_prints_command_lines_and_writes_nothing(editloop: Any, tmp_path: Path) -> None:
    status, out, _ = editloop("sweep", "log.jsonl", "--base", "m", "--grid", "seed=0,1", "--dry-run")
    assert status == 0
    assert [line.partition("fit ")[2] for line in out.splitlines()] == [
        f"log.jsonl --base m --out sweep/seed={seed} --seed {seed}" for seed in (0, 1)
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("grid", "word"),
    [
        ("lora.rnk=1", "perhaps lora.rank"),
        ("lora.rank=x", "--lora-rank"),
        ("lora.rank=-1", "lora.rank"),
        ("dpo.beta=-3", "dpo.beta"),
        ("methods=nonsense", "nonsense"),
        ("split_by=day", "split_by"),
    ],
)
def test_a_wrong_grid_is_one_line_before_anything_begins(
    editloop: Any, tmp_path: Path, grid: str, word: str
) -> None:
    status, _, err = editloop("sweep", "log.jsonl", "--base", "m", "--grid", grid)
    assert status in (1, 2) and word in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_cluster_or_parameter_is_one_line(editloop: Any) -> None:
    asked = ("sweep", "log.jsonl", "--base", "m", "--grid", "seed=0")
    for more, word in ((("--cluster", "cloud"), "cloud"), (("--cluster-set", "x"), "timeout_min")):
        status, _, err = editloop(*asked, *more)
        assert status == 1 and word in err and err.count("\n") == 1


def test_a_sweep_tells_what_failed_and_goes_on_with_that_alone(
    editloop: Any, base: Any, tmp_path: Path
) -> None:
    from editloop.edits import write_log

    write_log(small_log(20), tmp_path / "good.jsonl")
    asked = ("sweep", "--base", base(chat=True), "--grid", "log=good.jsonl,late.jsonl", "--with", FLAGS)
    status, out, err = editloop(*asked, "--jobs", 2)
    assert status == 1 and "1 of 2 fits failed" in err
    assert "of memory each" in out and "2 fits at a time" in out
    assert "no such log" in out and "sft" in out
    done = tmp_path / "sweep" / "log=good.jsonl"
    before = (done / "run.json").read_bytes()
    write_log(small_log(30), tmp_path / "late.jsonl")
    status, out, _ = editloop(*asked)
    assert status == 0 and "1 of 2 fits are done already" in out
    assert (done / "run.json").read_bytes() == before
    lines = json.loads((tmp_path / "sweep" / "results.json").read_text())["lines"]
    assert [line["setting"] for line in lines] == [{"log": "good.jsonl"}, {"log": "late.jsonl"}]
    assert sum(line["best"] for line in lines) == 1
    # The same runs with other flags are another sweep.
    status, _, err = editloop(*asked[:-1], FLAGS + " --seed 3")
    assert status == 1 and "other arguments" in err
