"""RL on alternatives (Eq. 6): what is drawn, what it is thought to cost, and what a fit makes of it."""

from __future__ import annotations

import math
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from editloop.offline.alternatives import Draw, Priced, alternative_trees, draw_responses, price_alternatives
from editloop.offline.pricing import told_costs
from editloop.offline.tuned import tuned_features

from editloop.edits import get_cost, register_cost
from editloop.errors import ConfigError, CostError, EmptyViewError
from editloop.offline import (
    Candidate,
    CostModel,
    EditTrainer,
    Example,
    FitConfig,
    Method,
    feature_pass,
    fit,
    fit_cost_model,
    make_batch,
    make_examples,
    make_fit_config,
    method_loss,
    reference_pass,
    training_arguments,
)
from editloop.offline.config import RLLoss
from editloop.offline.examples import Alternatives
from editloop.policy import (
    ContextTree,
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

RL = Candidate(learning_rate=1e-3, beta=0.2, kappa=0.5, rl_loss="pairwise")
JOINT = Candidate(
    learning_rate=1e-3, beta=0.5, dpo_weight=2.0, rl_weight=3.0, kappa=0.5, rl_beta=0.2, rl_loss="pairwise"
)


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def price(policy: Policy, rows: int = 30, drawn: int = 3) -> Priced:
    examples = reference_pass(policy, make_examples(small_log(rows), policy.encoder).examples)[0]
    texts = draw_responses(policy, examples, drawn, seed=0, max_new_tokens=6)
    trees = alternative_trees(policy, examples, texts)
    scored, _ = feature_pass(policy, trees)
    held = rows // 3
    both = examples[held:] + examples[:held]
    return price_alternatives(
        examples[held:],
        examples[:held],
        trees[held:] + trees[:held],
        scored[held:] + scored[:held],
        get_cost()([e.response for e in both], [e.edit for e in both]),
        seed=0,
    )


def test_what_is_drawn_follows_the_seed_and_is_cached(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = make_examples(small_log(4), policy.encoder).examples
    options: dict[str, Any] = {"seed": 1, "max_new_tokens": 5, "cache": tmp_path}
    found = draw_responses(policy, examples, 3, **options)
    assert [len(texts) for texts in found] == [3] * 4
    assert draw_responses(policy, examples, 0, **options) == [()] * 4
    assert draw_responses(policy, examples, 3, **options | {"seed": 2}) != found
    with monkeypatch.context() as patch:
        patch.setattr(type(policy), "sample", None)
        assert draw_responses(policy, examples, 3, **options) == found
    for file in (tmp_path / "drawn").glob("*"):
        file.write_text("[]")
    assert draw_responses(policy, examples, 3, **options) == found


def test_a_draw_that_was_cut_does_not_teach_to_stop(policy: Policy) -> None:
    (example,) = make_examples(small_log(2), policy.encoder).examples[1:]
    text = policy.encoder.continuation("some words")
    (tree,) = alternative_trees(policy, [example], [(Draw("some words", False), Draw("some words", True))])
    assert tree.continuations == (*example.tree.continuations, text[:-1], text)
    drawn = draw_responses(policy, [example] * 8, 2, seed=0, max_new_tokens=3)
    cut = [draw for draws in drawn for draw in draws if not draw.finished]
    assert cut  # a random base seldom ends within three tokens
    for draw in cut:
        (tree,) = alternative_trees(policy, [example], [(draw,)])
        assert all(policy.encoder.end not in new for new in tree.continuations[2:])


def test_a_cost_below_zero_is_still_a_cost(policy: Policy) -> None:
    """Lower is better, whatever the sign: a negated reward must not turn around."""
    examples = reference_pass(policy, make_examples(small_log(60), policy.encoder).examples)[0]
    trees = alternative_trees(policy, examples, [()] * len(examples))
    scored, _ = feature_pass(policy, trees)
    costs = np.array([-0.2 if e.is_pair else -1.0 for e in examples])
    priced = price_alternatives(examples[:40], examples[40:], trees, scored, costs)
    assert priced.report["unit"] == pytest.approx(np.abs(costs[:40]).mean())
    own = [e.alternatives for e in priced.train if e.alternatives]
    assert all(spread >= 0 for each in own for spread in each.spread)
    told = np.array([each.cost[-1] for each in own])  # of the response
    edited = np.array([e.is_pair for e in priced.train])
    assert told[edited].mean() > told[~edited].mean() + 0.1


def test_no_alternative_stands_twice_and_the_edit_and_the_response_come_first(policy: Policy) -> None:
    pair, single = make_examples(small_log(2), policy.encoder).examples[::-1]
    assert (pair.is_pair, single.is_pair) == (True, False)
    new = "something else"
    drawn = [
        tuple(Draw(text, True) for text in texts) for texts in ((pair.response, new, new), (new, single.edit))
    ]
    trees = alternative_trees(policy, [pair, single], drawn)
    tokens = policy.encoder.continuation(new)
    assert trees[0].continuations == (*pair.tree.continuations, tokens)
    assert trees[1].continuations == (*single.tree.continuations, tokens)


def test_prices_are_those_of_the_model_and_beside_baselines(policy: Policy) -> None:
    priced = price(policy)
    unit = priced.report["unit"]
    costs = get_cost()([e.response for e in priced.train], [e.edit for e in priced.train])
    assert unit == pytest.approx(costs.mean())
    assert (len(priced.train), len(priced.held)) == (20, 10)
    for example in (*priced.train, *priced.held):
        alternatives = example.alternatives
        assert alternatives is not None
        width = len(alternatives.tree.continuations)
        assert len(alternatives.reference) == len(alternatives.cost) == len(alternatives.spread) == width
        assert alternatives.reference == pytest.approx(
            tuple(policy.log_probs([alternatives.tree])[0]), abs=1e-4
        )
        _, (features,) = policy.features([alternatives.tree])
        mean, spread = (each / unit for each in priced.model.predict(features))
        assert alternatives.cost == pytest.approx(tuple(mean), abs=1e-4)
        bound = mean + 0.5 * spread
        assert alternatives.bound(0.5) == pytest.approx(bound.tolist(), abs=1e-4)
    report = priced.report
    assert report["mean"]["r2"] <= 0.05 and math.isnan(report["mean"]["pearson"])
    assert set(report) == {"kind", "settings", "noise", "unit", "model", "length", "mean", "tried"}


def by_hand(policy: Policy, examples: tuple[Example, ...], beta: float, kappa: float) -> float:
    """The mean square over all pairs of a context, and over contexts."""
    values = []
    for example in examples:
        a = example.alternatives
        assert a is not None
        ratio = np.array(policy.log_probs([a.tree])[0]) - np.array(a.reference) + 0.3 * np.arange(len(a.cost))
        value = beta * ratio + np.array(a.bound(kappa))
        pairs = [(value[i] - value[j]) ** 2 for i in range(len(value)) for j in range(i)]
        values.append(np.mean(pairs))
    return float(np.mean(values))


def test_the_loss_of_a_batch_by_hand(policy: Policy) -> None:
    examples = price(policy).train[:5]
    moved = []
    for example in examples:
        a = example.alternatives
        assert a is not None
        shifted = tuple(r - 0.3 * k for k, r in enumerate(a.reference))
        moved.append(_with(example, reference=shifted))
    expected = by_hand(policy, examples, 0.2, 0.5)

    def loss(method: Method, candidate: Candidate) -> float:
        batch = make_batch(policy, moved, method, candidate.kappa)
        with torch.no_grad():
            log_probs = batch_log_probs(policy.model, batch.trees)
            return float(method_loss(method, candidate, batch, log_probs, FitConfig()))

    assert loss("rl", RL) == pytest.approx(expected, rel=1e-4)
    plain = JOINT.model_copy(update={"kappa": None, "rl_weight": None, "rl_beta": None, "rl_loss": None})
    rl = by_hand(policy, examples, 0.2, 0.5)
    assert loss("early", JOINT) == pytest.approx(loss("early", plain) + 3 * rl, rel=1e-4)


def _with(example: Example, **changes: Any) -> Example:
    from dataclasses import replace

    assert example.alternatives is not None
    return replace(example, alternatives=replace(example.alternatives, **changes))


@pytest.mark.parametrize("loss", ["pairwise", "weighted"])
@pytest.mark.parametrize(("method", "candidate"), [("rl", RL), ("early", JOINT)])
def test_accumulated_micro_batches_take_the_steps_of_the_whole_batch(
    policy: Policy, tmp_path: Path, method: Method, candidate: Candidate, loss: str
) -> None:
    examples = price(policy).train
    candidate = candidate.model_copy(update={"rl_loss": loss})

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
            method=method,
            candidate=candidate,
            config=config,
            arguments=training_arguments(config, candidate, tmp_path / str(micro), policy, examples),
            train=examples,
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


@pytest.mark.parametrize("loss", ["pairwise", "weighted"])
def test_a_fit_moves_to_what_costs_less(policy: Policy, tmp_path: Path, loss: str) -> None:
    config = make_fit_config(
        methods=["rl", "early"],
        learning_rate={"rl": [1e-3], "early": [1e-3]},
        beta=[0.1],
        kappa=[0.0],
        rl_weight=[1.0],
        rl_loss=[loss],
        candidates=2,
        epochs=12,
        batch_size=8,
        evaluations=4,
        validation=0.25,
        samples=4,
        max_new_tokens=8,
        lora={"rank": 4, "alpha": 8},
    )
    run = fit(small_log(60, accepted=2), policy, tmp_path / "run", config)
    manifest = run.manifest()
    assert list(manifest["policies"]) == ["rl", "early"]
    for name in manifest["policies"]:
        (candidate,) = manifest["policies"][name]["candidates"]
        assert loss == "weighted" or candidate["validation_loss"] < candidate["initial_loss"]
        assert (candidate["beta"], candidate["kappa"]) == (0.1, 0.0)
    report = manifest["cost_model"]
    assert report["model"]["rows"] == 15 and report["settings"]["rows"] == 45
    model = CostModel.load(run.path / "cost_model")
    if loss == "weighted":  # of random draws it learns little; what it ends at is tested below
        return
    # The policy puts more weight than the base on alternatives that cost less.
    examples = price(policy, rows=90).train
    trees = [e.alternatives.tree for e in examples if e.alternatives]
    with run.policy("rl", policy) as trained:
        after = trained.log_probs(trees)
    before, features = policy.features(trees)
    gains = []
    for new, old, table in zip(after, before, features, strict=True):
        moved, cost = np.array(new) - np.array(old), model.predict(table)[0]
        gains.append(float(((moved - moved.mean()) * (cost - cost.mean())).sum()))
    assert np.mean(gains) < -2 * np.std(gains) / math.sqrt(len(gains))


@pytest.mark.parametrize("loss", ["pairwise", "weighted"])
def test_a_policy_that_is_trained_on_every_response_reaches_the_optimum(
    policy: Policy, tmp_path: Path, loss: RLLoss
) -> None:
    """All strings of four letters a and b: among them π_ref e^(−f̄/β)/Z is known; by weights e^(−f̄/β)/Z."""
    texts = ["".join(letters) for letters in product("ab", repeat=4)]
    generator = np.random.default_rng(0)
    examples, optima, references = [], [], []
    for i in range(3):
        tree = policy.encoder.tree(f"mail {i}", texts)
        assert tree is not None and len(tree.continuations) == 16
        reference = np.array(policy.log_probs([tree])[0])
        cost, spread = generator.random(16), generator.random(16)
        score = (reference if loss == "pairwise" else 0) - (cost + RL.kappa * spread) / RL.beta
        optima.append(np.exp(score - np.logaddexp.reduce(score)))
        references.append(np.exp(reference - np.logaddexp.reduce(reference)))
        alternatives = Alternatives(tree, tuple(reference), tuple(cost), tuple(spread))
        pair = ContextTree(tree.context, tree.continuations[:2])
        examples.append(Example(str(i), f"mail {i}", texts[0], texts[1], pair, alternatives=alternatives))
    config = FitConfig(full=True, epochs=600, batch_size=3, patience=99, evaluations=1)
    candidate = RL.model_copy(update={"learning_rate": 2e-3, "rl_loss": loss})
    with trainable_copy(policy) as trained:
        trainer = EditTrainer(
            policy=trained,
            method="rl",
            candidate=candidate,
            config=config,
            arguments=training_arguments(config, candidate, tmp_path, trained, examples),
            train=examples,
            validate=lambda: {"loss": 1.0},
        )
        trainer.args.load_best_model_at_end = False
        trainer.train()
        found = trained.log_probs([e.alternatives.tree for e in examples if e.alternatives])
    for log_probs, optimum, reference in zip(found, optima, references, strict=True):
        reached = np.exp(np.array(log_probs) - np.logaddexp.reduce(log_probs))
        assert np.abs(reached - optimum).sum() / 2 < 0.01
        assert np.abs(reference - optimum).sum() / 2 > 0.2


def test_all_four_methods_are_trained_and_only_rl_pays_for_a_cost_model(
    policy: Policy, tmp_path: Path
) -> None:
    small = {"epochs": 0.5, "samples": 0, "max_new_tokens": 4, "candidates": 1, "lora": {"rank": 2}}
    both = make_fit_config(methods=["sft", "dpo", "rl", "early"], **small)
    assert both.prices
    run = fit(small_log(24), policy, tmp_path / "all", both)
    assert run.policy_names() == ["sft", "dpo", "rl", "early"]
    assert "kappa" not in run.manifest()["policies"]["early"]["candidates"][0]
    mixture = run.manifest()["mixture"]
    assert sum(mixture["weights"].values()) == pytest.approx(1)
    assert (list(mixture["weights"]), mixture["by"]) == (["sft", "dpo", "rl", "early"], "likelihood")
    assert mixture["objective"] >= max(mixture["single"].values()) - 1e-6
    assert run.arm_names() == ["base", "sft", "dpo", "rl", "early", "mixture"]
    with run.policy("mixture", policy) as mixed:
        assert len(mixed.sample(["mail 1", "mail 2"], seed=0, max_new_tokens=3)) == 2
    without = make_fit_config(**small | {"samples": 3, "mixture": "cost"})
    assert not without.prices
    run = fit(small_log(24), policy, tmp_path / "three", without)
    assert "cost_model" not in run.manifest() and not (run.path / "cost_model").exists()
    assert run.manifest()["mixture"]["by"] == "cost"


def test_the_grid_of_rl() -> None:
    config = make_fit_config(
        methods=["rl", "early"],
        beta={"rl": [0.1, 0.2]},
        kappa=[0, 1],
        rl_weight=[0, 1],
        select="cost",
        learning_rate={"rl": [1e-4], "early": [1e-4]},
    )
    assert [(c.beta, c.kappa) for c in config.grid("rl")] == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    joint = [(c.beta, c.rl_weight, c.kappa, c.rl_beta) for c in config.grid("early")]
    assert joint == [(0.1, None, None, None)] + [
        (0.1, 1.0, kappa, beta) for kappa in (0.0, 1.0) for beta in (0.1, 0.2)
    ]
    assert len({c.name for c in (*config.grid("rl"), *config.grid("early"))}) == 9
    both = make_fit_config(methods=["rl"], rl_loss=["pairwise", "weighted"], select="cost")
    assert {c.rl_loss for c in both.grid("rl")} == {"pairwise", "weighted"}
    with pytest.raises(ConfigError, match="select cost"):
        make_fit_config(methods=["rl"], rl_loss=["pairwise", "weighted"])


SMALL: dict[str, Any] = {
    "methods": ["rl"],
    "epochs": 0.5,
    "samples": 0,
    "max_new_tokens": 4,
    "lora": {"rank": 2},
    "learning_rate": {"rl": [1e-3]},
}


def test_tuned_features_are_kept_with_the_run_and_auto_takes_what_validates_best(
    policy: Policy, tmp_path: Path
) -> None:
    config = make_fit_config(**SMALL | {"epochs": 3}, candidates=1, cost_model="tuned", validation=0.25)
    run = fit(small_log(60), policy, tmp_path / "tuned", config)
    report = run.manifest()["cost_model"]
    assert report["kind"] == "tuned" and set(report["tried"]) == {"tuned"}
    assert not hasattr(policy.model, "peft_config")
    assert (run.cost_model / "adapter/adapter_config.json").is_file()
    held = make_examples(small_log(90)[60:], policy.encoder).examples
    cost = get_cost()
    told = told_costs(run, policy, held, cost)
    assert told.rows == 30 and math.isfinite(told.r2)
    assert not hasattr(policy.model, "peft_config")
    shutil.rmtree(run.cost_model / "adapter")
    assert told_costs(run, policy, held, cost).r2 != told.r2  # other features than it was fitted on

    auto = make_fit_config(**SMALL, candidates=1, cost_model="auto", validation=0.25)
    report = fit(small_log(60), policy, tmp_path / "auto", auto).manifest()["cost_model"]
    assert set(report["tried"]) == {"ridge", "bootstrap", "tuned"}
    assert report["tried"][report["kind"]]["r2"] == max(each["r2"] for each in report["tried"].values())
    assert report["model"] == report["tried"][report["kind"]]


def test_tuning_learns_what_frozen_states_do_not_tell(policy: Policy, tmp_path: Path) -> None:
    """The cost is whether the response names Bob or Cy; the features of a random base hardly say so."""
    rows = small_log(80)
    examples = make_examples(rows, policy.encoder).examples
    costs = np.array([float("o" in e.response or "y" in e.response) for e in examples])
    config = make_fit_config(
        methods=["rl"],
        learning_rate={"rl": [5e-3]},
        epochs=30,
        lora={"rank": 8},
        gradient_checkpointing=True,
    )
    trees = [e.response_tree for e in examples]
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


def test_without_draws_edit_and_response_are_left_to_choose_from(policy: Policy, tmp_path: Path) -> None:
    config = make_fit_config(**SMALL, candidates=0)
    run = fit(small_log(30), policy, tmp_path / "pairs", config)
    (candidate,) = run.manifest()["policies"]["rl"]["candidates"]
    assert math.isfinite(candidate["validation_loss"]) and candidate["initial_loss"] > 0
    with pytest.raises(EmptyViewError, match="two alternatives"):
        fit(small_log(30, accepted=1), policy, tmp_path / "none", config)  # every row was left as it was


def test_draws_that_are_all_what_was_written_anyway_are_no_choice(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(_: Policy, examples: list[Example], count: int, **__: Any) -> list[tuple[Draw, ...]]:
        return [(Draw(e.response, True),) * count for e in examples]

    monkeypatch.setattr("editloop.offline.pricing.draw_responses", same)
    with pytest.raises(EmptyViewError, match="two alternatives"):
        fit(small_log(30, accepted=1), policy, tmp_path / "none", make_fit_config(**SMALL))
    run = fit(small_log(30), policy, tmp_path / "pairs", make_fit_config(**SMALL))
    assert run.manifest()["status"] == "done"


def test_costs_that_are_all_equal_are_told(policy: Policy, tmp_path: Path) -> None:
    """Nothing is in them to learn, and the optimiser would make something of the rounding."""
    name = "all the same, for a test of RL"
    register_cost(name, lambda responses, edits: np.full(len(responses), 0.5))
    with pytest.raises(EmptyViewError, match=r"costs that are all equal: '0\.5 in 27 rows'"):
        fit(small_log(30), policy, tmp_path / "run", make_fit_config(**SMALL, cost=name))


def test_a_validation_part_of_one_row_is_enough(policy: Policy, tmp_path: Path) -> None:
    config = make_fit_config(**SMALL, candidates=2, validation_rows=1)
    report = fit(small_log(30), policy, tmp_path / "run", config).manifest()["cost_model"]
    assert report["model"]["rows"] == 1
    assert report["model"]["r2"] is None  # of one row there is none
    assert math.isfinite(report["noise"])


def test_a_cost_that_is_not_finite_is_one_line(policy: Policy, tmp_path: Path) -> None:
    name = "not finite, for a test of RL"
    register_cost(name, lambda responses, edits: np.full(len(responses), math.nan))
    with pytest.raises(CostError, match="not finite"):
        fit(small_log(30), policy, tmp_path / "run", make_fit_config(**SMALL, cost=name))
