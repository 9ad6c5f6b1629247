"""A fit whose adapters begin at a policy that was trained before: what changes, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from editloop.edits import read_log, write_log
from editloop.errors import EditLoopError, RunError
from editloop.offline import FitConfig, fit, plan_fit
from editloop.offline.data import encode_log
from editloop.offline.fitting import _in_own_order
from editloop.offline.start import find_start
from editloop.policy import Policy, RunFolder, arm_name, load_base
from small_log import RecordingCallback, small_log

QUICK: dict[str, Any] = {
    "hyperparameters": {name: {"learning_rate": 2e-2} for name in ("sft", "dpo", "ipo")},
    "epochs": 2,
    "batch_size": 8,
    "evaluations": 2,
    "validation": 0.25,
    "validation_samples": 0,
    "mixture": "none",
    "max_new_tokens": 8,
    "lora": {"rank": 4, "alpha": 8},
}
STILL = 1e-30
"""A learning rate by which no weight moves."""


def config(*methods: str, **changes: Any) -> FitConfig:
    return FitConfig(methods=methods or ("sft",), **{**QUICK, **changes})


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


@pytest.fixture(scope="module")
def earlier(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two policies and their mixture."""
    folder = tmp_path_factory.mktemp("earlier") / "run"
    return fit(small_log(), policy, folder, config("sft", "ipo", mixture="likelihood"), report=False)


def weights(run: RunFolder, name: str) -> dict[str, torch.Tensor]:
    return load_file(run.policy_path(name) / "adapter_model.safetensors")


def test_a_training_begins_at_the_policy_and_its_figure(
    policy: Policy, earlier: RunFolder, tmp_path: Path
) -> None:
    start, callback = f"{earlier.path}/sft", RecordingCallback()
    still = config(start=start, hyperparameters={"sft": {"learning_rate": STILL}})
    run = fit(small_log(), policy, tmp_path / "run", still, callback=callback)
    own, theirs = weights(run, "sft"), weights(earlier, "sft")
    assert own.keys() == theirs.keys()
    assert all(torch.allclose(own[name], theirs[name], rtol=0, atol=1e-12) for name in own)
    # The validation part is the same, so the figure of the start is the one that its own fit ended with.
    best, before = run.manifest().policies["sft"].best, earlier.manifest().policies["sft"].best
    assert best.initial_loss == pytest.approx(before.validation_loss, rel=1e-5)
    assert before.initial_loss is not None and best.initial_loss is not None
    assert best.initial_loss < 0.9 * before.initial_loss
    assert best.validation_loss == pytest.approx(best.initial_loss, rel=1e-5)
    arm = arm_name(earlier, "sft")
    assert run.manifest().start == arm and earlier.manifest().start is None
    assert f"start: the adapter of {arm}" in callback.lines
    assert f"start: the adapter of {arm}" in run.report.read_text(encoding="utf-8")
    assert not hasattr(policy.model, "peft_config")


def test_a_training_goes_on_from_there(policy: Policy, earlier: RunFolder, tmp_path: Path) -> None:
    run = fit(small_log(), policy, tmp_path / "run", config(start=f"{earlier.path}/sft"), report=False)
    best, before = run.manifest().policies["sft"].best, earlier.manifest().policies["sft"].best
    assert best.validation_loss is not None and before.validation_loss is not None
    assert best.validation_loss < before.validation_loss
    shape = json.loads((run.policy_path("sft") / "adapter_config.json").read_text())
    assert (shape["r"], shape["lora_alpha"], shape["inference_mode"]) == (4, 8, True)


def test_the_reference_stays_the_base(policy: Policy, earlier: RunFolder, tmp_path: Path) -> None:
    """By hand: the mean of −log σ(β margin) of the start beside the base; no edit became less likely."""
    made = config("dpo", start=f"{earlier.path}/sft")
    run = fit(small_log(), policy, tmp_path / "run", made, report=False)
    held = encode_log(_in_own_order(small_log()), policy, made, RecordingCallback()).validation.pairs
    reference = policy.log_probs([each.tree for each in held])
    with earlier.policy("sft", policy) as sft:
        start = sft.log_probs([each.tree for each in held])
    losses = []
    for each, own, ref in zip(held, start, reference, strict=True):
        edit, response = each.completions.of("edit"), each.completions.of("response")
        assert own[edit] > ref[edit]
        margin = (own[edit] - own[response]) - (ref[edit] - ref[response])
        losses.append(math.log1p(math.exp(-0.1 * margin)))
    initial = run.manifest().policies["dpo"].best.initial_loss
    assert initial == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    assert initial != pytest.approx(math.log(2), abs=1e-2)  # the figure of the base


def test_the_alarm_compares_with_the_start(policy: Policy, earlier: RunFolder, tmp_path: Path) -> None:
    hot, callback = {"sft": {"learning_rate": 5.0}}, RecordingCallback()
    made = config(start=f"{earlier.path}/sft", hyperparameters=hot)
    fit(small_log(), policy, tmp_path / "run", made, report=False, callback=callback)
    before = earlier.manifest().policies["sft"].best.validation_loss
    assert any(f"the validation loss never improved: {before:.4g} before" in each for each in callback.lines)


def test_a_plan_counts_what_the_start_reads(policy: Policy, earlier: RunFolder) -> None:
    callback = RecordingCallback()
    plan = plan_fit(small_log(), policy, config(start=f"{earlier.path}/sft"), callback=callback)
    assert plan.before > 0 and not hasattr(policy.model, "peft_config")


@pytest.mark.parametrize(
    ("start", "changes", "words"),
    [
        ("nowhere/sft", {}, ("in no run folder", "give RUN/NAME")),
        ("{run}", {}, ("in no run folder",)),
        ("{run}/early", {}, ("no such policy to start from", "choose one of sft, ipo")),
        ("{run}/base", {}, ("base has no adapter of its own", "choose one of sft, ipo")),
        ("{run}/mixture", {}, ("mixture has no adapter of its own",)),
        (
            "{run}/sft",
            {"lora": {"rank": 8, "alpha": 8}},
            ("not like those of the fit", "(give --lora-rank 4)"),
        ),
        ("{run}/sft", {"lora": {"rank": 2, "alpha": 4}}, ("(give --lora-rank 4 --lora-alpha 8)",)),
        ("{run}/sft", {"lora": {"rank": 4, "alpha": 8, "targets": ("q_proj",)}}, ("(give --lora-targets ",)),
    ],
)
def test_a_start_that_cannot_be_is_one_line_before_anything_is_done(
    policy: Policy,
    earlier: RunFolder,
    tmp_path: Path,
    start: str,
    changes: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    before, callback = earlier.manifest(), RecordingCallback()
    made = config(start=start.format(run=earlier.path), **changes)
    with pytest.raises(EditLoopError) as caught:
        fit(small_log(), policy, tmp_path / "run", made, callback=callback)
    assert "\n" not in str(caught.value)
    for each in words:
        assert each in str(caught.value)
    assert callback.lines == [] and not (tmp_path / "run").exists()
    assert earlier.manifest() == before
    assert not hasattr(policy.model, "peft_config")


def test_the_flags_that_an_error_names_are_the_right_ones(policy: Policy, earlier: RunFolder) -> None:
    made = config(start=f"{earlier.path}/sft", lora={"rank": 4, "alpha": 8, "targets": ("q_proj",)})
    with pytest.raises(EditLoopError) as caught:
        find_start(policy, made)
    targets = caught.value.do.removeprefix("give --lora-targets ").split(",")
    assert find_start(policy, config(start=f"{earlier.path}/sft", lora={**QUICK["lora"], "targets": targets}))


def test_a_policy_of_another_base_and_a_whole_model_are_no_start(
    policy: Policy, earlier: RunFolder, base: Any, tmp_path: Path
) -> None:
    other = load_base(base(seed=1), device="cpu")
    with pytest.raises(RunError, match="trained on another base"):
        find_start(other, config(start=f"{earlier.path}/sft"))
    small = config(full=True, hyperparameters={"sft": {"learning_rate": 1e-3}}, epochs=0.3)
    whole = fit(small_log(), policy, tmp_path / "whole", small, report=False)
    with pytest.raises(EditLoopError, match=r"a whole model, without an adapter.*--full"):
        find_start(policy, config(start=f"{whole.path}/sft"))


def test_an_adapter_of_another_tool_is_refused_if_fit_cannot_train_its_kind(
    policy: Policy, earlier: RunFolder, tmp_path: Path
) -> None:
    run = RunFolder(shutil.copytree(earlier.path, tmp_path / "run"))
    file = run.policy_path("sft") / "adapter_config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "use_rslora": True}))
    with pytest.raises(EditLoopError, match="of a kind that fit does not train, use_rslora"):
        find_start(policy, config(start=f"{run.path}/sft"))


def test_a_run_is_the_same_wherever_its_start_lies_and_another_with_other_weights(
    policy: Policy, earlier: RunFolder, tmp_path: Path
) -> None:
    first = RunFolder(shutil.copytree(earlier.path, tmp_path / "first"))
    fit(small_log(), policy, tmp_path / "run", config(start=f"{first.path}/sft"), report=False)
    first.path.rename(tmp_path / "moved")
    callback = RecordingCallback()
    moved = config(start=f"{tmp_path}/moved/sft")
    fit(small_log(), policy, tmp_path / "run", moved, report=False, callback=callback)
    assert any(line.startswith("nothing to do") for line in callback.lines)
    for other in (config(), config(start=f"{tmp_path}/moved/ipo")):
        with pytest.raises(RunError, match="another log, base or configuration"):
            fit(small_log(), policy, tmp_path / "run", other, report=False)


class Replacing(RecordingCallback):
    """A callback that changes the weights of the start once the first method is trained."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run = run

    def message(self, line: str) -> None:
        super().message(line)
        if line.startswith("sft: validation loss"):
            file = self.run.policy_path("sft") / "adapter_model.safetensors"
            save_file({name: 2 * each for name, each in load_file(file).items()}, file)


def test_a_start_that_is_replaced_meanwhile_ends_the_fit(
    policy: Policy, earlier: RunFolder, tmp_path: Path
) -> None:
    run = RunFolder(shutil.copytree(earlier.path, tmp_path / "start"))
    made = config("sft", "dpo", start=f"{run.path}/sft")
    with pytest.raises(RunError, match="replaced during the fit"):
        fit(small_log(), policy, tmp_path / "run", made, report=False, callback=Replacing(run))
    assert not hasattr(policy.model, "peft_config")


def test_a_run_says_whose_rows_it_read(policy: Policy, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    write_log([row.model_copy(update={"user": f"u{int(row.id) % 2}"}) for row in small_log(80)], log)
    run = fit(read_log(log, user="u1"), policy, tmp_path / "run", config(), report=False)
    manifest = run.manifest()
    assert manifest.read.users == ["u1"] and manifest.read.rows == 80
    assert manifest.data is not None
    assert manifest.data.train.examples + manifest.data.validation.examples == 40
