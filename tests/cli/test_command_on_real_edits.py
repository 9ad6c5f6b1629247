"""The command on edits that people made, with a small base trained from their own English."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from editloop.edits import read_log, write_log
from editloop.lab import TextRecipe, pretrain_text

DATA = Path(os.environ.get("EDITLOOP_DATA", Path(__file__).parents[2] / "../shared/data"))
LAMP = ["--map", "context=instruction,response=preedit,edit=postedit,user=writer,policy=source"]
MLQE = ["--map", "context=src,response=mt,edit=pe", "--quote", '"']

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real edits in {DATA}; set EDITLOOP_DATA")


@pytest.fixture(scope="module")
def small_base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    edits = [record.edit or "" for record in read_log(DATA / "lamp.w12.jsonl", map=LAMP[1])]
    (folder / "text.txt").write_text("\n".join(edits), encoding="utf-8")
    recipe = TextRecipe(vocabulary=600, hidden_size=48, layers=2, heads=4, epochs=1, minutes=1)
    pretrain_text([folder / "text.txt"], folder / "base", recipe)
    return folder / "base"


def command(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "editloop", *map(str, arguments)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("file", "columns", "observed"),
    [
        ("lamp.w12.jsonl", LAMP, "Of 50 observed: 100% edited"),
        ("lamp.w16.jsonl", LAMP, "Of 50 observed: 100% edited"),
        ("mlqe_pe.ro-en.train.tsv", MLQE, "Of 7000 observed: 90% edited"),
    ],
)
def test_inspect(file, columns, observed, tmp_path):
    out = command("inspect", DATA / file, *columns, "--out", tmp_path / "seen")
    assert observed in out and ": 0 bad" in out
    assert (tmp_path / "seen/cost-distribution.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("file", "columns", "rows"),
    [("lamp.w12.jsonl", LAMP, 50), ("lamp.w16.jsonl", LAMP, 50), ("mlqe_pe.ro-en.dev.tsv", MLQE, 1000)],
)
def test_fit_and_evaluate(file, columns, rows, small_base, tmp_path):
    few = [
        "--methods",
        "sft,dpo",
        "--set",
        "learning_rate=1e-3",
        "--epochs",
        "0.25",
        "--validation-samples",
        "2",
    ]
    out = command(
        "fit", DATA / file, *columns, "--base", small_base, "--out", tmp_path / "run",
        *few, "--max-new-tokens", "16", "--max-length", "1024", "--evaluations", "1",
    )  # fmt: skip
    assert f"read {rows} rows" in out
    data = json.loads((tmp_path / "run/run.json").read_text())["data"]
    kept = data["train"]["examples"] + data["validation"]["examples"]
    assert kept == rows - sum(part["counts"].get("context too long", 0) for part in data.values())
    held_out = read_log(DATA / "mlqe_pe.et-en.dev.tsv", map=MLQE[1], quote='"').records[:100]
    write_log(held_out, tmp_path / "held-out.jsonl")
    assert "100 rows" in command("evaluate", tmp_path / "run", tmp_path / "held-out.jsonl")
