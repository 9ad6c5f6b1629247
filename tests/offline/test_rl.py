"""RL on sampled completions (Eq. 6): what is sampled, its estimated cost, and what a fit makes of it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from editloop.edits import get_cost, register_cost
from editloop.errors import ConfigError, CostError, EmptyViewError
from editloop.offline import (
    METHODS,
    Batch,
    Completions,
    CostModel,
    EditTrainer,
    Example,
    FitConfig,
    Layout,
    Trial,
    feature_pass,
    fit,
    fit_cost_model,
    make_examples,
    pack_completions,
    reference_pass,
    training_arguments,
)
from editloop.offline.cost_model.estimates import FittedCosts, fit_to_responses, with_estimates
from editloop.offline.cost_model.sampled import SampledText, add_sampled, sample_completions
from editloop.offline.cost_model.saved import cost_fidelity
from editloop.offline.cost_model.tuned import tuned_features
from editloop.offline.examples import EDIT, RESPONSE, SAMPLED
from editloop.policy import (
    LoraSettings,
    Policy,
    attach_adapter,
    batch_log_probs,
    context_columns,
    detach_adapter,
    load_base,
    trainable_copy,
)
from small_log import small_log


def trial_of(name: str, **hyperparameters: Any) -> Trial:
    method = METHODS.get(name)
    return Trial(method, method.hyperparameters(learning_rate=1e-3, **hyperparameters))


RL_LOSSES = ("pairwise", "weighted")
RL: dict[str, Any] = {"beta": 0.2, "kappa": 0.5}
JOINT: dict[str, Any] = {"beta": 0.5, "dpo_weight": 2.0, "rl_weight": 3.0, "kappa": 0.5, "rl_beta": 0.2}


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


class Estimates(NamedTuple):
    train: list[Example]
    held: list[Example]
    fitted: FittedCosts


def estimate(policy: Policy, rows: int = 30, count: int = 3) -> Estimates:
    examples = reference_pass(policy, make_examples(small_log(rows), policy.encoder).examples)[0]
    examples = examples[rows // 3 :] + examples[: rows // 3]
    texts = sample_completions(policy, examples, count, seed=0, max_new_tokens=6)
    costs = get_cost()([e.response for e in examples], [e.edit for e in examples])
    return estimate_of(policy, examples, texts, costs)


def estimate_of(
    policy: Policy, examples: list[Example], texts: Sequence[Sequence[SampledText]], costs: np.ndarray
) -> Estimates:
    """Estimates by a cost model that was fitted on the first two thirds of the examples."""
    completions, n = add_sampled(policy, examples, texts), len(examples) - len(examples) // 3
    scored, _ = feature_pass(policy, [each.tree for each in completions])
    rows = zip(completions, scored, strict=True)
    features = np.stack([one.features[each.of(RESPONSE)] for each, one in rows])
    fitted = fit_to_responses(examples[:n], examples[n:], {"ridge": features}, costs)
    estimated = with_estimates(examples, completions, scored, fitted)
    return Estimates(estimated[:n], estimated[n:], fitted)


def sampled_of(example: Example) -> Completions:
    """The completions whose costs were estimated."""
    assert example.sampled is not None
    return example.sampled


def bound_of(completions: Completions, kappa: float) -> list[float]:
    """The pessimistic cost of each, as a loss sees it."""
    lengths = torch.tensor([len(tokens) for tokens in completions.tree.continuations])
    return Batch(Layout([completions], lengths), torch.zeros(len(completions)), {}).bound(kappa).tolist()


def test_what_is_sampled_follows_the_seed_and_is_cached(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = make_examples(small_log(4), policy.encoder).examples
    options: dict[str, Any] = {"seed": 1, "max_new_tokens": 5, "cache": tmp_path}
    found = sample_completions(policy, examples, 3, **options)
    assert [len(texts) for texts in found] == [3] * 4
    assert sample_completions(policy, examples, 0, **options) == [()] * 4
    assert sample_completions(policy, examples, 3, **options | {"seed": 2}) != found
    with monkeypatch.context() as patch:
        patch.setattr(type(policy), "sample", None)
        assert sample_completions(policy, examples, 3, **options) == found
    for file in (tmp_path / "sampled").glob("*"):
        file.write_text("[]\n")
    assert sample_completions(policy, examples, 3, **options) == found


def test_a_sample_that_was_cut_has_no_end_token(policy: Policy) -> None:
    (example,) = make_examples(small_log(2), policy.encoder).examples[1:]
    text = policy.encoder.continuation("some words")
    both = SampledText("some words", False), SampledText("some words", True)
    (found,) = add_sampled(policy, [example], [both])
    assert found.tree.continuations == (*example.tree.continuations, text[:-1], text)
    assert found.roles == {EDIT: (0,), RESPONSE: (1,), SAMPLED: (2, 3)}
    drawn = sample_completions(policy, [example] * 8, 2, seed=0, max_new_tokens=3)
    cut = [draw for draws in drawn for draw in draws if not draw.finished]
    assert cut  # a random base seldom ends within three tokens
    for draw in cut:
        (found,) = add_sampled(policy, [example], [(draw,)])
        assert all(policy.encoder.end not in new for new in found.tree.continuations[2:])


def test_a_cost_below_zero_is_still_a_cost(policy: Policy) -> None:
    """Lower is better, whatever the sign: a negated reward must not turn around."""
    examples = reference_pass(policy, make_examples(small_log(60), policy.encoder).examples)[0]
    costs = np.array([-0.2 if e.is_pair else -1.0 for e in examples])
    estimates = estimate_of(policy, examples, [()] * len(examples), costs)
    assert all(SAMPLED not in sampled_of(each).roles for each in estimates.train)
    assert estimates.fitted.report["unit"] == pytest.approx(np.abs(costs[:40]).mean())
    own = [sampled_of(e) for e in estimates.train]
    assert all(spread >= 0 for each in own for spread in each.spread or ())
    estimated = np.array([(each.cost or ())[each.of(RESPONSE)] for each in own])
    edited = np.array([e.is_pair for e in estimates.train])
    assert estimated[edited].mean() > estimated[~edited].mean() + 0.1


def test_no_completion_stands_twice_and_the_edit_and_the_response_come_first(policy: Policy) -> None:
    pair, single = make_examples(small_log(2), policy.encoder).examples[::-1]
    assert (pair.is_pair, single.is_pair) == (True, False)
    new = "something else"
    drawn = [
        tuple(SampledText(text, True) for text in texts)
        for texts in ((pair.response, new, new), (new, single.edit))
    ]
    found = add_sampled(policy, [pair, single], drawn)
    tokens = policy.encoder.continuation(new)
    assert found[0].tree.continuations == (*pair.tree.continuations, tokens)
    assert found[1].tree.continuations == (*single.tree.continuations, tokens)
    assert found[0].roles == {EDIT: (0,), RESPONSE: (1,), SAMPLED: (1, 2)}
    assert found[1].roles == {EDIT: (0,), RESPONSE: (0,), SAMPLED: (0, 1)}


def test_costs_are_estimated_by_the_model_and_reported_beside_baselines(policy: Policy) -> None:
    estimates = estimate(policy)
    unit = estimates.fitted.report["unit"]
    costs = get_cost()([e.response for e in estimates.train], [e.edit for e in estimates.train])
    assert unit == pytest.approx(costs.mean())
    assert (len(estimates.train), len(estimates.held)) == (20, 10)
    for example in (*estimates.train, *estimates.held):
        own = sampled_of(example)
        assert len(own.reference or ()) == len(own.cost or ()) == len(own.spread or ()) == len(own)
        assert own.reference == pytest.approx(tuple(policy.log_probs([own.tree])[0]), abs=1e-4)
        _, (features,) = policy.features([own.tree])
        mean, spread = (each / unit for each in estimates.fitted.model.predict(features))
        assert own.cost == pytest.approx(tuple(mean), abs=1e-4)
        assert bound_of(own, 0.5) == pytest.approx((mean + 0.5 * spread).tolist(), abs=1e-4)
    report = estimates.fitted.report
    assert report["mean"]["r2"] <= 0.05 and math.isnan(report["mean"]["pearson"])
    figures = {"kind", "settings", "noise", "unit", "cross_validated", "model", "length", "mean", "tried"}
    assert set(report) == figures


def by_hand(policy: Policy, examples: tuple[Example, ...], beta: float, kappa: float) -> float:
    """The mean square over all pairs of a context, and over contexts."""
    values = []
    for example in examples:
        a = sampled_of(example)
        moved = 0.3 * np.arange(len(a))
        ratio = np.array(policy.log_probs([a.tree])[0]) - np.array(a.reference) + moved
        value = beta * ratio + np.array(a.cost) + kappa * np.array(a.spread)
        pairs = [(value[i] - value[j]) ** 2 for i in range(len(value)) for j in range(i)]
        values.append(np.mean(pairs))
    return float(np.mean(values))


def test_the_loss_of_a_batch_by_hand(policy: Policy) -> None:
    examples = estimate(policy).train[:5]
    moved = []
    for example in examples:
        shifted = [r - 0.3 * k for k, r in enumerate(sampled_of(example).reference or ())]
        moved.append(
            replace(
                example,
                completions=example.completions.with_reference(shifted[: len(example.completions)]),
                sampled=sampled_of(example).with_reference(shifted),
            )
        )
    expected = by_hand(policy, examples, 0.2, 0.5)

    def loss(trial: Trial) -> float:
        rows = trial.method.completions(moved, trial.hyperparameters)
        trees, layout = pack_completions(policy, rows, from_fork=trial.method.within_context)
        with torch.no_grad():
            log_probs = batch_log_probs(policy.model, trees)
        batch = Batch(layout, log_probs, trial.method.totals(layout))
        return float(trial.method.loss(batch, trial.hyperparameters))

    assert loss(trial_of("rl", **RL)) == pytest.approx(expected, rel=1e-4)
    plain = loss(trial_of("early", **JOINT | {"rl_weight": 0.0}))
    assert loss(trial_of("early", **JOINT)) == pytest.approx(plain + 3 * expected, rel=1e-4)


@pytest.mark.parametrize("loss", RL_LOSSES)
@pytest.mark.parametrize("method", ["rl", "early"])
def test_accumulated_micro_batches_take_the_steps_of_the_whole_batch(
    policy: Policy, tmp_path: Path, method: str, loss: str
) -> None:
    trial = trial_of("rl", **RL, loss=loss) if method == "rl" else trial_of("early", **JOINT, rl_loss=loss)
    rows = trial.method.completions(estimate(policy).train, trial.hyperparameters)
    trees = [each.tree for each in rows]

    def train(micro: int) -> tuple[list[float], dict[str, torch.Tensor]]:
        config = FitConfig(
            lora=LoraSettings(rank=2),
            epochs=2,
            batch_size=8,
            seed=3,
            patience=9,
            micro_batch_size=micro,
        )
        adapted = attach_adapter(policy, config.lora, seed=3)
        trainer = EditTrainer(
            policy=adapted,
            trial=trial,
            config=config,
            arguments=training_arguments(config, tmp_path / str(micro), policy, trees, learning_rate=1e-3),
            train=rows,
            validate=lambda: {"loss": 1.0},
        )
        trainer.args.load_best_model_at_end = False
        trainer.train()
        weights = {k: w.clone() for k, w in adapted.model.state_dict().items() if "lora_" in k}
        detach_adapter(adapted)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], weights

    whole, parts = train(8), train(2)
    assert len(whole[0]) == 5
    assert whole[0] == pytest.approx(parts[0], rel=1e-4)
    for name, weight in whole[1].items():
        torch.testing.assert_close(weight, parts[1][name], atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("loss", RL_LOSSES)
def test_a_fit_moves_to_what_costs_less(policy: Policy, tmp_path: Path, loss: str) -> None:
    config = FitConfig(
        methods=["rl", "early"],
        hyperparameters={
            "rl": {"learning_rate": 1e-3, "beta": 0.1, "kappa": 0.0, "loss": loss},
            "early": {
                "learning_rate": 1e-3,
                "beta": 0.1,
                "rl_weight": 1.0,
                "rl_beta": 0.1,
                "kappa": 0.0,
                "rl_loss": loss,
            },
        },
        num_samples=2,
        epochs=12,
        batch_size=8,
        evaluations=4,
        validation=0.25,
        validation_samples=4,
        max_new_tokens=8,
        lora={"rank": 4, "alpha": 8},
    )
    run = fit(small_log(60, accepted=2), policy, tmp_path / "run", config)
    manifest = run.manifest()
    assert list(manifest.policies) == ["rl", "early"]
    for entry in manifest.policies.values():
        (trial,) = entry.trials
        assert trial.validation_loss is not None and trial.initial_loss is not None
        assert loss == "weighted" or trial.validation_loss < trial.initial_loss
        assert (trial.hyperparameters["beta"], trial.hyperparameters["kappa"]) == (0.1, 0.0)
    report = manifest.cost_model
    assert report is not None
    assert report.model.rows == 15 and report.settings["rows"] == 45
    model = CostModel.load(run.path / "cost_model")
    if loss == "weighted":  # of random draws it learns little; what it ends at is tested below
        return
    # The policy puts more weight than the base on completions that cost less.
    trees = [sampled_of(e).tree for e in estimate(policy, rows=90).train]
    with run.policy("rl", policy) as trained:
        after = trained.log_probs(trees)
    before, features = policy.features(trees)
    gains = []
    for new, old, table in zip(after, before, features, strict=True):
        moved, cost = np.array(new) - np.array(old), model.predict(table)[0]
        gains.append(float(((moved - moved.mean()) * (cost - cost.mean())).sum()))
    assert np.mean(gains) < -2 * np.std(gains) / math.sqrt(len(gains))


@pytest.mark.parametrize("loss", RL_LOSSES)
def test_a_policy_that_is_trained_on_every_response_reaches_the_optimum(
    policy: Policy, tmp_path: Path, loss: str
) -> None:
    """All strings of four letters a and b: among them π_ref e^(−f̄/β)/Z is known; by weights e^(−f̄/β)/Z."""
    texts = ["".join(letters) for letters in product("ab", repeat=4)]
    generator = np.random.default_rng(0)
    rows, optima, references = [], [], []
    for i in range(3):
        tree = policy.encoder.tree(f"mail {i}", texts)
        assert tree is not None and len(tree.continuations) == 16
        reference = np.array(policy.log_probs([tree])[0])
        cost, spread = generator.random(16), generator.random(16)
        score = (reference if loss == "pairwise" else 0) - (cost + RL["kappa"] * spread) / RL["beta"]
        optima.append(np.exp(score - np.logaddexp.reduce(score)))
        references.append(np.exp(reference - np.logaddexp.reduce(reference)))
        roles = {EDIT: (0,), RESPONSE: (1,), SAMPLED: tuple(range(2, 16))}
        rows.append(Completions(tree, roles, tuple(reference), tuple(cost), tuple(spread)))
    config = FitConfig(full=True, epochs=600, batch_size=3, patience=99, evaluations=1)
    trial, trees = trial_of("rl", **RL, loss=loss), [each.tree for each in rows]
    with trainable_copy(policy) as trained:
        trainer = EditTrainer(
            policy=trained,
            trial=trial,
            config=config,
            arguments=training_arguments(config, tmp_path, trained, trees, learning_rate=2e-3),
            train=rows,
            validate=lambda: {"loss": 1.0},
        )
        trainer.args.load_best_model_at_end = False
        trainer.train()
        found = trained.log_probs(trees)
    for log_probs, optimum, reference in zip(found, optima, references, strict=True):
        reached = np.exp(np.array(log_probs) - np.logaddexp.reduce(log_probs))
        assert np.abs(reached - optimum).sum() / 2 < 0.01
        assert np.abs(reference - optimum).sum() / 2 > 0.2


def test_all_four_methods_are_trained_and_only_rl_pays_for_a_cost_model(
    policy: Policy, tmp_path: Path
) -> None:
    small = {
        "epochs": 0.5,
        "validation_samples": 0,
        "max_new_tokens": 4,
        "num_samples": 1,
        "lora": {"rank": 2},
    }
    both = FitConfig(methods=["sft", "dpo", "rl", "early"], **small)
    assert both.needs == {"reference", "cost_model"}
    run = fit(small_log(24), policy, tmp_path / "all", both)
    assert run.policy_names() == ["sft", "dpo", "rl", "early"]
    early, rl = (run.manifest().policies[name].best for name in ("early", "rl"))
    assert early.hyperparameters["rl_weight"] == 0 and "kappa" not in early.settings
    assert "kappa 1" in rl.settings
    mixture = run.manifest().mixture
    assert mixture is not None and mixture.objective is not None
    assert sum(mixture.weights.values()) == pytest.approx(1)
    assert (list(mixture.weights), mixture.by) == (["sft", "dpo", "rl", "early"], "likelihood")
    assert mixture.objective >= max(each for each in mixture.single.values() if each is not None) - 1e-6
    assert run.arm_names() == ["base", "sft", "dpo", "rl", "early", "mixture"]
    with run.policy("mixture", policy) as mixed:
        assert len(mixed.sample(["mail 1", "mail 2"], seed=0, max_new_tokens=3)) == 2
    without = FitConfig(**small | {"validation_samples": 3, "mixture": "cost"})
    assert without.needs == {"reference"}
    run = fit(small_log(24), policy, tmp_path / "three", without)
    assert "cost_model" not in json.loads(run.manifest_path.read_text())
    assert run.manifest().cost_model is None and not (run.path / "cost_model").exists()
    mixture = run.manifest().mixture
    assert mixture is not None and mixture.by == "cost"


def test_the_grid_of_rl() -> None:
    config = FitConfig(
        methods=["rl", "early"],
        hyperparameters={
            "rl": {"learning_rate": 1e-4, "beta": [0.1, 0.2], "kappa": [0, 1]},
            "early": {"learning_rate": 1e-4, "rl_weight": [0, 1], "kappa": [0, 1], "rl_beta": [0.1, 0.2]},
        },
        select="cost",
    )
    trials = {name: config.trials(name) for name in ("rl", "early")}
    alone: list[Any] = [trial.hyperparameters for trial in trials["rl"]]
    assert [(c.beta, c.kappa) for c in alone] == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    joint: list[Any] = [trial.hyperparameters for trial in trials["early"]]
    # Without a weight there is one trial, whatever the RL term would be.
    assert [(c.beta, c.rl_weight) for c in joint] == [(0.1, 0.0)] + [(0.1, 1.0)] * 4
    assert [(c.rl_beta, c.kappa) for c in joint[1:]] == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    for each in trials.values():
        assert len({trial.name for trial in each}) == len(each)
    losses = {"rl": {"loss": ["pairwise", "weighted"]}}
    both = FitConfig(methods=["rl"], hyperparameters=losses, select="cost")
    tried: list[Any] = [trial.hyperparameters for trial in both.trials("rl")]
    assert {c.loss for c in tried} == {"pairwise", "weighted"}
    with pytest.raises(ConfigError, match="select cost"):
        FitConfig(methods=["rl"], hyperparameters=losses)


SMALL: dict[str, Any] = {
    "methods": ["rl"],
    "epochs": 0.5,
    "validation_samples": 0,
    "max_new_tokens": 4,
    "lora": {"rank": 2},
    "hyperparameters": {"rl": {"learning_rate": 1e-3}},
}


def test_tuned_features_are_kept_with_the_run_and_auto_takes_what_validates_best(
    policy: Policy, tmp_path: Path
) -> None:
    config = FitConfig(**SMALL | {"epochs": 3}, num_samples=1, cost_model="tuned", validation=0.25)
    run = fit(small_log(60), policy, tmp_path / "tuned", config)
    report = run.manifest().cost_model
    assert report is not None and report.kind == "tuned" and set(report.tried) == {"tuned"}
    assert not hasattr(policy.model, "peft_config")
    assert (run.cost_model / "adapter/adapter_config.json").is_file()
    held = make_examples(small_log(90)[60:], policy.encoder).examples
    cost = get_cost()
    found = cost_fidelity(run, policy, held, cost)
    assert found.rows == 30 and math.isfinite(found.r2)
    assert not hasattr(policy.model, "peft_config")
    shutil.rmtree(run.cost_model / "adapter")
    assert cost_fidelity(run, policy, held, cost).r2 != found.r2  # other features than it was fitted on

    auto = FitConfig(**SMALL, num_samples=1, cost_model="auto", validation=0.25)
    report = fit(small_log(60), policy, tmp_path / "auto", auto).manifest().cost_model
    assert report is not None and set(report.tried) == {"ridge", "bootstrap", "tuned"}
    assert report.tried[report.kind].r2 == max(each.r2 or -math.inf for each in report.tried.values())
    assert report.model == report.tried[report.kind]


def test_tuning_learns_what_frozen_states_do_not_show(policy: Policy, tmp_path: Path) -> None:
    """The cost is whether the response names Bob or Cy; the features of a random base hardly say so."""
    rows = small_log(80)
    examples = make_examples(rows, policy.encoder).examples
    costs = np.array([float("o" in e.response or "y" in e.response) for e in examples])
    config = FitConfig(
        methods=["rl"],
        hyperparameters={"rl": {"learning_rate": 5e-3}},
        epochs=30,
        lora={"rank": 8},
        gradient_checkpointing=True,
    )
    trees = [e.completions.only(RESPONSE).tree for e in examples]
    tables = tuned_features(policy, examples[:60], costs[:60], trees, config, tmp_path / "a")
    again = tuned_features(policy, examples[:60], costs[:60], trees, config, tmp_path / "a")
    for one, other in zip(tables, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)  # the second time from the folder

    def error(found: list[np.ndarray]) -> float:
        features = np.concatenate(found)
        model = fit_cost_model(features[:60], costs[:60], context=context_columns(features.shape[1]))
        return float(np.mean((model.predict(features[60:])[0] - costs[60:]) ** 2))

    frozen = policy.features(trees)[1]
    assert 0.2 < costs.mean() < 0.8
    assert error(tables) < error(frozen)


def test_without_samples_edit_and_response_are_left_to_choose_from(policy: Policy, tmp_path: Path) -> None:
    config = FitConfig(**SMALL, num_samples=0)
    run = fit(small_log(30), policy, tmp_path / "pairs", config)
    (trial,) = run.manifest().policies["rl"].trials
    assert trial.validation_loss is not None and math.isfinite(trial.validation_loss)
    assert trial.initial_loss is not None and trial.initial_loss > 0
    with pytest.raises(EmptyViewError, match="all costs are equal"):
        fit(small_log(30, accepted=1), policy, tmp_path / "none", config)  # every row was left as it was


def test_samples_that_are_all_what_was_written_anyway_are_no_choice(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(_: Policy, examples: list[Example], count: int, **__: Any) -> list[tuple[SampledText, ...]]:
        return [(SampledText(e.response, True),) * count for e in examples]

    monkeypatch.setattr("editloop.offline.cost_model.preparation.sample_completions", same)
    run = fit(small_log(30), policy, tmp_path / "pairs", FitConfig(**SMALL))
    assert run.manifest().status == "done"


def test_costs_that_are_all_equal_are_refused(policy: Policy, tmp_path: Path) -> None:
    """There is nothing to learn from them, and the optimiser would fit their rounding."""
    name = "all the same, for a test of RL"
    register_cost(name, lambda responses, edits: np.full(len(responses), 0.5))
    with pytest.raises(EmptyViewError, match=r"all costs are equal.*'0\.5 in 27 rows'"):
        fit(small_log(30), policy, tmp_path / "run", FitConfig(**SMALL, cost=name))


def test_a_validation_part_of_one_row_is_enough(policy: Policy, tmp_path: Path) -> None:
    config = FitConfig(**SMALL, num_samples=2, validation_rows=1)
    report = fit(small_log(30), policy, tmp_path / "run", config).manifest().cost_model
    assert report is not None and report.model.rows == 1
    assert report.model.r2 is None  # of one row there is none
    assert report.noise is not None and math.isfinite(report.noise)


def test_a_cost_that_is_not_finite_is_one_line(policy: Policy, tmp_path: Path) -> None:
    name = "not finite, for a test of RL"
    register_cost(name, lambda responses, edits: np.full(len(responses), math.nan))
    with pytest.raises(CostError, match="not finite"):
        fit(small_log(30), policy, tmp_path / "run", FitConfig(**SMALL, cost=name))
