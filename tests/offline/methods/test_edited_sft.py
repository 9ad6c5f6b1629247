"""Edited-token SFT: its loss by hand, and that it is SFT where all tokens count once."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from editloop.edits import Record
from editloop.offline import METHODS, Batch, make_examples, pack_completions
from editloop.policy import Policy, batch_log_probs, load_base
from small_log import small_log

METHOD, SFT = METHODS.get("edited_sft"), METHODS.get("sft")


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def loss(policy: Policy, method: Any, records: list[Record], **values: Any) -> float:
    trial = method.hyperparameters(**values)
    rows = method.completions(make_examples(records, policy.encoder).examples, trial)
    trees, layout = pack_completions(policy, rows)
    with torch.no_grad():
        batch = Batch(layout, batch_log_probs(policy.model, trees), method.totals(layout))
    return float(method.loss(batch, trial))


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_with_the_weight_1_it_is_sft(policy: Policy, reduction: str) -> None:
    rows = small_log(9)
    expected = loss(policy, SFT, rows, reduction=reduction)
    assert loss(policy, METHOD, rows, reduction=reduction, changed_weight=1.0) == pytest.approx(expected)


def test_the_mean_is_by_the_weights(policy: Policy) -> None:
    """The greeting counts three times, what was copied once."""
    row = Record(id="0", context="mail", response="see Ann", edit="hi! see Ann")
    (example,) = make_examples([row], policy.encoder).examples
    (weighed,) = METHOD.completions([example], METHOD.hyperparameters(changed_weight=3.0))
    (weights,) = weighed.tree.weights
    (tokens,) = weighed.tree.continuations
    tree = type(weighed.tree)
    sums = [0.0] + [
        policy.log_probs([tree(weighed.tree.context, (tokens[:end],))])[0][0]
        for end in range(1, len(tokens) + 1)
    ]
    each = [after - before for before, after in itertools.pairwise(sums)]
    expected = -sum(w * x for w, x in zip(weights, each, strict=True)) / sum(weights)
    assert set(weights) == {1.0, 3.0}
    assert loss(policy, METHOD, [row], changed_weight=3.0) == pytest.approx(expected, rel=1e-4)


def test_an_accepted_row_counts_as_in_sft(policy: Policy) -> None:
    row = Record(id="0", context="mail", response="see Ann", edit="see Ann")
    assert loss(policy, METHOD, [row]) == pytest.approx(loss(policy, SFT, [row]))
