"""A fit that was killed can be continued, and ends with the same weights as an uninterrupted one."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel

from editloop.errors import RunError
from editloop.offline import EditTrainer, FitConfig, fit
from editloop.policy import Policy, RunFolder, load_base
from editloop.progress import ProgressCallback
from small_log import RecordingCallback, small_log

CONFIG: dict[str, Any] = {
    "methods": ["sft", "dpo"],
    "hyperparameters": {"sft": {"learning_rate": 1e-2}, "dpo": {"learning_rate": 3e-3}},
    "epochs": 2.7,  # no whole number of epochs, so that the last step lies within one
    "batch_size": 8,
    "micro_batch_size": 4,
    "evaluations": 4,
    "validation": 0.2,
    "validation_samples": 2,
    "max_new_tokens": 4,
    "lora": {"rank": 2, "dropout": 0.2},  # dropout draws from the random state, which must be restored
}
STEPS = {"sft": 11, "dpo": 9}  # 32 rows, of which 26 or so are pairs, in batches of 8


class Killed(BaseException):
    """Raised where a process would be killed; no `except Exception` catches it."""


class KillAt:
    """A callback that stops the fit when a task has made its n-th step."""

    def __init__(self, task: str, step: int) -> None:
        self.task, self.step = task, step
        self.lines: list[str] = []

    def message(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        if (task, done) == (self.task, self.step):
            raise Killed


def config(**changes: Any) -> FitConfig:
    return FitConfig(**(CONFIG | changes))


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base("gpt2"), device="cpu")


def run_fit(policy: Policy, out: Path, callback: ProgressCallback | None = None, **changes: Any) -> RunFolder:
    return fit(small_log(), policy, out, config(**changes), callback=callback)


Result = dict[str, Any]


def result(run: RunFolder) -> Result:
    """Everything that an interruption must not change: the weights, and all figures but the seconds."""
    found: Result = {}
    for name, entry in run.manifest().policies.items():
        (trial,) = entry.trials
        losses = [(h["step"], h["loss"]) for h in trial.history if "loss" in h]
        figures = trial.model_dump(exclude={"seconds", "history"})
        files = sorted(run.policy_path(name).glob("*.safetensors"))
        found[name] = ([f.read_bytes() for f in files], figures, losses, entry.alarms)
    return found


@pytest.fixture(scope="module")
def whole(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Result:
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("whole")
        patched.setenv("EDITLOOP_CACHE", str(folder / "cache"))
        return result(run_fit(policy, folder / "run"))


def test_the_uninterrupted_fit_is_the_same_twice(policy: Policy, whole: Result, tmp_path: Path) -> None:
    assert result(run_fit(policy, tmp_path / "run")) == whole
    assert whole["sft"][0] != whole["dpo"][0]
    assert len(whole["sft"][2]) == STEPS["sft"]


@pytest.mark.parametrize(
    ("task", "step"),
    [("sft", 1), ("sft", 5), ("sft", 6), ("sft", 11), ("dpo", 1), ("dpo", 3)],
)
def test_killed_in_a_training(policy: Policy, whole: Result, tmp_path: Path, task: str, step: int) -> None:
    out, killer = tmp_path / "run", KillAt(task, step)
    with pytest.raises(Killed):
        run_fit(policy, out, killer)
    assert not hasattr(policy.model, "peft_config")
    assert RunFolder(out).manifest().status == "running"
    assert list(RunFolder(out).manifest().policies) == ([] if task == "sft" else ["sft"])
    again = run_fit(policy, out)
    assert result(again) == whole
    assert again.manifest().status == "done"
    assert not again.work.exists()


@pytest.mark.parametrize("moment", ["before the figures", "before the manifest", "while it is copied"])
def test_killed_after_a_training(
    policy: Policy, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """All steps are done and the last checkpoint is there, but nothing that follows."""
    selection, trial = (sys.modules[f"editloop.offline.{name}"] for name in ("selection", "trial"))

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if moment == "before the figures":
            patched.setattr(trial, "check_samples", killed)
        elif moment == "before the manifest":
            patched.setattr(selection, "raise_alarms", killed)
        else:
            patched.setattr(selection, "_copy", killed)
        with pytest.raises(Killed):
            run_fit(policy, tmp_path / "run")
    assert RunFolder(tmp_path / "run").manifest().policies == {}
    assert result(run_fit(policy, tmp_path / "run")) == whole


@pytest.mark.parametrize("how", ["state cut", "state missing", "state empty", "weights cut"])
def test_killed_while_a_checkpoint_is_written(
    policy: Policy, whole: Result, tmp_path: Path, how: str
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run_fit(policy, out, KillAt("sft", 7))
    folder = out / ".work" / "sft"
    (last,) = sorted(folder.glob("*/checkpoint-6"))
    if how == "state missing":
        (last / "trainer_state.json").unlink()
    elif how == "weights cut":
        (weights,) = last.glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        text = (last / "trainer_state.json").read_text()
        (last / "trainer_state.json").write_text(text[:200] if how == "state cut" else "")
    assert result(run_fit(policy, out)) == whole


class Filling(RecordingCallback):
    """A callback that fills the disk at a step of the first training.

    It lowers the system's limit on the length of a file, so the state of the optimiser cannot be written
    whole.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.limits = folder, resource.getrlimit(resource.RLIMIT_FSIZE)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        super().progress(task, done, total, note)
        if (task, done) == ("sft", 5):
            (state,) = self.folder.glob("checkpoint-4/optimizer.pt")
            resource.setrlimit(resource.RLIMIT_FSIZE, (state.stat().st_size - 1, self.limits[1]))


def test_a_disk_that_gets_full_while_a_checkpoint_is_written(
    policy: Policy, whole: Result, tmp_path: Path
) -> None:
    """The error is one line, and the fit continues from the checkpoint before it."""
    out = tmp_path / "run"
    full = Filling(out / ".work/sft" / config().trials("sft")[0].name)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(RunError, match=r"cannot write to the run folder: .*free space and run") as caught:
            run_fit(policy, out, full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, full.limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "\n" not in str(caught.value)
    assert full.steps[-1][:2] == ("sft", 6)  # the checkpoint of step 6 is the one that was not written
    callback = RecordingCallback()
    assert result(run_fit(policy, out, callback)) == whole
    assert [done for task, done, _ in callback.steps if task == "sft"][:2] == [
        5,
        6,
    ]  # from checkpoint 4


def test_killed_while_a_file_or_a_policy_is_written(policy: Policy, whole: Result, tmp_path: Path) -> None:
    """First in the very first `run.json`, then in the copy of a policy."""
    out = tmp_path / "run"
    out.mkdir()
    (out / ".run.json.k1ll").write_text("{")
    with pytest.raises(Killed):
        run_fit(policy, out, KillAt("dpo", 1))
    for half in (out / "policies" / ".dpo.k1ll", out / ".run.json.k1ll"):
        half.mkdir()
        (half / "adapter_config.json").touch()
    again = run_fit(policy, out)
    assert result(again) == whole
    assert sorted(p.name for p in out.rglob("*") if p.parent in (out, out / "policies")) == [
        "dpo",
        "policies",
        "report.html",
        "rows.npy",
        "run.json",
        "sft",
    ]


def test_stopped_early_and_killed_before_the_best_weights_were_loaded(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learning rate so high that the loss rises: patience ends the training before its last step."""
    hot = {
        "methods": ["sft"],
        "hyperparameters": {"sft": {"learning_rate": 0.3}},
        "patience": 1,
        "evaluations": 11,
        "validation_samples": 0,
    }
    expected = result(run_fit(policy, tmp_path / "whole", **hot))
    assert (expected["sft"][1]["best_step"], expected["sft"][1]["steps"]) == (1, 2)

    def killed(_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(EditTrainer, "_load_best_model", killed)
        with pytest.raises(Killed):
            run_fit(policy, tmp_path / "run", **hot)
    checkpoints = sorted((tmp_path / "run").glob(".work/sft/*/checkpoint-*"))
    assert [c.name for c in checkpoints] == ["checkpoint-1", "checkpoint-2"]
    assert result(run_fit(policy, tmp_path / "run", **hot)) == expected


def test_a_run_folder_that_was_moved_is_continued(
    policy: Policy, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its last step: the best checkpoint is only to be loaded, from where it is now."""

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["editloop.offline.trial"], "check_samples", killed)
        with pytest.raises(Killed):
            run_fit(policy, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert result(run_fit(policy, tmp_path / "moved")) == whole


def test_full_training_is_resumed_to_the_same_weights(policy: Policy, tmp_path: Path) -> None:
    options = {
        "methods": ["sft"],
        "full": True,
        "hyperparameters": {"sft": {"learning_rate": 1e-3}},
        "validation_samples": 0,
    }
    expected = result(run_fit(policy, tmp_path / "whole", **options))
    with pytest.raises(Killed):
        run_fit(policy, tmp_path / "run", KillAt("sft", 5), **options)
    assert result(run_fit(policy, tmp_path / "run", **options)) == expected


def test_a_finished_method_is_not_trained_again(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run_fit(policy, out, KillAt("dpo", 1))
    trained: list[str] = []
    original = EditTrainer.train

    def watched(self: Any, *arguments: Any, **named: Any) -> Any:
        trained.append(self.trial.method.name)
        return original(self, *arguments, **named)

    monkeypatch.setattr(EditTrainer, "train", watched)
    run_fit(policy, out)
    assert trained == ["dpo"]


def test_nothing_is_prepared_for_a_trial_that_is_finished(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the trial and the manifest; KTO's reference pass is its own, and the cache is gone."""
    options: dict[str, Any] = {
        "methods": ["kto"],
        "hyperparameters": {"kto": {"learning_rate": 1e-3}},
        "epochs": 0.3,
        "validation_samples": 0,
    }

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["editloop.offline.selection"], "_copy", killed)
        with pytest.raises(Killed):
            run_fit(policy, tmp_path / "run", **options)
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "empty"))
    callback = RecordingCallback()
    run_fit(policy, tmp_path / "run", callback, **options)
    assert "kto: finished by an earlier process" in callback.lines
    assert not [task for task, *_ in callback.steps if task.startswith("kto")]


PROGRAM = """
import json, sys
sys.path[:0] = [sys.argv[1]]
from small_log import small_log
from editloop.offline import fit, FitConfig
fit(small_log(), sys.argv[2], sys.argv[3], FitConfig(**json.loads(sys.argv[4])))
"""


def test_a_process_that_is_killed_outright(policy: Policy, whole: Result, tmp_path: Path) -> None:
    """SIGKILL, as soon as the second checkpoint is there, whatever the process is doing then."""
    out, tests = tmp_path / "run", Path(__file__).parents[1]
    # The weights do not distinguish two folders: the subprocess has the same base.
    command = [sys.executable, "-c", PROGRAM, str(tests), policy.base, str(out), json.dumps(CONFIG)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob(".work/sft/*/checkpoint-[4-9]*")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert RunFolder(out).manifest().status == "running"
    assert result(run_fit(policy, out)) == whole


def test_a_killed_fit_goes_on_with_a_smaller_micro_batch(base: Any, tmp_path: Path) -> None:
    # A base and an adapter without dropout, which draws anew for each forward.
    policy, options = load_base(base("llama"), device="cpu"), {"lora": {"rank": 2}}
    whole = run_fit(policy, tmp_path / "whole", **options).manifest()
    with pytest.raises(Killed):
        run_fit(policy, tmp_path / "run", KillAt("sft", 7), **options)
    smaller = {"micro_batch_size": 1, "gradient_checkpointing": True, "memory": "50GB"}
    again = run_fit(policy, tmp_path / "run", **options, **smaller).manifest()
    for name, expected in whole.policies.items():
        (mine,), (theirs,) = again.policies[name].trials, expected.trials
        assert mine.steps == theirs.steps
        assert mine.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-4)


def test_a_method_that_depends_on_what_shares_a_forward_keeps_its_micro_batch(
    policy: Policy, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"methods": ["kto"], "hyperparameters": {"kto": {"learning_rate": 1e-2}}}
    with pytest.raises(Killed):
        run_fit(policy, tmp_path / "run", KillAt("kto", 2), **options)
    with pytest.raises(RunError, match="another log, base or configuration"):
        run_fit(policy, tmp_path / "run", **options, micro_batch_size=2)
    assert (
        run_fit(policy, tmp_path / "run", **options, gradient_checkpointing=True).manifest().status == "done"
    )


RL: dict[str, Any] = {
    "methods": ["rl", "early"],
    "hyperparameters": {
        "rl": {"learning_rate": 1e-2},
        "early": {"learning_rate": 1e-2, "rl_weight": 1.0},
    },
    "num_samples": 2,
    "cost_model": "tuned",
    "micro_batch_size": None,
}


def test_a_fit_with_rl_goes_on_from_wherever_it_was_killed(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "whole"))
    run = run_fit(policy, tmp_path / "whole run", **RL)
    expected, cost_model = result(run), run.manifest().cost_model
    assert cost_model is not None and cost_model.kind == "tuned"
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "other"))
    for task, step in (("features", 40), ("sampled completions", 32), ("rl", 5), ("early", 3)):
        with pytest.raises(Killed):
            run_fit(policy, tmp_path / "run", KillAt(task, step), **RL)
    assert (tmp_path / "run/.work/cost_model/adapter_config.json").is_file()
    (tmp_path / "run/.cost_model.left").mkdir()  # of a kill while the cost model was being written
    again = run_fit(policy, tmp_path / "run", **RL)
    assert result(again) == expected
    assert again.manifest().cost_model == cost_model
    left = ["cost_model", "policies", "report.html", "rows.npy", "run.json"]
    assert sorted(path.name for path in again.path.iterdir()) == left
    adapter = "adapter/adapter_model.safetensors"
    assert (again.cost_model / adapter).read_bytes() == (run.cost_model / adapter).read_bytes()


def test_killed_while_the_adapter_of_tuned_features_is_written(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: Any, folder: str, **_: Any) -> None:
        Path(folder, "adapter_config.json").write_text("{")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(PeftModel, "save_pretrained", cut)
        with pytest.raises(Killed):
            run_fit(policy, tmp_path / "run", **RL)
    again = run_fit(policy, tmp_path / "run", **RL)
    assert result(again) == result(run_fit(policy, tmp_path / "whole", **RL))


def test_a_fit_that_begins_at_a_policy_goes_on_from_wherever_it_was_killed(
    policy: Policy, tmp_path: Path
) -> None:
    """The run folder of that policy may have been moved meanwhile."""
    first = run_fit(policy, tmp_path / "first", methods=["sft"])
    whole = result(run_fit(policy, tmp_path / "whole", start=f"{first.path}/sft"))
    assert whole["sft"][0] != result(first)["sft"][0]
    place = first.path
    for task, step in (("sft", 1), ("sft", 6), ("dpo", 1), ("dpo", 5)):
        with pytest.raises(Killed):
            run_fit(policy, tmp_path / "run", KillAt(task, step), start=f"{place}/sft")
        place = place.rename(place.with_name(f"moved-{task}-{step}"))
    assert result(run_fit(policy, tmp_path / "run", start=f"{place}/sft")) == whole
