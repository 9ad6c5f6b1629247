"""The plan of a fit: what it counts, how it stays within memory, and what is left while it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from editloop.errors import ConfigError, RunError
from editloop.offline import FitConfig, fit, fitting, plan_fit
from editloop.offline import plan as plan_module
from editloop.offline import trial as trial_module
from editloop.offline.countdown import Countdown
from editloop.offline.plan import FitPlan, MethodPlan, memory_limit
from editloop.offline.speed import Speed, _of_all_lengths, measure_speed
from editloop.policy import ContextTree, Policy, load_base
from editloop.policy.memory import free_memory, used_memory
from small_log import RecordingCallback, small_log

CPU = torch.device("cpu")
SPEED = Speed(train=0.01, score=0.002, draw=0.05, resident=1e9, token=1e6, checkpointed=1e5, together=32)
CONFIG: dict[str, Any] = {
    "methods": ["sft", "dpo"],
    "hyperparameters": {"sft": {"learning_rate": 1e-2}, "dpo": {"learning_rate": 1e-2}},
    "epochs": 2,
    "batch_size": 8,
    "evaluations": 2,
    "validation": 0.2,
    "validation_samples": 0,
    "max_new_tokens": 4,
    "lora": {"rank": 2},
}


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


@pytest.fixture
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "measure_speed", lambda *_: SPEED)


def planned(policy: Policy, **changes: Any) -> FitPlan:
    return plan_fit(small_log(), policy, FitConfig(**(CONFIG | changes)), callback=RecordingCallback())


@pytest.mark.usefixtures("known_speed")
def test_the_steps_and_tokens_of_a_plan_are_those_of_the_fit(policy: Policy, tmp_path: Path) -> None:
    plan = planned(policy, memory="100GB")
    run = fit(small_log(), policy, tmp_path / "run", FitConfig(**CONFIG), callback=RecordingCallback())
    for each in plan.methods:
        trials = run.manifest().policies[each.name].trials
        assert each.steps == sum(trial.steps for trial in trials)
        assert each.trials == len(trials)
    sft, dpo = plan.methods
    assert sft.rows > dpo.rows
    assert sft.micro_batch == 8  # everything fits
    # The evaluations take less than the training, and more than nothing.
    trained = sft.tokens * SPEED.train
    assert trained < sft.seconds < 2 * trained


@pytest.mark.usefixtures("known_speed")
def test_trials_that_are_halved_on_the_way_take_fewer_steps(policy: Policy) -> None:
    grid = {"sft": {"learning_rate": (1e-4, 1e-3, 1e-2, 1e-1)}}
    options: dict[str, Any] = {"methods": ["sft"], "hyperparameters": grid, "epochs": 8, "evaluations": 8}
    (one,) = planned(policy, methods=["sft"], epochs=8, evaluations=8).methods
    assert one.steps == 32  # 32 rows in batches of 8
    (halved,) = planned(policy, **options).methods
    assert halved.steps == 4 * 4 + 2 * 4 + 1 * 24  # four to an eighth, two to a quarter, one to the end
    (whole,) = planned(policy, halving=False, **options).methods
    assert whole.steps == 4 * 32
    assert halved.seconds < 0.5 * whole.seconds


@pytest.mark.usefixtures("known_speed")
def test_micro_batches_shrink_to_the_memory_and_then_activations_are_computed_twice(policy: Policy) -> None:
    roomy = planned(policy, memory="100GB").methods[1]
    longest = (roomy.memory - SPEED.resident) / SPEED.token / 8  # tokens of a row, of the eight longest
    halved = planned(policy, memory=str(int(1e9 + 1.15e6 * longest * 5))).methods[1]
    assert (halved.micro_batch, halved.checkpointing) == (4, False)
    assert SPEED.resident < halved.memory < roomy.memory
    twice = planned(policy, memory=str(int(1e9 + 1e6 * longest * 0.5))).methods[1]
    assert (twice.micro_batch, twice.checkpointing) == (1, True)
    assert twice.seconds > roomy.seconds
    with pytest.raises(ConfigError, match=r"needs .* of memory for 1 of its longest rows.*raise --memory"):
        planned(policy, memory="1000MB")


@pytest.mark.usefixtures("known_speed")
def test_each_sample_of_a_batch_may_reach_its_limit(policy: Policy) -> None:
    options: dict[str, Any] = {"methods": ["rl"], "memory": "100GB", "num_samples": 2}
    brief = planned(policy, max_new_tokens=4, **options).methods[0]
    long = planned(policy, max_new_tokens=24, **options).methods[0]
    assert brief.micro_batch == long.micro_batch
    assert long.memory - brief.memory == 20 * 2 * long.micro_batch * SPEED.token
    assert long.tokens == brief.tokens  # by the length of the log's responses


@pytest.mark.usefixtures("known_speed")
def test_memory_does_not_decide_the_micro_batch_of_kto(policy: Policy) -> None:
    options: dict[str, Any] = {"methods": ["kto"], "hyperparameters": {"kto": {"learning_rate": 1e-2}}}
    roomy = planned(policy, memory="100GB", **options).methods[0]
    tight = planned(policy, memory=str(int(roomy.memory - 1e6)), **options).methods[0]
    assert tight.micro_batch == roomy.micro_batch == 8
    assert not roomy.checkpointing
    assert tight.checkpointing


def test_the_default_limit_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_limit("2GB", CPU) == (2e9, "as asked")
    monkeypatch.setattr(plan_module, "free_memory", lambda device: (1000, "left in the control group"))
    monkeypatch.setattr(plan_module, "used_memory", lambda device: 300)
    limit, why = memory_limit(None, CPU)
    assert limit == 300 + 800
    assert "left in the control group" in why
    assert free_memory(CPU)[0] > 1000 < used_memory(CPU)


def test_measuring_leaves_everything_as_it_was(policy: Policy) -> None:
    names, random = list(policy.model.state_dict()), torch.random.get_rng_state()
    config = FitConfig(**CONFIG)
    trees = [policy.encoder.tree("abc", ["hello there", "hello you"])]
    speed = measure_speed(policy, config, [tree for tree in trees if tree], ["abc"])
    assert min(speed.train, speed.score, speed.draw) > 0
    # Two layers of width 32 and inner width 48 in float32 keep 2 · (8 · 32 + 4 · 48) · 4 bytes for a token.
    assert speed.token >= 3584
    assert speed.checkpointed <= speed.token
    assert speed.resident > 1e8  # a process with torch
    assert list(policy.model.state_dict()) == names
    assert not any(weight.requires_grad and weight.grad is not None for weight in policy.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)


def test_what_is_trained_already_is_not_planned(
    policy: Policy, known_speed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = RecordingCallback()
    config = FitConfig(**CONFIG)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fitting, "mix_policies", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(small_log(), policy, tmp_path, config)
    manifest = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    del manifest["policies"]["dpo"]
    (tmp_path / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    fit(small_log(), policy, tmp_path, config, callback=seen)
    assert "trained already: sft" in seen.lines
    planned = [line for line in seen.lines if line.startswith("plan: ")]
    assert [line for line in planned if "trial" in line or "rows" in line] == [planned[1]]
    assert planned[1].startswith("plan: dpo")


def test_a_plan_says_what_it_takes() -> None:
    method = MethodPlan("dpo", 2, 40, 12, 9600, 4, True, 2.5e9, 300.0)
    plan = FitPlan(
        (method, replace(method, name="sft", trials=1, seconds=40.0)), SPEED, (6e9, "as asked"), 20.0
    )
    assert plan.seconds == 360
    first, dpo, sft, last = plan.lines()
    assert "100 tokens a second with gradients, 500 without" in first
    assert dpo == (
        "plan: dpo: 2 trials, 40 rows, 12 steps, 9,600 tokens, 4 contexts a forward, "
        "activations computed twice, 2.5 GB, about 5 min"
    )
    assert "1 trial" not in sft
    assert last == "plan: about 6 min and 2.5 GB of memory in all; the limit is 6.0 GB (as asked)"


def test_what_is_left_follows_the_pace_of_the_work() -> None:
    method = MethodPlan("dpo", 2, 40, 20, 9600, 4, False, 2.5e9, 100.0)
    plan = FitPlan((method, replace(method, name="sft", trials=1)), SPEED, (6e9, ""), 50.0)
    now, notes = [1000.0], list[str]()

    class Notes(RecordingCallback):
        def progress(self, task: str, done: int, total: int, note: str = "") -> None:
            notes.append(note)

    countdown = Countdown(Notes(), plan, clock=lambda: now[0])
    countdown.progress("reference", 1, 2)  # before the trainings nothing is added
    countdown.begin("dpo")
    for seconds, task, done in ((20.0, "dpo beta=1", 1), (100.0, "dpo beta=1", 10), (150.0, "dpo beta=2", 5)):
        now[0] = 1000 + seconds
        countdown.progress(task, done, 10, "loss 1")
    countdown.progress("dpo beta=2, validation", 1, 4)
    # Of 200 planned seconds 5 took 20: those that are left take four times as long, too. 50 took 100. 75 of
    # which an earlier process has done 20 took 150.
    assert notes == [
        "",
        "loss 1, 13 min left in all",
        "loss 1, 5 min left in all",
        "loss 1, 6 min left in all",
        "",
    ]
    countdown.begin("sft")
    now[0] = 1400.0
    for done in (1, 20):
        countdown.progress("sft", done, 20)
    assert notes[-1] == "0 s left in all"


def test_freed_memory_goes_back_from_the_announced_memory_on_or_near_the_limit() -> None:
    method = MethodPlan("sft", 1, 8, 2, 100, 1, False, 4e9, 10.0)
    assert FitPlan((method,), SPEED, (20e9, ""), 0.0).heap == 4e9
    assert FitPlan((method,), SPEED, (4.8e9, ""), 0.0).heap == pytest.approx(3.6e9)


def test_the_time_is_measured_on_rows_of_all_lengths() -> None:
    trees = [ContextTree((5,) * length, ((6,),)) for length in (19, 17, 15, 13, 11, 9, 7, 5)]

    def chosen(tokens: int) -> list[int]:
        return [len(tree.layout) for tree in _of_all_lengths(trees, tokens)]

    # They have 104 tokens. In steps of two these are 18, 14, 10, 6, which would take 72 with their padding.
    assert chosen(52) == [14, 10, 6]
    assert chosen(26) == [8]
    assert chosen(1) == [6]  # one at least
    # A hundred short ones and one that would be nine tenths of the batch's padding: it is left out.
    assert _of_all_lengths([trees[0], *100 * [trees[-1]]], 620) == 100 * [trees[-1]]


def test_methods_that_an_earlier_process_has_trained_are_not_left() -> None:
    made = [
        MethodPlan(name, 1, 10, steps, 1000, 1, False, 1e9, seconds)
        for name, steps, seconds in (("sft", 10, 60.0), ("dpo", 10, 120.0), ("early", 10, 100.0))
    ]
    notes: list[str] = []

    class Notes(RecordingCallback):
        def progress(self, task: str, done: int, total: int, note: str = "") -> None:
            notes.append(note)

    now = [0.0]
    countdown = Countdown(Notes(), FitPlan(tuple(made), SPEED, (1e9, "as asked"), 0.0), clock=lambda: now[0])
    countdown.begin("early")
    now[0] = 50.0
    countdown.progress("early", 1, 10)
    countdown.progress("early", 5, 10)
    # Half of the last method's 100 seconds took 50, so the other half will; the first two are not counted.
    assert notes[-1] == "50 s left in all"


def fitted(policy: Policy, out: Path, callback: RecordingCallback, **changes: Any) -> Any:
    run = fit(small_log(), policy, out, FitConfig(**(CONFIG | changes)), callback=callback)
    return run.manifest().policies["dpo"].trials[0]


def test_where_memory_runs_out_the_training_goes_on_with_less(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted(policy, tmp_path / "whole", RecordingCallback())
    train_once, tried = trial_module._train_once, list[tuple[int | None, bool]]()

    def scarce(folder: Path, policy: Policy, trial: Any, config: FitConfig, *rest: Any) -> Any:
        tried.append((config.micro_batch_size, config.gradient_checkpointing))
        if trial.method.name == "dpo" and not config.gradient_checkpointing:
            torch.empty(2**60)
        return train_once(folder, policy, trial, config, *rest)

    monkeypatch.setattr(trial_module, "_train_once", scarce)
    callback = RecordingCallback()
    less = fitted(policy, tmp_path / "less", callback)
    assert tried == [(8, False), (8, False), (4, False), (2, False), (1, False), (1, True)]
    assert less.validation_loss == pytest.approx(whole.validation_loss, rel=1e-4)
    warned = [line for line in callback.lines if "out of memory" in line]
    assert len(warned) == 4
    assert "at most 4 contexts a forward" in warned[0]
    assert "activations are computed twice" in warned[-1]
    assert not policy.model.is_gradient_checkpointing


def test_memory_that_is_too_small_for_one_context_is_an_error(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(trial_module, "_train_once", never)
    with pytest.raises(RunError, match="out of memory: MemoryError"):
        fitted(policy, tmp_path / "run", RecordingCallback())
