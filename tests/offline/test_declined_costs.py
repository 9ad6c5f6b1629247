"""A cost model that predicts nothing: what needs it is left out with the reason, and the rest goes on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.edits import get_cost, register_cost
from editloop.edits.record import Record
from editloop.errors import EmptyViewError
from editloop.offline import Example, FitConfig, fit, make_examples
from editloop.offline.cost_model.estimates import FittedCosts, fit_to_responses
from editloop.offline.cost_model.preparation import CostEstimates, estimate_costs
from editloop.offline.cost_model.sampled import SampledText
from editloop.offline.report import write_run_report
from editloop.policy import Policy, RunFolder, load_base
from small_log import RecordingCallback, small_log

NOISE = "noise, for a test of RL"
SMALL: dict[str, Any] = {
    "epochs": 0.5,
    "validation_samples": 0,
    "max_new_tokens": 4,
    "num_samples": 1,
    "lora": {"rank": 2},
}
NOT_PREDICTED = "predicts the costs of new contexts no better than their mean does"


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


@pytest.fixture(autouse=True)
def noise() -> None:
    """A cost that has nothing to do with the texts, but is always the same of the same texts."""

    def of(response: str, edit: str) -> float:
        return int.from_bytes(hashlib.sha256(f"{response} {edit}".encode()).digest()[:2], "big") / 65536

    register_cost(NOISE, lambda responses, edits: np.array([*map(of, responses, edits)]))


def log(rows: int = 40) -> list[Record]:
    """Rows that all differ, so that each has a cost of its own."""
    return [
        Record(id=str(i), context=f"mail {i}", response=f"see {i * 37 % 101}", edit=f"hi {i * 53 % 97}")
        for i in range(rows)
    ]


def test_methods_that_need_it_are_left_out_and_the_others_are_trained(policy: Policy, tmp_path: Path) -> None:
    joint = {"early": {"learning_rate": 1e-3, "rl_weight": [0.0, 1.0], "kappa": [0.0, 1.0]}}
    small = SMALL | {"select": "cost", "validation_samples": 2}
    config = FitConfig(methods=["rl", "sft", "early"], hyperparameters=joint, cost=NOISE, **small)
    callback = RecordingCallback()
    run = fit(log(), policy, tmp_path / "run", config, callback=callback)
    manifest = run.manifest()
    assert list(manifest.policies) == ["sft", "early"]
    (trial,) = manifest.policies["early"].trials
    assert trial.hyperparameters["rl_weight"] == 0
    assert manifest.mixture is not None and list(manifest.mixture.weights) == ["sft", "early"]
    assert list(manifest.declined) == ["rl", "early"]
    assert manifest.declined["rl"].startswith("left out: the cost model " + NOT_PREDICTED)
    assert manifest.declined["early"].startswith("2 of its trials are left out: the cost model")
    assert sum(NOT_PREDICTED in line for line in callback.lines) == 2
    # What was found out about the cost model is kept, and the model is not.
    record = manifest.cost_model
    assert record is not None and record.cross_validated is not None
    assert record.cross_validated.r2 is not None and record.cross_validated.r2 <= 0
    assert record.cross_validated.contexts == 40
    assert not run.cost_model.exists()
    assert not any("sampled completions" in task for task, *_ in callback.steps)
    page = write_run_report(run).read_text(encoding="utf-8")
    assert "rl: left out: the cost model" in page and "each predicted from others: R²" in page
    # Asked for again, it is the same run, which is finished.
    again = RecordingCallback()
    fit(log(), policy, tmp_path / "run", config, callback=again)
    assert "nothing to do" in again.lines[-1]


def test_where_nothing_is_left_to_train_the_error_says_why(policy: Policy, tmp_path: Path) -> None:
    config = FitConfig(methods=["rl"], cost=NOISE, **SMALL)
    with pytest.raises(EmptyViewError, match=NOT_PREDICTED + r".*40 contexts, cross-validated.*--cost-model"):
        fit(log(), policy, tmp_path / "run", config)
    assert not RunFolder(tmp_path / "run").exists()


def test_log_probs_of_the_reference_are_known_all_the_same(policy: Policy, tmp_path: Path) -> None:
    examples = make_examples(log(), policy.encoder).examples
    config = FitConfig(methods=["rl"], cost=NOISE, **SMALL)
    found = prepared(policy, tmp_path, examples[:30], examples[30:], config)
    assert found.refused is not None and found.model is None
    for example in (*found.train, *found.held):
        assert example.sampled is None
        expected = policy.log_probs([example.tree])[0]
        assert example.completions.reference == pytest.approx(expected, abs=1e-4)


def prepared(
    policy: Policy,
    folder: Path,
    train: Sequence[Example],
    held: Sequence[Example],
    config: FitConfig,
    callback: RecordingCallback | None = None,
) -> CostEstimates:
    callback = callback or RecordingCallback()
    return estimate_costs(RunFolder(folder), train, held, policy, config, get_cost(config.cost), callback)


def test_a_part_in_which_there_is_nothing_to_choose(policy: Policy, tmp_path: Path) -> None:
    examples = make_examples(small_log(60), policy.encoder).examples
    pairs, singles = ([e for e in examples if e.is_pair is whether] for whether in (True, False))
    config = FitConfig(methods=["rl"], **SMALL | {"num_samples": 0})
    found = prepared(policy, tmp_path, [*pairs, singles[0]], singles[1:], config)
    assert "two completions or more, and the validation part has none" in str(found.refused)


def test_too_few_contexts_to_tell(policy: Policy) -> None:
    generator = np.random.default_rng(0)
    examples = make_examples(small_log(9), policy.encoder).examples
    x = generator.normal(size=(9, 14)).astype(np.float32)
    few = fit_to_responses(examples[:6], examples[6:], {"ridge": x}, x[:, 0].astype(float))
    assert few.report["cross_validated"] is None
    assert "fewer than 10 contexts" in (few.objection or "")


@pytest.mark.parametrize(("signal", "low", "high"), [(0.0, -0.3, 0.0), (1.0, 0.4, 0.75)])
def test_noise_is_told_from_a_cost_that_is_half_explained(
    policy: Policy, signal: float, low: float, high: float
) -> None:
    """A cost with a linear part of variance 2 and noise of variance 1 has R² = 2/3; noise alone has none."""
    generator = np.random.default_rng(1)
    examples = make_examples(small_log(200), policy.encoder).examples
    x = generator.normal(size=(200, 14)).astype(np.float32)
    costs = signal * (x[:, 5] + x[:, 9]) + generator.normal(size=200)
    found = fit_to_responses(examples[:160], examples[160:], {"ridge": x}, costs.astype(float))
    crossed = found.report["cross_validated"]
    assert low < crossed["r2"] <= high
    assert crossed["low"] < crossed["r2"] < crossed["high"]
    assert (found.objection is None) == (signal > 0)
    assert math.isfinite(found.report["noise"])


def test_a_report_without_a_cross_validation_is_no_objection_to_a_number() -> None:
    """The rule by hand: above zero there is no objection, at zero and below there is."""
    for r2, good in ((0.001, True), (0.0, False), (-0.2, False), (math.nan, False)):
        report = {"cross_validated": {"r2": r2, "low": -1.0, "high": 1.0, "contexts": 40}}
        assert (FittedCosts(None, report).objection is None) is good  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "finished", "line"),
    [
        ("quite another", False, "all 60 sampled completions were cut at 4 tokens, so none is chosen from"),
        (None, True, "all 60 sampled completions are what was written anyway"),
    ],
)
def test_completions_that_add_no_choice_are_told(
    policy: Policy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    finished: bool,
    line: str,
) -> None:
    def drawn(_: Policy, examples: list[Example], count: int, **__: Any) -> list[tuple[SampledText, ...]]:
        return [(SampledText(text or e.response, finished),) * count for e in examples]

    monkeypatch.setattr("editloop.offline.cost_model.preparation.sample_completions", drawn)
    examples = make_examples(small_log(60), policy.encoder).examples
    callback = RecordingCallback()
    config = FitConfig(methods=["rl"], **SMALL)
    found = prepared(policy, tmp_path, examples[:45], examples[45:], config, callback)
    assert found.refused is None
    assert next(each for each in callback.lines if "sampled completions" in each).startswith(line)
    assert all(e.sampled is not None and len(e.sampled) == len(e.completions) for e in found.train)
