"""DPOP: its loss by hand, and that the edit's likelihood has a floor where DPO lets it fall."""

from __future__ import annotations

import math

import pytest
import torch

from editloop.offline import METHODS, Batch, Completions, Layout
from editloop.policy import ContextTree

METHOD, DPO = METHODS.get("dpop"), METHODS.get("dpo")


def batch(*pairs: tuple[float, float]) -> Batch:
    """Pairs of which the edit and the response have changed by so many nats."""
    roles = {"edit": (0,), "response": (1,)}
    rows = [Completions(ContextTree((1,), ((2,), (3,))), roles, (-4.0, -4.0)) for _ in pairs]
    layout = Layout(rows, torch.ones(2 * len(pairs), dtype=torch.long))
    log_probs = torch.tensor([value - 4.0 for pair in pairs for value in pair], requires_grad=True)
    return Batch(layout, log_probs, METHOD.totals(layout))


def test_the_loss_by_hand() -> None:
    trial = METHOD.hyperparameters(beta=0.5, floor=2.0)
    # The edit rose by 1, the response fell by 1: no penalty. The edit fell by 1, the response by 3: 2 − 2·1.
    margins = (2.0, 0.0)
    expected = sum(math.log(1 + math.exp(-0.5 * m)) for m in margins) / 2
    assert METHOD.loss(batch((1.0, -1.0), (-1.0, -3.0)), trial).item() == pytest.approx(expected)


def test_without_a_floor_it_is_dpo() -> None:
    pairs = ((1.0, -1.0), (-1.0, -3.0))
    plain = DPO.loss(batch(*pairs), DPO.hyperparameters(beta=0.5)).item()
    found = METHOD.loss(batch(*pairs), METHOD.hyperparameters(beta=0.5, floor=0.0)).item()
    assert found == pytest.approx(plain)


def test_both_falling_alike_is_no_way_to_a_smaller_loss() -> None:
    """DPO gains nothing and loses nothing there; here the gradient pulls the edit back up."""
    fallen = batch((-1.0, -1.0))
    METHOD.loss(fallen, METHOD.hyperparameters(beta=1.0, floor=5.0)).backward()
    gradient = fallen.log_probs.grad
    assert gradient is not None
    assert gradient[0] < 0 < gradient[1] and abs(gradient[0]) == pytest.approx(6 * gradient[1])


def test_the_prefix_counts_for_the_floor() -> None:
    assert not METHOD.within_context and DPO.within_context


def test_where_one_number_moves_both_the_edit_does_not_fall_with_the_response() -> None:
    """Three texts whose logits are θ, 2 θ and 0: to prefer the first to the second, θ has to fall."""
    shifts = {}
    for method in (DPO, METHOD):
        theta = torch.zeros((), requires_grad=True)
        optimiser = torch.optim.SGD([theta], lr=0.5)
        roles = {"edit": (0,), "response": (1,)}
        start = math.log(1 / 3)
        row = Completions(ContextTree((1,), ((2,), (3,))), roles, (start, start))
        layout = Layout([row], torch.ones(2, dtype=torch.long))
        for _ in range(200):
            log_probs = torch.stack([theta, 2 * theta, 0 * theta]).log_softmax(0)[:2]
            loss = method.loss(
                Batch(layout, log_probs, method.totals(layout)), method.hyperparameters(beta=1.0)
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        shifts[method.name] = log_probs[0].item() - start
    assert shifts["dpo"] < -2.0  # DPO makes the edit as unlikely as it likes
    assert shifts["dpop"] > -0.05
