"""The losses: numbers worked out by hand, and parts that add up to the whole."""

from __future__ import annotations

import math

import pytest
import torch

from editloop.offline import (
    dpo_loss,
    early_ensemble_loss,
    pairwise_regression_loss,
    preference_margin,
    sft_loss,
    weighted_likelihood_loss,
)
from editloop.offline.losses import displacement

LOG_PROB = torch.tensor([-6.0, -2.0, -1.0])
LENGTHS = torch.tensor([3, 2, 1])


def test_sft_by_hand() -> None:
    assert float(sft_loss(LOG_PROB, LENGTHS)) == pytest.approx(9 / 6)  # by token
    assert float(sft_loss(LOG_PROB, LENGTHS, reduction="sequence")) == pytest.approx(9 / 3)
    assert float(sft_loss(LOG_PROB, LENGTHS, count=12.0)) == pytest.approx(9 / 12)
    assert float(sft_loss(LOG_PROB[:0], LENGTHS[:0])) == 0.0


def test_the_margin_by_hand() -> None:
    chosen, rejected = torch.tensor([-1.0, -5.0]), torch.tensor([-2.0, -3.0])
    ref_chosen, ref_rejected = torch.tensor([-1.5, -4.0]), torch.tensor([-1.0, -4.0])
    margin = preference_margin(chosen, rejected, ref_chosen, ref_rejected)
    assert margin.tolist() == pytest.approx([1.5, -2.0])  # (1) - (-0.5) and (-2) - (0)


def test_dpo_by_hand() -> None:
    margin = torch.tensor([2.0, -1.0])
    # beta .5: -log sigmoid(1) = log(1 + 1/e), -log sigmoid(-.5) = log(1 + sqrt e).
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5))) / 2
    assert float(dpo_loss(margin, beta=0.5)) == pytest.approx(expected)
    assert float(dpo_loss(torch.zeros(3), beta=0.1)) == pytest.approx(math.log(2))
    assert float(dpo_loss(margin, beta=0.5, count=4.0)) == pytest.approx(expected / 2)
    assert float(dpo_loss(margin[:0], beta=0.5)) == 0.0


def test_displacement_by_hand() -> None:
    log_prob, reference = torch.tensor([-5.0, -2.0]), torch.tensor([-3.0, -3.0], dtype=torch.float64)
    lengths = torch.tensor([3, 1])
    assert float(displacement(log_prob, reference, lengths)) == pytest.approx((2 - 1) / 4)
    assert float(displacement(-log_prob, reference, lengths)) == 0.0  # they rose
    assert float(displacement(log_prob[:0], reference[:0], lengths[:0])) == 0.0


def test_the_joint_loss_by_hand() -> None:
    joint = early_ensemble_loss(torch.tensor(1.5), torch.tensor(0.25), dpo_weight=2.0)
    assert float(joint) == pytest.approx(2.0)


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_parts_add_up_to_the_whole(reduction: str) -> None:
    count = 6.0 if reduction == "token" else 3.0
    parts = [
        sft_loss(LOG_PROB[i], LENGTHS[i], reduction=reduction, count=count)  # type: ignore[arg-type]
        for i in (slice(0, 1), slice(1, 3), slice(3, 3))
    ]
    assert float(sum(parts)) == pytest.approx(float(sft_loss(LOG_PROB, LENGTHS, reduction=reduction)))  # type: ignore[arg-type]
    margin = torch.tensor([2.0, -1.0, 0.3])
    halves = dpo_loss(margin[:1], beta=0.3, count=3.0) + dpo_loss(margin[1:], beta=0.3, count=3.0)
    assert float(halves) == pytest.approx(float(dpo_loss(margin, beta=0.3)))


def test_a_count_below_one_is_still_a_count() -> None:
    """One pair among the batches of two processes whose gradients are averaged: half a pair each."""
    assert float(dpo_loss(torch.zeros(1), beta=1.0, count=0.5)) == pytest.approx(2 * math.log(2))
    assert float(sft_loss(LOG_PROB[:1], LENGTHS[:1], reduction="sequence", count=0.5)) == pytest.approx(12.0)
    assert float(dpo_loss(torch.zeros(0), beta=1.0, count=0.0)) == 0.0


def test_gradients_by_hand() -> None:
    log_prob = LOG_PROB.clone().requires_grad_()
    sft_loss(log_prob, LENGTHS).backward()
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == pytest.approx([-1 / 6] * 3)
    chosen = torch.tensor([-1.0], requires_grad=True)
    rejected = torch.tensor([-2.0], requires_grad=True)
    reference = torch.tensor([-1.0]), torch.tensor([-3.0])
    dpo_loss(preference_margin(chosen, rejected, *reference), beta=0.5).backward()  # margin -1
    slope = 0.5 / (1 + math.exp(-0.5))  # beta sigma(-beta margin)
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert float(chosen.grad) == pytest.approx(-slope)
    assert float(rejected.grad) == pytest.approx(slope)


def test_an_edit_that_equals_the_response_has_a_gradient_of_exactly_zero() -> None:
    log_prob = torch.tensor([-3.7, -0.2], requires_grad=True)
    margin = preference_margin(log_prob, log_prob, torch.tensor([-4.0, -1.0]), torch.tensor([-4.0, -1.0]))
    dpo_loss(margin, beta=0.1).backward()
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == [0.0, 0.0]


def test_an_extreme_margin_is_finite() -> None:
    margin = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = dpo_loss(margin, beta=1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(5e3)
    assert margin.grad is not None
    assert margin.grad.isfinite().all()


GROUP = torch.tensor([0, 0, 0, 1, 2, 2])
COST = torch.tensor([0.5, 0.2, 0.8, 9.0, 0.1, 0.3])
RATIO = torch.tensor([1.0, -1.0, 0.0, 7.0, 2.0, 0.0])


def test_pairwise_regression_by_hand() -> None:
    # beta .5: values 1, -.3, .8 with square differences 1.69, .04, 1.21; and 1.1, .3 with .64.
    expected = ((1.69 + 0.04 + 1.21) / 3 + 0.64) / 2
    assert float(pairwise_regression_loss(RATIO, COST, GROUP, beta=0.5)) == pytest.approx(expected)
    assert float(pairwise_regression_loss(RATIO, COST, GROUP, beta=0.5, count=4.0)) == pytest.approx(
        expected / 2
    )
    assert float(pairwise_regression_loss(-COST / 0.5, COST, GROUP, beta=0.5)) == pytest.approx(0, abs=1e-12)
    assert float(pairwise_regression_loss(RATIO[:0], COST[:0], GROUP[:0], beta=0.5)) == 0.0


def test_weighted_likelihood_by_hand() -> None:
    weights = [math.exp(-c / 0.5) for c in (0.5, 0.2, 0.8)]
    first = -sum(w * r for w, r in zip(weights, (1.0, -1.0, 0.0), strict=True)) / sum(weights)
    second = -2.0 * math.exp(-0.2) / (math.exp(-0.2) + math.exp(-0.6))
    expected = (first + second) / 2  # the context with one completion adds nothing
    assert float(weighted_likelihood_loss(RATIO, COST, GROUP, beta=0.5)) == pytest.approx(expected)
    assert float(weighted_likelihood_loss(RATIO, COST + 1e4, GROUP, beta=0.5)) == pytest.approx(
        expected, rel=1e-2
    )
    assert float(weighted_likelihood_loss(RATIO[:0], COST[:0], GROUP[:0], beta=0.5)) == 0.0


@pytest.mark.parametrize("loss", ["pairwise", "weighted", "weighted, as often as sampled"])
def test_the_minimisers_of_the_losses_of_rl(loss: str) -> None:
    """On all 30 responses of five contexts: the policy of Eq. 6, or the weights e^(-cost/beta)/Z."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(5, 30, generator=generator, dtype=torch.float64).mul(1.5).log_softmax(1)
    cost, beta = torch.rand(5, 30, generator=generator, dtype=torch.float64), 0.2
    times = torch.ones(5, 30, dtype=torch.long)
    if loss == "weighted, as often as sampled":
        times = (reference.exp() * 20_000).round().long()
    rows = torch.arange(150).repeat_interleave(times.flatten())
    logits = reference.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        log_probs = logits.log_softmax(1)
        if loss == "pairwise":
            ratio = (log_probs - reference).flatten()
            value = pairwise_regression_loss(ratio[rows], cost.flatten()[rows], rows // 30, beta=beta)
        else:
            value = weighted_likelihood_loss(
                log_probs.flatten()[rows], cost.flatten()[rows], rows // 30, beta=beta
            )
        value.backward()
        return value

    optimiser.step(closure)
    optimum = (reference - cost / beta).softmax(1)
    expected = (-cost / beta).softmax(1) if loss == "weighted" else optimum
    distance = (logits.softmax(1) - expected).abs().sum(1) / 2
    assert distance.max() < (5e-3 if loss == "weighted, as often as sampled" else 1e-3)  # counts are rounded
    assert (reference.exp() - optimum).abs().sum(1).min() / 2 > 0.2
    assert ((-cost / beta).softmax(1) - optimum).abs().sum(1).min() / 2 > 0.2
