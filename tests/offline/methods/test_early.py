"""EarlyEnsemble: with its default weight the two terms are balanced, however long the edits are."""

from __future__ import annotations

import math

import pytest
import torch

from editloop.offline import Batch, Completions, Layout
from editloop.offline.methods.early import METHOD, EarlyHyperparameters
from editloop.policy import ContextTree


def slopes(length: int, margin: float, trial: EarlyHyperparameters, pairs: int = 2) -> tuple[float, float]:
    """The slopes of the loss in log π(y'|x) and log π(y|x) of each pair, times the number of pairs."""
    roles = {"edit": (0,), "response": (1,)}
    tree = ContextTree((1,), ((2,) * length, (3,) * length))
    rows = [Completions(tree, roles, (-1.0, -1.0)) for _ in range(pairs)]
    layout = Layout(rows, torch.full((2 * pairs,), length))
    log_probs = torch.tensor([margin - 1.0, -1.0] * pairs, requires_grad=True)
    METHOD.loss(Batch(layout, log_probs, METHOD.totals(layout)), trial).backward()
    assert log_probs.grad is not None
    return pairs * float(log_probs.grad[0]), pairs * float(log_probs.grad[1])


@pytest.mark.parametrize("length", [1, 40, 240])
@pytest.mark.parametrize("beta", [0.1, 0.5, 3.0])
def test_the_terms_are_balanced_at_any_length_and_beta(length: int, beta: float) -> None:
    # At a margin of 0 the DPO term's slope is λβ σ(0) = 1/2, beside 1 of the SFT term.
    assert slopes(length, 0.0, EarlyHyperparameters(beta=beta)) == pytest.approx((-1.5, 0.5))


@pytest.mark.parametrize("margin", [-300.0, -2.0, 0.0, 2.0, 300.0])
def test_the_edit_is_pulled_up_more_than_the_response_is_pushed_down(margin: float) -> None:
    up, down = slopes(100, margin, EarlyHyperparameters(beta=0.1))
    share = 1 / (1 + math.exp(min(0.1 * margin, 700)))  # σ(−β margin)
    assert (up, down) == pytest.approx((-1 - share, share), abs=1e-6)


def test_a_mean_over_tokens_leaves_long_edits_to_the_dpo_term() -> None:
    trial = EarlyHyperparameters(beta=0.1, dpo_weight=1.0, reduction="token")
    assert slopes(1, 0.0, trial) == pytest.approx((-1.05, 0.05))
    assert slopes(200, 0.0, trial) == pytest.approx((-0.005 - 0.05, 0.05))


def test_a_weight_that_is_given_is_used() -> None:
    assert EarlyHyperparameters(beta=0.5).weight == 2.0
    assert EarlyHyperparameters(beta=0.5, dpo_weight=0.0).weight == 0.0
    assert slopes(10, 0.0, EarlyHyperparameters(beta=0.5, dpo_weight=4.0)) == pytest.approx((-2.0, 1.0))
