"""Edited-token DPO: its margin by hand on a model, and what it leaves alone where DPO does not."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from editloop.edits import Record
from editloop.offline import (
    METHODS,
    Batch,
    Completions,
    FitConfig,
    Layout,
    fit,
    make_examples,
    pack_completions,
    reference_of,
)
from editloop.policy import ContextTree, Policy, batch_log_probs, load_base
from small_log import small_log

METHOD = METHODS.get("edited_dpo")


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def test_only_the_changed_tokens_count_in_the_policy_and_in_the_reference(policy: Policy) -> None:
    row = Record(id="0", context="mail", response="see you at nine", edit="see me at nine")
    examples = make_examples([row], policy.encoder).examples
    trial = METHOD.hyperparameters()
    rows = METHOD.completions(examples, trial)
    ((known,), _) = reference_of(policy, rows)
    context, weights = known.tree.context, known.tree.weights
    assert weights is not None and [set(each) for each in weights] == [{0.0, 1.0}, {0.0, 1.0}, {1.0}]

    def by_hand(continuation: tuple[int, ...], own: tuple[float, ...]) -> float:
        """The sum of the log-probabilities of the tokens that count, each as the last of a prefix."""
        sums = [
            policy.log_probs([ContextTree(context, (continuation[:end],))])[0][0] if end else 0.0
            for end in range(len(continuation) + 1)
        ]
        return sum(
            w * (after - before) for w, (before, after) in zip(own, itertools.pairwise(sums), strict=True)
        )

    expected = [by_hand(c, w) for c, w in zip(known.tree.continuations, weights, strict=True)]
    assert known.reference == pytest.approx(expected, abs=1e-4)
    trees, layout = pack_completions(policy, [known], from_fork=METHOD.within_context)
    assert batch_log_probs(policy.model, trees).tolist() == pytest.approx(expected, abs=1e-4)
    assert layout.lengths.tolist() == [sum(each) for each in weights] == known.tree.lengths


def test_a_whole_pass_and_one_with_weights_are_two_entries_of_the_cache(
    policy: Policy, tmp_path: Path
) -> None:
    example = make_examples(small_log(3)[1:2], policy.encoder).examples[0]
    weighed = METHOD.completions([example], METHOD.hyperparameters())
    ((whole,), _) = reference_of(policy, [example.completions], cache=tmp_path)
    ((part,), is_known) = reference_of(policy, weighed, cache=tmp_path)
    assert not is_known and part.reference != whole.reference
    assert reference_of(policy, weighed, cache=tmp_path)[1]


def test_the_words_that_users_kept_are_not_pushed_down(base: Any, tmp_path: Path) -> None:
    """These users put a greeting before the draft. DPO pushes down all of the draft, which they kept."""
    policy = load_base(base(), device="cpu")
    methods = ("dpo", "edited_dpo")
    config = FitConfig(
        methods=methods,
        hyperparameters={name: {"learning_rate": 5e-3, "beta": 0.1} for name in methods},
        epochs=4,
        batch_size=8,
        evaluations=2,
        validation=0.25,
        validation_samples=0,
        lora={"rank": 4, "alpha": 8},
    )
    run = fit(small_log(60), policy, tmp_path / "run", config, report=False)
    shifts = {}
    for name in methods:
        best = run.manifest().policies[name].best
        assert best.initial_loss == pytest.approx(0.6931, abs=1e-3)
        accuracy, shift = (best.validation[key] for key in ("reference_accuracy", "rejected_shift"))
        assert accuracy is not None and accuracy.mean is not None and accuracy.mean > 0.5
        assert shift is not None and shift.mean is not None
        shifts[name] = shift.mean
    assert shifts["dpo"] < shifts["edited_dpo"]


def test_of_an_edit_that_only_deletes_the_margin_is_that_of_the_response() -> None:
    tree = ContextTree((1,), ((5, 6), (5, 7, 6)))
    own = Completions(tree, {"edit": (0,), "response": (1,)})
    example = type("Row", (), {"completions": own, "is_pair": True})()
    (row,) = METHOD.completions([example], METHOD.hyperparameters())
    assert row.tree.continuations == ((5, 6), (5, 7, 6), (5, 6))
    assert row.tree.weights == ((0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0))
    known = row.with_reference((0.0, -2.0, -3.0))
    layout = Layout([known], torch.tensor(known.tree.lengths))
    trial = METHOD.hyperparameters(beta=1.0)

    def batch(response: float, whole: float) -> Batch:
        return Batch(layout, torch.tensor([0.0, response, whole]), METHOD.totals(layout))

    assert float(METHOD.loss(batch(-3.0, -3.0), trial)) == pytest.approx(0.3132617)  # log(1 + e^−1)
    assert float(METHOD.validation_figure(batch(-3.0, -3.0), trial)) == pytest.approx(0.3132617)
    # The loss gains by a policy that has forgotten how to write; the figure that decides does not.
    assert float(METHOD.loss(batch(-300.0, -303.0), trial)) < 1e-6
    assert float(METHOD.validation_figure(batch(-300.0, -303.0), trial)) == pytest.approx(math.log(2) * 150)
