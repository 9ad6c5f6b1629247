"""Two processes on one log give the losses of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.edits import register_cost
from editloop.errors import ConfigError
from editloop.offline import FitConfig, fit
from editloop.policy import RunFolder, load_base
from small_log import small_log

CONFIG: dict[str, Any] = {
    "hyperparameters": {name: {"learning_rate": 1e-2} for name in ("sft", "dpo", "early")},
    "epochs": 2,
    "batch_size": 8,
    "evaluations": 3,
    "validation": 0.2,
    "validation_samples": 2,
    "max_new_tokens": 4,
    "lora": {"rank": 2},
}
PREDICTABLE = "length, for a test of two processes"
PROGRAM = """
import json, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/offline"]
from accelerate import PartialState
from small_log import small_log
from test_distributed import register_predictable
register_predictable()
from editloop.offline import fit, FitConfig
# Two rows in three were accepted: some parts of a batch hold one pair, or none.
fit(small_log(42, accepted=-3), sys.argv[2], sys.argv[3], FitConfig(**json.loads(sys.argv[4])))
state = PartialState()
Path(__file__).with_name(f"process {state.process_index} of {state.num_processes}").touch()
"""


def register_predictable() -> None:
    """Register a cost that follows from the length of a draft, which is 11 or 12 letters."""
    register_cost(PREDICTABLE, lambda responses, edits: np.array([len(r) / 2 - 5.3 for r in responses]))


def launch(folder: Path, base: str, out: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    # `accelerate launch --cpu` starts one process whatever --num_processes says, unless there is MPI.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    tests = str(Path(__file__).parents[1])
    arguments = [str(program), tests, base, str(out), json.dumps(CONFIG | options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        [*launcher, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


def losses(run: RunFolder) -> dict[str, list[float]]:
    found = {}
    for name, entry in run.manifest().policies.items():
        (trial,) = entry.trials
        trained = [h["loss"] for h in trial.history if "loss" in h]
        held = [h["eval_loss"] for h in trial.history if "eval_loss" in h]
        all_of_them = [*trained, *held, trial.initial_loss, trial.validation_loss]
        found[name] = [each for each in all_of_them if each is not None]
        assert len(found[name]) == len(all_of_them)
    return found


def test_two_processes_give_the_losses_of_one(base: Any, tmp_path: Path) -> None:
    folder = str(base(chat=True))
    done = launch(tmp_path, folder, tmp_path / "two")
    assert done.returncode == 0, done.stderr[-2000:]
    assert {each.name for each in tmp_path.glob("process *")} == {"process 0 of 2", "process 1 of 2"}
    two = RunFolder(tmp_path / "two")
    config = FitConfig(**CONFIG)
    one = fit(small_log(42, accepted=-3), load_base(folder, device="cpu"), tmp_path / "one", config)
    expected = losses(one)
    assert list(expected) == ["sft", "dpo", "early"]
    assert losses(two) == {name: pytest.approx(each, abs=1e-4) for name, each in expected.items()}
    assert max(each[0] - each[-1] for each in expected.values()) > 0.5  # something was learned
    assert two.manifest().identity == one.manifest().identity
    for name in expected:
        mine, theirs = (run.manifest().policies[name].best for run in (one, two))
        assert mine.sampled is not None and theirs.sampled is not None
        assert theirs.sampled.examples == mine.sampled.examples != []
        assert len(mine.validation) == len(theirs.validation) == 7
        for key, value in mine.validation.items():
            other = theirs.validation[key]
            assert value is not None and other is not None
            for part, number in value.model_dump().items():
                assert getattr(other, part) == pytest.approx(number, abs=1e-3), (key, part)
    left = ["policies", "report.html", "rows.npy", "run.json"]
    assert sorted(p.name for p in two.path.iterdir()) == left
    assert two.rows.read_bytes() == one.rows.read_bytes()


def test_two_processes_estimate_costs_and_choose_as_one(base: Any, tmp_path: Path) -> None:
    """Without sampled completions, which depend on the number of processes; with tuned features."""
    register_predictable()
    folder = str(base(chat=True))
    options = {
        "methods": ["rl", "early"],
        "hyperparameters": {
            "rl": {"learning_rate": 1e-3},
            "early": {"learning_rate": 1e-2, "rl_weight": 1.0},
        },
        "num_samples": 0,
        "cost_model": "auto",
        "cost": PREDICTABLE,
    }
    done = launch(tmp_path, folder, tmp_path / "two", **options)
    assert done.returncode == 0, done.stderr[-2000:]
    two = RunFolder(tmp_path / "two")
    config = FitConfig(**CONFIG | options)
    one = fit(small_log(42, accepted=-3), load_base(folder, device="cpu"), tmp_path / "one", config)
    ours, theirs = (run.manifest().cost_model for run in (one, two))
    assert ours is not None and theirs is not None
    assert theirs.kind == ours.kind
    assert list(theirs.tried) == list(ours.tried) == ["ridge", "bootstrap", "tuned"]
    for kind, figures in ours.tried.items():
        assert theirs.tried[kind].r2 == pytest.approx(figures.r2, abs=1e-2), kind
    expected = losses(one)
    assert list(expected) == ["rl", "early"]
    assert losses(two) == {name: pytest.approx(each, rel=1e-2, abs=1e-3) for name, each in expected.items()}
    # With samples, and with fewer rows to validate on than there are processes.
    changed = {"methods": ["rl"], "num_samples": 2, "cost_model": "ridge", "validation_rows": 1}
    sampled = launch(tmp_path, folder, tmp_path / "sampled", **options | changed)
    assert sampled.returncode == 0, sampled.stderr[-6000:]
    assert RunFolder(tmp_path / "sampled").manifest().status == "done"


def test_an_error_in_two_processes_ends_both(base: Any, tmp_path: Path) -> None:
    done = launch(tmp_path, str(base(chat=True)), tmp_path / "run", max_length=8)
    assert done.returncode != 0
    assert "EmptyViewError" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_launch_with_fsdp_is_refused(base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_base(str(base(chat=True)), device="cpu")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as `accelerate launch --use_fsdp` sets it
    with pytest.raises(ConfigError, match=r"\(FSDP\)"):
        fit(small_log(42), policy, tmp_path / "run")
    assert not (tmp_path / "run").exists()
