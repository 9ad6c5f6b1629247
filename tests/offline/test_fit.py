"""`fit` on a tiny base: what it trains, what it leaves unchanged, and what it refuses."""

from __future__ import annotations

import errno
import math
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from editloop.edits import split
from editloop.edits.record import Record
from editloop.errors import ConfigError, EmptyViewError, RunError
from editloop.offline import (
    EditTrainer,
    Estimate,
    FitConfig,
    SampleCheck,
    evaluate,
    fit,
    make_examples,
)
from editloop.offline.data import encode_log
from editloop.offline.report import FIGURES, figures_table
from editloop.policy import ContextTree, Policy, RunFolder, load_base, load_policy
from editloop.progress import EditLoopWarning
from small_log import RecordingCallback, small_log

TREES = [ContextTree((40, 41, 42), ((20, 21, 2), (20, 22, 23, 2)))]
SMALL: dict[str, Any] = {
    "hyperparameters": {name: {"learning_rate": 1e-2} for name in ("sft", "dpo", "early")},
    "epochs": 3,
    "batch_size": 8,
    "evaluations": 3,
    "validation": 0.25,
    "validation_samples": 4,
    "max_new_tokens": 8,
    "lora": {"rank": 4, "alpha": 8},
}


def config(**changes: Any) -> FitConfig:
    return FitConfig(**(SMALL | changes))


def sft(*rates: float, **changes: Any) -> FitConfig:
    """SFT alone, with these learning rates."""
    return config(methods=("sft",), hyperparameters={"sft": {"learning_rate": rates}}, **changes)


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(chat=True), device="cpu")


@pytest.fixture(scope="module")
def finished(
    policy: Policy, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, RecordingCallback, dict[str, torch.Tensor]]:
    """A fit of all three methods, its messages, and the base's weights before it."""
    before = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    folder, callback = tmp_path_factory.mktemp("fit") / "run", RecordingCallback()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("EDITLOOP_CACHE", str(folder.parent / "cache"))
        fit([*small_log(), pending()], policy, folder, config(), callback=callback)
    return RunFolder(folder), callback, before


def pending() -> Record:
    return Record(id="waiting", context="mail", response="see you", edit=None)


Finished = tuple[RunFolder, RecordingCallback, dict[str, torch.Tensor]]


def test_the_loss_falls_for_every_method(finished: Finished) -> None:
    policies = finished[0].manifest().policies
    assert list(policies) == ["sft", "dpo", "early"]
    for name, entry in policies.items():
        best = entry.best
        assert best.validation_loss is not None and best.initial_loss is not None
        assert best.validation_loss < 0.9 * best.initial_loss, name
        losses = [h["loss"] or math.nan for h in best.history if "loss" in h]
        assert losses[-1] < losses[0]
        assert len(losses) == best.steps
        assert not any("epoch" in h for h in best.history)  # the library's epoch is not one of the data


def test_what_is_reported_is_what_the_saved_policy_does(finished: Finished, policy: Policy) -> None:
    """Validation figures of the run, computed again from the saved adapters and the same split."""
    run = finished[0]
    held = make_examples(split(small_log(), validation=0.25).validation, policy.encoder).examples
    for name in ("sft", "dpo", "early"):
        (entry,) = run.manifest().policies[name].trials
        with run.policy(name, policy) as trained:
            scores = trained.log_probs([e.tree for e in held])
        nll = -sum(s[0] for s in scores) / sum(len(e.tree.continuations[0]) for e in held)
        wins = [s[0] > s[1] for s in scores if len(s) == 2]
        found, accuracy = entry.validation["edit_nll_per_token"], entry.validation["accuracy"]
        assert found is not None and accuracy is not None
        assert found.mean == pytest.approx(nll, rel=1e-5)
        assert accuracy.mean == pytest.approx(sum(wins) / len(wins))
        assert accuracy.n == len(wins)
        if name == "sft":
            assert entry.validation_loss == pytest.approx(nll, rel=1e-5)


def test_the_run_folder_is_complete(finished: Finished, policy: Policy) -> None:
    run, callback, _ = finished
    assert sorted(p.name for p in run.path.iterdir()) == ["policies", "report.html", "rows.npy", "run.json"]
    assert "<h2>The policies on the validation part" in run.report.read_text(encoding="utf-8")
    for name in ("sft", "dpo", "early"):
        files = {p.name for p in run.policy_path(name).iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors"} <= files
        assert not [f for f in files if f.endswith((".bin", ".pt", ".pkl"))]
    manifest = run.manifest()
    assert manifest.status == "done"
    assert manifest.base.fingerprint == policy.fingerprint
    assert manifest.base.end_token == "<|end|>"
    assert FitConfig(**manifest.config.model_dump()) == config(num_samples=4)  # as 8 tokens allow
    data = manifest.data
    assert data is not None
    assert data.train.examples + data.validation.examples == 40
    assert data.train.pairs + data.validation.pairs == 32
    counted = [part.counts.get("unedited: no preference", 0) for part in (data.train, data.validation)]
    assert sum(counted) == 8
    assert "  1 rows: pending" in callback.lines
    assert any(line.startswith("sft: validation loss") for line in callback.lines)
    sft = [(done, total) for task, done, total in callback.steps if task == "sft"]
    assert sft[-1][0] == sft[-1][1]
    assert [done for done, _ in sft] == sorted(done for done, _ in sft)
    # Every task that may take long reports its progress to its end.
    slow = {f"{name}, {what}" for name in ("sft", "dpo", "early") for what in ("validation", "samples")}
    slow |= {"reference", "reference, validation", "base, samples"}
    assert slow <= {task for task, done, total in callback.steps if done == total}


def test_the_base_is_what_it_was(finished: Finished, policy: Policy) -> None:
    after = policy.model.state_dict()
    assert after.keys() == finished[2].keys()
    assert all(torch.equal(after[name], weight) for name, weight in finished[2].items())


@pytest.mark.parametrize("name", ["sft", "dpo", "early"])
def test_plain_peft_loads_an_adapter_and_gives_the_same_numbers(
    finished: Finished, policy: Policy, name: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = finished[0]
    ours = load_policy(run.path, name, device="cpu").log_probs(TREES)
    plain = AutoModelForCausalLM.from_pretrained(policy.base)
    model = PeftModel.from_pretrained(plain, str(run.policy_path(name))).eval()
    (tree,) = TREES
    for continuation, found in zip(tree.continuations, ours[0], strict=True):
        ids = torch.tensor([tree.context + continuation])
        with torch.no_grad():
            log_probs = model(ids).logits[0].log_softmax(-1)
        direct = sum(float(log_probs[len(tree.context) - 1 + i, t]) for i, t in enumerate(continuation))
        assert found == pytest.approx(direct, abs=1e-4)
    assert ours != policy.log_probs(TREES)


def test_a_second_run_has_nothing_to_do(finished: Finished, policy: Policy) -> None:
    run, callback = finished[0], RecordingCallback()
    before = run.manifest_path.stat().st_mtime_ns
    again = fit([*small_log(), pending()], policy, run.path, config(), callback=callback)
    assert again.path == run.path
    assert "nothing to do" in callback.lines[-1]
    assert callback.steps == []
    assert run.manifest_path.stat().st_mtime_ns == before


def test_a_second_run_removes_what_a_killed_one_left_after_its_manifest(
    finished: Finished, policy: Policy
) -> None:
    run = finished[0]
    (run.work / "sft").mkdir(parents=True)
    (run.work / "sft" / "weights").touch()
    fit([*small_log(), pending()], policy, run.path, config())
    assert not run.work.exists()


def test_the_order_of_the_rows_makes_no_other_run(finished: Finished, policy: Policy) -> None:
    callback = RecordingCallback()
    fit([pending(), *small_log()[::-1]], policy, finished[0].path, config(), callback=callback)
    assert "nothing to do" in callback.lines[-1]


@pytest.mark.parametrize("what", ["config", "log", "base"])
def test_a_folder_of_another_run_is_refused(finished: Finished, policy: Policy, base: Any, what: str) -> None:
    run = finished[0]
    before = run.manifest()
    other = load_base(base(chat=True, seed=1), device="cpu") if what == "base" else policy
    rows = small_log(36) if what == "log" else small_log()
    with pytest.raises(RunError, match=r"another log, base or configuration.*--out"):
        fit(rows, other, run.path, config(seed=5) if what == "config" else config())
    assert run.manifest() == before


def test_a_folder_of_something_else_is_refused(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    for out in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(RunError, match=r"holds something else.*--out"):
            fit(small_log(), policy, out, config())
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_the_evaluation_of_a_run_on_new_rows(finished: Finished, policy: Policy) -> None:
    rows = [
        Record(id=f"new {i}", context=f"mail {50 + i}", response="see Ann", edit="hi! see Ann")
        for i in range(6)
    ]
    found = evaluate(finished[0], rows, base=policy, samples=2)
    assert (found["rows"], found["pairs"]) == (6, 6)
    assert list(found["policies"]) == ["base", "sft", "dpo", "early", "mixture"]
    assert set(found["mixture"]["weights"]) == {"sft", "dpo", "early"}
    assert "cost_model" not in found
    base, sft, dpo = (found["policies"][name] for name in ("base", "sft", "dpo"))
    assert base["chosen_shift"]["mean"] == pytest.approx(0, abs=1e-4)
    assert sft["edit_nll_per_token"]["mean"] < base["edit_nll_per_token"]["mean"]
    assert sft["chosen_shift"]["mean"] > 1
    assert dpo["reference_accuracy"]["mean"] == 1.0
    assert len(sft["sampled"]["examples"]) == 2
    assert found["seen"] == 0


def test_rows_seen_in_training_are_recognised_in_another_file(finished: Finished, policy: Policy) -> None:
    """The first rows of the training log, under other ids, beside two new ones."""
    old = [each.model_copy(update={"id": f"again {each.id}", "user": "ada"}) for each in small_log()[:20]]
    new = [Record(context=f"mail {50 + i}", response="see Ann", edit="hi! see Ann") for i in range(2)]
    callback = RecordingCallback()
    found = evaluate(finished[0], old, base=policy, callback=callback)
    assert (found["seen"], found["rows"]) == (20, 20)
    assert any(line.startswith("20 of 20 rows were seen in training") for line in callback.lines)
    with pytest.warns(EditLoopWarning, match="20 of 22 rows were seen in training"):
        evaluate(finished[0], [*old, *new], base=policy)
    left = evaluate(finished[0], [*old, *new], base=policy, drop_seen=True)
    assert (left["seen"], left["rows"], left["counts"]) == (0, 2, {"seen in training": 20})
    alone = evaluate(finished[0], new, base=policy)
    assert left["policies"]["sft"] == alone["policies"]["sft"]
    with pytest.raises(EmptyViewError, match=r"'seen in training': 20.*give rows that were not seen"):
        evaluate(finished[0], old, base=policy, drop_seen=True)
    for changed in (old[1].model_copy(update={"edit": "no"}), pending()):  # not what was seen
        assert evaluate(finished[0], [changed, *new], base=policy)["seen"] == 0


def test_a_run_that_kept_no_hashes_does_not_say_that_nothing_was_seen(
    finished: Finished, policy: Policy, tmp_path: Path
) -> None:
    run = RunFolder(shutil.copytree(finished[0], tmp_path / "run"))
    run.rows.unlink()
    rows = small_log(6)
    assert evaluate(run, rows, base=policy)["seen"] is None
    with pytest.raises(RunError, match="not known"):
        evaluate(run, rows, base=policy, drop_seen=True)
    for damaged in (b"", b"\x93NUMPY", b"no array"):
        run.rows.write_bytes(damaged)
        with pytest.raises(RunError, match=r"rows\.npy is damaged"):
            evaluate(run, rows, base=policy)


def test_a_run_its_path_or_a_policy_can_be_evaluated(finished: Finished, policy: Policy) -> None:
    run, rows = finished[0], [Record(context="mail 50", response="see Ann", edit="hi! see Ann")]
    found = evaluate(run, rows, base=policy)
    assert evaluate(str(run.path), rows) == evaluate(run.path, rows) == found
    with run.policy("dpo", policy) as dpo:
        alone = evaluate(dpo, rows, samples=1)
    assert list(alone["policies"]) == ["base", "policy"] and alone["seen"] is None
    assert {k: v for k, v in alone["policies"]["policy"].items() if k not in ("sampled", "wins")} == found[
        "policies"
    ]["dpo"]
    assert alone["policies"]["policy"]["sampled"]["cost"]["n"] == 1
    assert alone["policies"]["base"]["accuracy"] == found["policies"]["base"]["accuracy"]
    with run.policy("mixture", policy) as mixture:
        mixed = evaluate(mixture, rows)["policies"]
    assert mixed["policy"]["edit_nll_per_edit"] == found["policies"]["mixture"]["edit_nll_per_edit"]
    assert list(evaluate(policy, rows)["policies"]) == ["policy"]


def test_alarms_are_warnings_without_a_callback(policy: Policy, tmp_path: Path) -> None:
    options = sft(1e30, epochs=0.5)
    with pytest.warns(EditLoopWarning, match="sft: the validation loss never improved"):
        run = fit(small_log(), policy, tmp_path / "run", options, report=False)
    assert not run.report.exists()
    callback = RecordingCallback()
    fit(small_log(), policy, run, options, callback=callback)  # nothing to do but the report
    assert run.report.is_file() and "nothing to do" in callback.lines[-1]


def test_the_grid_is_chosen_from_by_validation_loss(policy: Policy, tmp_path: Path) -> None:
    rates = (1e-6, 1e-2, 3e-3)
    callback, plain = RecordingCallback(), policy.log_probs(TREES)
    run = fit(small_log(), policy, tmp_path / "run", sft(*rates, halving=False), callback=callback)
    entry = run.manifest().policies["sft"]
    losses = [trial.validation_loss or math.nan for trial in entry.trials]
    assert [trial.hyperparameters["learning_rate"] for trial in entry.trials] == list(rates)
    assert entry.chosen == losses.index(min(losses)) != 0
    assert entry.best is entry.trials[entry.chosen]
    assert entry.selected_by == "loss"
    assert all(trial.history and trial.sampled for trial in entry.trials)
    with run.policy("sft", policy) as trained:
        assert abs(trained.log_probs(TREES)[0][0] - plain[0][0]) > 1e-2  # not the first rate's
    assert any("the best of 3" in line for line in callback.lines)


def test_a_report_without_samples_has_no_columns_for_them(policy: Policy, tmp_path: Path) -> None:
    run = fit(small_log(), policy, tmp_path / "run", config(methods=("sft",), epochs=1, validation_samples=0))
    header, *rows = figures_table(run.manifest())
    assert header == ["policy", *FIGURES.values()]
    assert [row[0] for row in rows] == ["sft"] and all(len(row) == len(header) for row in rows)
    page = run.report.read_text(encoding="utf-8")
    assert "Sampled cost:" not in page and "Reference accuracy:" in page


def test_the_grid_is_chosen_from_by_the_cost_of_samples(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs are made up so that the worst loss has the lowest cost."""
    costs = iter([0.9, 0.1, 0.5, 0.7])  # the base, then three trials

    def made_up(*_: Any, **__: Any) -> SampleCheck:
        return SampleCheck(Estimate(next(costs), 0.0, 4), 0.0, 0.0, 1.0, [])

    for module in ("fitting", "trial"):
        monkeypatch.setattr(sys.modules[f"editloop.offline.{module}"], "check_samples", made_up)
    options = sft(1e-6, 1e-2, 3e-3, select="cost", epochs=1)
    entry = fit(small_log(), policy, tmp_path / "run", options).manifest().policies["sft"]
    assert [trial.validation_cost for trial in entry.trials] == [0.1, 0.5, 0.7]
    assert (entry.chosen, entry.selected_by) == (0, "cost")
    losses = [trial.validation_loss or math.nan for trial in entry.trials]
    assert losses[0] == max(losses)


def test_the_passes_of_a_method_are_its_own(policy: Policy, tmp_path: Path) -> None:
    """30 rows to train on, in batches of 8."""
    own = {"sft": {"learning_rate": 1e-2}, "dpo": {"learning_rate": 1e-2, "epochs": 1}}
    options = config(methods=("sft", "dpo"), hyperparameters=own, epochs=2, validation_samples=0)
    run = fit(small_log(), policy, tmp_path / "run", options)
    manifest = run.manifest()
    assert manifest.data is not None
    rows = {"sft": 2 * manifest.data.train.examples, "dpo": manifest.data.train.pairs}
    steps = {name: entry.best.steps for name, entry in manifest.policies.items()}
    assert steps == {name: math.ceil(count / 8) for name, count in rows.items()}
    assert "epochs" not in manifest.policies["sft"].best.settings
    assert manifest.policies["dpo"].best.settings == "lr 0.01, epochs 1, beta 0.1"


def test_full_training_leaves_the_base_and_a_model_that_loads(policy: Policy, tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    rates = {name: {"learning_rate": 3e-3} for name in ("sft", "dpo")}
    options = config(methods=("sft", "dpo"), full=True, hyperparameters=rates)
    run = fit(small_log(), policy, tmp_path / "run", options)
    assert all(torch.equal(w, before[name]) for name, w in policy.model.state_dict().items())
    plain = policy.log_probs(TREES)
    found = {name: load_policy(run.path, name, device="cpu") for name in ("sft", "dpo")}
    for name, trained in found.items():
        files = {p.name for p in run.policy_path(name).iterdir()}
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= files
        assert "adapter_config.json" not in files
        assert abs(trained.log_probs(TREES)[0][1] - plain[0][1]) > 5e-2
        assert trained.encoder.end == policy.encoder.end
    assert found["sft"].log_probs(TREES) != found["dpo"].log_probs(TREES)
    with run.policy("sft", policy) as again:
        assert again.log_probs(TREES) == found["sft"].log_probs(TREES)
    assert policy.log_probs(TREES) == plain


def test_a_training_that_diverges_is_an_alarm_and_no_crash(policy: Policy, tmp_path: Path) -> None:
    run = fit(small_log(), policy, tmp_path / "run", sft(1e30, 1e-2, epochs=1))
    entry = run.manifest().policies["sft"]
    assert entry.trials[0].validation_loss is None  # NaN, which JSON has not
    assert entry.trials[0].sampled is None
    assert entry.chosen == 1
    only = fit(small_log(), policy, tmp_path / "only", sft(1e30, epochs=1))
    (alarm,) = only.manifest().policies["sft"].alarms
    assert "never improved" in alarm
    assert math.isfinite(policy.log_probs(TREES)[0][0])
    found = evaluate(only, small_log(6), base=policy, samples=2)["policies"]
    assert math.isnan(found["sft"]["accuracy"]["mean"])
    assert ["sampled" in found[name] for name in ("base", "sft")] == [True, False]


def test_a_second_fit_on_the_same_log_runs_no_reference_pass(policy: Policy, tmp_path: Path) -> None:
    first, second = RecordingCallback(), RecordingCallback()
    options = {"methods": ("sft",), "epochs": 0.5, "validation_samples": 0}
    other = {"sft": {"learning_rate": 1e-2}, "early": {"dpo_weight": 0.5}}
    fit(small_log(), policy, tmp_path / "a", config(**options), callback=first)
    fit(small_log(), policy, tmp_path / "b", config(**options, hyperparameters=other), callback=second)
    assert any(line.startswith("reference pass done") for line in first.lines)
    assert any(line.startswith("reference pass from the cache") for line in second.lines)


def test_a_reference_pass_is_from_the_cache_if_all_of_it_is(policy: Policy, tmp_path: Path) -> None:
    callback, options = RecordingCallback(), {"methods": ("dpo",), "epochs": 0.5, "validation_samples": 0}
    fit(small_log(), policy, tmp_path / "a", config(**options))
    fit(small_log(), policy, tmp_path / "b", config(**options, validation_rows=5), callback=callback)
    assert any(line.startswith("reference pass done") for line in callback.lines)


def test_validation_rows_above_the_limit_are_reported(policy: Policy) -> None:
    callback = RecordingCallback()
    data = encode_log(tuple(small_log()), policy, config(validation_rows=7), callback)
    assert len(data.validation.examples) == 7
    assert "  3 rows: above the limit of validation rows" in callback.lines  # of a quarter of 40
    encode_log(tuple(small_log()), policy, config(), callback := RecordingCallback())
    assert not any("limit" in line for line in callback.lines)


def test_a_quantised_base_is_not_trained_itself(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quantised.*'4bit'.*--full"):
        fit(small_log(), replace(policy, quantize="4bit"), tmp_path / "run", config(full=True))
    assert not (tmp_path / "run").exists()


def test_all_weights_are_not_trained_in_16_bits(base: Any, tmp_path: Path) -> None:
    narrow = load_base(base(), device="cpu", dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"float32.*'bfloat16'"):
        fit(small_log(), narrow, tmp_path / "run", config(full=True))
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_continued_in_another_precision(base: Any, tmp_path: Path) -> None:
    wide, narrow = (load_base(base(), device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    fit(small_log(), wide, tmp_path / "run", sft(1e-2, epochs=1), report=False)
    with pytest.raises(RunError, match=r"another log, base or configuration.*--dtype"):
        fit(small_log(), narrow, tmp_path / "run", sft(1e-2, epochs=1), report=False)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([], {}, "0 rows in the log"),
        (small_log(1), {}, "validation part lacks them"),
        (small_log(20, accepted=1), {"methods": ("dpo",)}, "DPO needs rows whose edit differs"),
        (small_log(20, accepted=1), {"methods": ("early",)}, "EarlyEnsemble needs rows whose edit differs"),
        ([pending()] * 20, {"methods": ("sft",)}, "SFT needs rows that were edited or accepted"),
    ],
)
def test_an_unusable_log_is_refused_in_one_line(
    base: Any, tmp_path: Path, rows: list[Record], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(EmptyViewError) as caught:
        fit(rows, base(chat=True), tmp_path / "run", config(**options))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "--methods" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("window", [8, 30])  # of which the first is too small for the contexts
def test_a_log_whose_edits_are_all_longer_than_the_window_is_refused_in_one_line(
    base: Any, tmp_path: Path, window: int
) -> None:
    rows = [record.model_copy(update={"edit": f"{record.edit} {'x' * 90}"}) for record in small_log(20)]
    with pytest.raises(EmptyViewError, match=f"no edit fits.* of {window} tokens.* rows of ") as caught:
        fit(rows, base(chat=True), tmp_path / "run", config(max_length=window))
    assert "\n" not in str(caught.value) and "--max-length" in str(caught.value)


def test_sft_learns_from_a_log_that_was_only_accepted(policy: Policy, tmp_path: Path) -> None:
    run = fit(
        small_log(20, accepted=1), policy, tmp_path / "run", config(methods=("sft",), validation_samples=0)
    )
    (best,) = run.manifest().policies["sft"].trials
    assert best.validation_loss is not None and best.initial_loss is not None
    assert best.validation_loss < best.initial_loss
    assert best.validation["accuracy"] is None
    assert best.sampled is None


def test_a_disk_that_is_full_in_a_training_is_one_line_and_loses_nothing(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Trainer._save_checkpoint, []

    def failing(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(self.state.global_step)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, *arguments, **named)

    options = config(methods=("sft",), validation_samples=0)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_checkpoint", failing)
        with pytest.raises(RunError, match=r"No space left on device.*run the same command again") as caught:
            fit(small_log(), policy, tmp_path / "run", options)
    assert "\n" not in str(caught.value)
    assert not hasattr(policy.model, "peft_config")
    interrupted = fit(small_log(), policy, tmp_path / "run", options)
    whole = fit(small_log(), policy, tmp_path / "whole", options)
    assert weights(interrupted, "sft") == weights(whole, "sft")


def test_an_error_of_the_training_is_not_blamed_on_the_disk(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError("the network is down")

    monkeypatch.setattr(EditTrainer, "compute_loss", failing)
    with pytest.raises(OSError, match="the network is down"):
        fit(small_log(), policy, tmp_path / "run", config(methods=("sft",), validation_samples=0))


def weights(run: RunFolder, name: str) -> bytes:
    return (run.policy_path(name) / "adapter_model.safetensors").read_bytes()
