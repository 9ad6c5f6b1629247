"""Best of n: which drafts are drawn and compared, which one is given, and when the cost model may choose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.errors import ConfigError
from editloop.offline import BestOf, FitConfig, Reranked, fit, rerank
from editloop.offline.cost_model.saved import predicted_costs
from editloop.policy import Policy, RunFolder, Sample, load_base
from editloop.policy.generation import GenerationSettings
from editloop.policy.manifest import CrossValidationRecord
from small_log import small_log, with_cost_model

CONTEXTS = [row.context for row in small_log(6)]


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


@pytest.fixture(scope="module")
def run(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(small_log(60), policy, tmp_path_factory.mktemp("rerank") / "run", with_cost_model())


@pytest.fixture
def earned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cost model choose, whatever it was shown to predict."""
    monkeypatch.setattr(rerank, "no_reranking", lambda run: None)


def drafts(*finished: bool) -> list[Sample]:
    return [Sample(f"draft {k}", 2, each, 0) for k, each in enumerate(finished)]


@pytest.mark.parametrize(
    ("finished", "bounds", "chosen"),
    [
        ((True, True, True), (0.3, 0.1, 0.2), 1),
        ((True, False, True), (0.3, math.nan, 0.2), 2),
        ((False, True, False), (math.nan, math.nan, math.nan), 1),  # alone among those that ended
        ((False, False), (0.3, 0.2), 1),  # all were cut
        ((False, False), (math.nan, math.nan), 0),
        ((True, True), (0.2, 0.2), 0),
    ],
)
def test_the_choice_by_hand(finished: tuple[bool, ...], bounds: tuple[float, ...], chosen: int) -> None:
    assert rerank.choice(drafts(*finished), bounds) == chosen


def test_a_blank_draft_is_given_only_if_all_are() -> None:
    blank, cut = Sample(" ", 1, True, 0), Sample("Dear Ada", 9, False, 0)
    assert rerank.compared([blank, cut]) == [1] and rerank.choice([blank, cut], (math.nan,) * 2) == 1
    assert rerank.compared([blank, cut, *drafts(True)]) == [2]
    assert rerank.compared([blank, blank]) == [0, 1]


def test_without_chance_there_is_one_draft(run: RunFolder, policy: Policy, earned: None) -> None:
    greedy = replace(policy, generation=GenerationSettings(temperature=0))
    assert BestOf(run, greedy, ["sft"], 4).n == 1


def test_the_draft_with_the_least_bound_is_given(run: RunFolder, policy: Policy, earned: None) -> None:
    writer = BestOf(run, policy, ["sft"], 4, kappa=0.5)
    found = writer.reranked(CONTEXTS, seed=3, max_new_tokens=8)
    assert len(found) == len(CONTEXTS)
    for context, each in zip(CONTEXTS, found, strict=True):
        ended = [k for k, draft in enumerate(each.drafts) if draft.finished] or [0, 1, 2, 3]
        assert each.chosen in ended and each.arms == ("sft",) * 4
        assert each.sample is each.drafts[each.chosen]
        if len(ended) > 1:
            trees = [policy.encoder.tree(context, [each.drafts[k].text]) for k in ended]
            mean, spread = predicted_costs(run, policy, [tree for tree in trees if tree is not None])
            assert np.array(each.bounds)[ended] == pytest.approx(mean + 0.5 * spread, rel=1e-4)
            assert each.bounds[each.chosen] == np.nanmin(each.bounds)
    assert any(each.chosen for each in found)
    assert not hasattr(policy.model, "peft_config")
    assert writer.sample(CONTEXTS, seed=3, max_new_tokens=8) == [each.sample for each in found]


def test_more_drafts_begin_with_those_of_fewer_and_with_that_of_the_policy_alone(
    run: RunFolder, policy: Policy, earned: None
) -> None:
    def drawn(arms: list[str], n: int) -> list[Reranked]:
        return BestOf(run, policy, arms, n).reranked(CONTEXTS, seed=1, max_new_tokens=6)

    four = drawn(["sft"], 4)
    for fewer, more in zip(drawn(["sft"], 2), four, strict=True):
        assert fewer.drafts == more.drafts[:2]
    with run.policy("sft", policy) as alone:
        assert [each.drafts[0] for each in four] == alone.sample(CONTEXTS, seed=1, max_new_tokens=6)
    assert len({draft.text for draft in four[0].drafts}) > 1
    turns = drawn(["sft", "base"], 3)
    assert turns[0].arms == ("sft", "base", "sft")
    assert [each.drafts[0] for each in turns] == [each.drafts[0] for each in four]
    assert [each.drafts[2] for each in turns] == [each.drafts[2] for each in four]
    assert drawn(["sft", "base"], 1)[0].arms == ("sft",)


def test_progress_is_counted_in_contexts(run: RunFolder, policy: Policy, earned: None) -> None:
    seen: list[int] = []
    BestOf(run, policy, ["sft", "base"], 3).sample(CONTEXTS, seed=0, max_new_tokens=2, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == len(CONTEXTS)


@pytest.mark.parametrize(
    ("r2", "low", "words"),
    [(0.3, 0.1, None), (0.3, 0.0, "may predict nothing: R² 0.300"), (-0.2, -0.4, "may predict nothing")],
)
def test_a_cost_model_has_to_earn_it(
    run: RunFolder, policy: Policy, monkeypatch: pytest.MonkeyPatch, r2: float, low: float, words: str | None
) -> None:
    manifest = run.manifest()
    record = manifest.cost_model
    assert record is not None
    crossed = CrossValidationRecord(r2=r2, low=low, high=0.5, contexts=60)
    cost_model = record.model_copy(update={"cross_validated": crossed})
    monkeypatch.setattr(
        RunFolder, "manifest", lambda self: manifest.model_copy(update={"cost_model": cost_model})
    )
    writer = BestOf(run, policy, ["sft"], 4)
    if words is None:
        assert (writer.objection, writer.n) == (None, 4)
        return
    assert writer.objection is not None and words in writer.objection
    found = writer.reranked(CONTEXTS, seed=1, max_new_tokens=6)
    assert all(len(each.drafts) == 1 and each.chosen == 0 and math.isnan(each.bounds[0]) for each in found)


def test_without_a_cost_model_there_is_one_draft(policy: Policy, tmp_path: Path) -> None:
    config = FitConfig(methods=["sft"], epochs=0.5, validation_samples=0, max_new_tokens=4)
    plain = fit(small_log(24), policy, tmp_path / "run", config)
    writer = BestOf(plain, policy, ["sft"], 4)
    assert writer.objection is not None and "has no cost model" in writer.objection and writer.n == 1


@pytest.mark.parametrize("options", [{"arms": []}, {"n": 0}, {"kappa": -1.0}, {"kappa": math.nan}])
def test_settings_that_make_no_sense_are_refused(
    run: RunFolder, policy: Policy, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        BestOf(run, policy, **{"arms": ["sft"], "n": 2} | options)
