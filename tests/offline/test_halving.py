"""Successive halving: how far each trial is trained, and that the kept policy is a whole training's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from editloop.offline import EditTrainer, FitConfig, fit
from editloop.offline import selection as selection_module
from editloop.policy import Policy, RunFolder, load_base
from small_log import RecordingCallback, small_log

RATES = (1e-6, 1e-2, 3e-3, 1e-5)
LOWEST_FIRST = (1, 2)
"""The places of the two rates that learn something."""


def config(*rates: float, **changes: Any) -> FitConfig:
    settings: dict[str, Any] = {
        "methods": ("sft",),
        "hyperparameters": {"sft": {"learning_rate": rates}},
        "epochs": 4,
        "batch_size": 4,
        "evaluations": 8,
        "validation": 0.25,
        "validation_samples": 2,
        "max_new_tokens": 8,
        "lora": {"rank": 4, "alpha": 8},
    }
    return FitConfig(**(settings | changes))


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(chat=True), device="cpu")


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(run.policy_path("sft") / "adapter_model.safetensors")


def same(one: RunFolder, other: RunFolder) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def losses(run: RunFolder) -> list[float | None]:
    """The losses of training and validation of the chosen trial, in their order."""
    history = run.manifest().policies["sft"].best.history
    return [entry[key] for entry in history for key in ("loss", "eval_loss") if key in entry]


@pytest.fixture(scope="module")
def halved(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RecordingCallback]:
    callback = RecordingCallback()
    out = tmp_path_factory.mktemp("halved") / "run"
    return fit(small_log(), policy, out, config(*RATES), callback=callback), callback


def test_the_worse_half_is_dropped_at_each_rung(halved: tuple[RunFolder, RecordingCallback]) -> None:
    entry = halved[0].manifest().policies["sft"]
    steps = max(trial.steps for trial in entry.trials)
    every = steps // 8
    assert [trial.hyperparameters["learning_rate"] for trial in entry.trials] == list(RATES)
    assert sorted(trial.steps for trial in entry.trials) == [every, every, 2 * every, steps]
    assert [trial.dropped for trial in entry.trials].count(True) == 3
    assert entry.chosen in LOWEST_FIRST and not entry.best.dropped and entry.best.steps == steps
    assert [entry.trials[i].steps for i in (0, 3)] == [every, every]


def test_a_dropped_trial_has_figures_and_no_samples(halved: tuple[RunFolder, RecordingCallback]) -> None:
    for trial in halved[0].manifest().policies["sft"].trials:
        assert trial.validation_loss is not None and trial.initial_loss is not None and trial.validation
        assert (trial.sampled is None) == trial.dropped


def test_it_is_said(halved: tuple[RunFolder, RecordingCallback]) -> None:
    assert sum("dropped after" in line for line in halved[1].lines) == 3


def test_what_is_kept_is_the_policy_of_a_whole_training(
    halved: tuple[RunFolder, RecordingCallback], policy: Policy, tmp_path: Path
) -> None:
    rate = halved[0].manifest().policies["sft"].best.hyperparameters["learning_rate"]
    alone = fit(small_log(), policy, tmp_path / "run", config(rate))
    assert same(halved[0], alone)
    assert losses(halved[0]) == losses(alone)


@pytest.mark.parametrize("at", [1, 3, 4, 6, 12])
def test_a_fit_that_was_killed_continues_to_the_same_policy(
    halved: tuple[RunFolder, RecordingCallback],
    policy: Policy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    """Killed at the `at`-th evaluation, whichever trial and rung that is in."""
    count, evaluate = [0], EditTrainer.evaluate

    def killed(self: EditTrainer, *args: Any, **named: Any) -> dict[str, float]:
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt
        return evaluate(self, *args, **named)

    with monkeypatch.context() as patched:
        patched.setattr(EditTrainer, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(small_log(), policy, tmp_path / "run", config(*RATES))
    assert same(halved[0], fit(small_log(), policy, tmp_path / "run", config(*RATES)))


def test_a_kill_after_the_rungs_checkpoint_trains_no_further_than_the_rung(
    halved: tuple[RunFolder, RecordingCallback],
    policy: Policy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from editloop.offline import trial as trial_module

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # the checkpoint is written, and the rung's figures are not
        patched.setattr(trial_module, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(small_log(), policy, tmp_path / "run", config(*RATES))
    continued = fit(small_log(), policy, tmp_path / "run", config(*RATES))
    assert same(halved[0], continued)
    steps = [
        [trial.steps for trial in run.manifest().policies["sft"].trials] for run in (halved[0], continued)
    ]
    assert steps[0] == steps[1]


def test_nothing_is_dropped_by_its_loss_where_the_cost_decides(policy: Policy, tmp_path: Path) -> None:
    hyperparameters = {"dpo": {"learning_rate": (1e-6, 1e-2), "beta": (0.1, 0.5)}}
    settings = config(1e-2, methods=("dpo",), hyperparameters=hyperparameters, select="cost")
    trials = fit(small_log(), policy, tmp_path / "run", settings).manifest().policies["dpo"].trials
    assert len(trials) == 4 and not any(trial.dropped for trial in trials)
    assert len({trial.steps for trial in trials}) == 1


def test_a_grid_of_one_and_a_full_product_have_no_rung(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: list[int | None] = []
    train = selection_module.train_trial

    def recorded(*args: Any) -> dict[str, Any]:
        stops.append(args[-1])
        return train(*args)

    monkeypatch.setattr(selection_module, "train_trial", recorded)
    fit(small_log(), policy, tmp_path / "one", config(1e-2))
    fit(small_log(), policy, tmp_path / "all", config(1e-2, 1e-3, halving=False))
    assert stops == [None, None, None]
