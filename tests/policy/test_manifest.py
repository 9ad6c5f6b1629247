"""What `run.json` holds: records of the format that is written, and what an older version wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editloop.cli.console import console
from editloop.cli.fit import print_run
from editloop.errors import RunError
from editloop.offline.report import write_run_report
from editloop.policy import RunFolder
from editloop.policy.manifest import FORMAT
from small_run import make_manifest, make_run, write_format_1

NAMES = ("sft", "dpo", "early")


@pytest.fixture
def old(tmp_path: Path) -> tuple[RunFolder, dict[str, Any]]:
    """A run that version 0.9 wrote, and the content of its `run.json`."""
    run = make_run(tmp_path / "run", NAMES)
    return run, write_format_1(run)


Old = tuple[RunFolder, dict[str, Any]]


def test_a_run_of_format_1_is_read_with_its_policies_and_their_hyperparameters(old: Old) -> None:
    run, _ = old
    manifest = run.manifest()
    assert (manifest.format, manifest.status, manifest.identity) == (FORMAT, "done", "0011223344556677")
    assert run.policy_names() == list(NAMES)
    assert run.arm_names() == ["base", *NAMES, "mixture"]
    assert {name: policy.best.hyperparameters for name, policy in manifest.policies.items()} == {
        "sft": {"learning_rate": 0.0001},
        "dpo": {"learning_rate": 2e-05, "beta": 0.1},
        "early": {
            "learning_rate": 0.0001,
            "beta": 0.1,
            "dpo_weight": 1.0,
            "rl_weight": 0.5,
            "kappa": 1.0,
            "rl_beta": 0.2,
            "rl_loss": "pairwise",
        },
    }
    assert [trial.hyperparameters["learning_rate"] for trial in manifest.policies["sft"].trials] == [
        1e30,
        1e-4,
    ]
    for policy in manifest.policies.values():
        for name, value in policy.best.hyperparameters.items():
            assert name in policy.best.settings and f"{value}" in policy.best.settings


def test_a_run_of_format_1_is_read_with_its_figures(old: Old) -> None:
    run, content = old
    manifest = run.manifest()
    sft, dpo, early = (manifest.policies[name] for name in NAMES)
    assert (sft.chosen, dpo.chosen, sft.selected_by) == (1, 0, "loss")
    assert (sft.alarms, early.alarms) == ([], ["samples cost more"])
    best = sft.best
    assert (best.initial_loss, best.validation_loss, best.validation_cost) == (2.0, 1.5, 0.4)
    assert (best.steps, best.best_step, best.seconds) == (12, 8, 3.5)
    accuracy = best.validation["accuracy"]
    assert accuracy is not None
    assert (accuracy.mean, accuracy.se, accuracy.n, accuracy.interval) == (0.75, 0.125, 8, [0.41, 0.93])
    assert best.validation["preference_nll"] is None
    assert best.history == content["policies"]["sft"]["candidates"][1]["history"]
    assert best.sampled is not None
    assert (best.sampled.cost.mean, best.sampled.cost.n, best.sampled.length_ratio) == (0.4, 9, 1.5)
    assert best.sampled.examples[0].sample == "Dear Ada"
    diverged = sft.trials[0]
    assert (diverged.validation_loss, diverged.best_step, diverged.sampled) == (None, None, None)
    assert manifest.data is not None
    assert (manifest.data.train.examples, manifest.data.validation.pairs) == (36, 8)
    assert manifest.data.train.counts == {"unedited: no preference": 6}


def test_a_run_of_format_1_is_read_with_its_base_log_mixture_and_cost_model(old: Old) -> None:
    run, content = old
    manifest = run.manifest()
    assert manifest.base.model_dump(exclude={"sampled"}) == {
        key: value for key, value in content["base"].items() if key != "sampled"
    }
    assert manifest.base.sampled is not None and manifest.base.sampled.cost.mean == 0.5
    assert manifest.read.model_dump(exclude_none=True) == content["read"]
    assert (manifest.config.cost, manifest.config.max_new_tokens) == ("levenshtein:char/response", 99)
    assert manifest.mixture is not None and manifest.mixture.model_dump() == content["mixture"]
    assert manifest.cost_model is not None
    assert manifest.cost_model.model_dump(exclude={"cross_validated"}) == content["cost_model"]
    assert manifest.cost_model.cross_validated is None  # an older version did not compute it
    assert manifest.versions == content["versions"]


def test_a_run_of_format_1_is_shown_and_reported(
    old: Old, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = old
    monkeypatch.setattr(console, "width", 200)
    print_run(run)
    out = capsys.readouterr().out
    assert "2.000 → 1.500" in out and "0.750 [0.41,0.93]" in out
    text = write_run_report(run).read_text(encoding="utf-8")
    assert "The cost model" in text and "The mixture" in text and "early: samples cost more" in text


def test_what_is_read_of_format_1_is_written_as_the_format_of_today(old: Old) -> None:
    run, _ = old
    before = run.manifest()
    run.keep_mixture({"weights": {"sft": 1.0, "dpo": 0.0, "early": 0.0}, "by": "cost", "rows": 3})
    written = json.loads(run.manifest_path.read_text(encoding="utf-8"))
    assert written["format"] == FORMAT and "candidates" not in written["policies"]["sft"]
    after = run.manifest()
    assert after.mixture is not None and after.mixture.weights["sft"] == 1.0
    assert after.policies == before.policies and after.base == before.base
    assert after.config.model_extra is not None and after.config.model_extra["lora"]["rank"] == 16


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no policies": (lambda m: m.pop("policies"), "policies: missing"),
    "policies in a list": (lambda m: m.update(policies=["sft"]), "policies: not as"),
    "a policy that is none": (lambda m: m["policies"].update(sft=None), "policies: not as"),
    "no candidates": (lambda m: m["policies"]["sft"].pop("candidates"), "candidates: missing"),
    "candidates that are none": (lambda m: m["policies"]["sft"].update(candidates=None), "policies: not as"),
    "a candidate that is a number": (
        lambda m: m["policies"]["sft"].update(candidates=[3]),
        "policies: not as",
    ),
    "an empty list of candidates": (
        lambda m: m["policies"]["sft"].update(candidates=[], chosen=0),
        "policies.sft.trials",
    ),
    "a choice below the first": (lambda m: m["policies"]["sft"].update(chosen=-1), "policies.sft.chosen"),
    "a choice beyond the last": (lambda m: m["policies"]["sft"].update(chosen=2), "policies.sft"),
    "a loss that is a text": (
        lambda m: m["policies"]["dpo"]["candidates"][0].update(validation_loss="1.5"),
        "policies.dpo.trials.0.validation_loss",
    ),
    "no base": (lambda m: m.pop("base"), "base: Field required"),
    "a mixture by luck": (lambda m: m["mixture"].update(by="luck"), "mixture.by"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_run_of_format_1_is_one_line(old: Old, what: str) -> None:
    (run, content), (damage, where) = old, DAMAGE[what]
    damage(content)
    run.manifest_path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match=r"run\.json is damaged, ") as caught:
        run.manifest()
    assert where in str(caught.value) and "\n" not in str(caught.value)


def test_a_choice_that_is_no_trial_is_never_made() -> None:
    with pytest.raises(ValueError, match="chosen is not one of the trials"):
        make_manifest(policies={"sft": {"chosen": 1, "trials": [{}]}})
