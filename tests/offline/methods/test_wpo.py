"""WPO: its weights and its loss by hand, and that the weights are no way to a smaller loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from editloop.offline import METHODS, Batch, Completions, FitConfig, Layout, fit
from editloop.offline.methods.wpo import pair_weights
from editloop.policy import ContextTree, batch_log_probs, batch_log_squares, load_base
from small_log import small_log

METHOD, DPO = METHODS.get("wpo"), METHODS.get("dpo")


def batch(log_probs: list[float], log_squares: list[float] | None, reference: tuple[float, float]) -> Batch:
    """Pairs of an edit of two tokens and a response of one."""
    roles = {"edit": (0,), "response": (1,)}
    count = len(log_probs) // 2
    rows = [Completions(ContextTree((1,), ((2, 3), (4,))), roles, reference) for _ in range(count)]
    layout = Layout(rows, torch.tensor([2, 1] * count))
    squares = None if log_squares is None else torch.tensor(log_squares)
    return Batch(layout, torch.tensor(log_probs, requires_grad=True), METHOD.totals(layout), squares)


def test_the_loss_by_hand() -> None:
    # The edit: −3 nats in 2 tokens, less −2, so w = e^(−1/2). The response: −1 less −2 in one token, w = e.
    made = batch([-3.0, -1.0], [-2.0, -2.0], (-4.0, -1.0))
    assert pair_weights(made).tolist() == pytest.approx([math.exp(0.5)])
    margin = (-3.0 - -1.0) - (-4.0 - -1.0)  # 1
    expected = math.exp(0.5) * math.log(1 + math.exp(-0.5 * margin))
    assert METHOD.loss(made, METHOD.hyperparameters(beta=0.5)).item() == pytest.approx(expected)


def test_with_weights_of_one_it_is_dpo_and_their_mean_is_over_all_pairs() -> None:
    values, trial = [-3.0, -1.0, -2.0, -2.5], METHOD.hyperparameters(beta=0.3)
    ones = batch(values, values, (-4.0, -1.0))
    assert METHOD.loss(ones, trial).item() == pytest.approx(DPO.loss(ones, trial).item())
    # The second pair at weight 0 leaves half of the loss of the first.
    faded = batch(values, [-3.0, -1.0, 500.0, 500.0], (-4.0, -1.0))
    first = DPO.loss(batch(values[:2], None, (-4.0, -1.0)), trial).item()
    assert METHOD.loss(faded, trial).item() == pytest.approx(first / 2)


def test_no_gradient_goes_through_the_weights() -> None:
    made = batch([-3.0, -1.0], [-2.0, -2.0], (-4.0, -1.0))
    METHOD.loss(made, METHOD.hyperparameters(beta=0.5)).backward()
    gradient = made.log_probs.grad
    assert gradient is not None
    # −w β σ(−β margin) and its opposite; through w, the two would not add up to 0.
    slope = math.exp(0.5) * 0.5 / (1 + math.exp(0.5))
    assert gradient.tolist() == pytest.approx([-slope, slope])


def test_the_figure_that_decides_is_that_of_dpo_and_needs_no_squares() -> None:
    made, trial = batch([-3.0, -1.0], None, (-2.0, -1.0)), METHOD.hyperparameters(beta=0.5)
    assert METHOD.validation_figure(made, trial).item() == pytest.approx(
        DPO.validation_figure(made, trial).item()
    )
    with pytest.raises(ValueError, match="squared probabilities"):
        METHOD.loss(made, trial)


@pytest.mark.parametrize("linear_head", [True, False])
def test_the_squares_are_those_of_whole_distributions(base: Any, linear_head: bool) -> None:
    policy = load_base(base(), device="cpu")
    trees = [ContextTree((40, 41), ((20, 21, 2), (20, 22))), ContextTree((5,), ((6, 7),))]
    with torch.no_grad():
        packed = policy.pack(trees)
        log_probs, squares = batch_log_squares(policy.model, packed, linear_head=linear_head)
        torch.testing.assert_close(log_probs, batch_log_probs(policy.model, packed, linear_head=linear_head))
        expected = []
        for tree in trees:
            for each in tree.continuations:
                ids = torch.tensor([[*tree.context, *each]])
                shares = policy.model(ids).logits[0].softmax(-1)[len(tree.context) - 1 : -1]
                expected.append(float(shares.square().sum(-1).log().sum()))
    torch.testing.assert_close(squares, torch.tensor(expected), atol=1e-4, rtol=0)


def test_a_fit_learns_to_prefer(base: Any, tmp_path: Path) -> None:
    config = FitConfig(
        methods=["wpo"],
        hyperparameters={"wpo": {"learning_rate": 5e-3}},
        epochs=6,
        batch_size=8,
        evaluations=3,
        validation=0.25,
        validation_samples=0,
        lora={"rank": 4, "alpha": 8},
    )
    policy = load_base(base(), device="cpu")
    run = fit(small_log(60, accepted=2), policy, tmp_path / "run", config, report=False)
    best = run.manifest().policies["wpo"].best
    assert best.initial_loss == pytest.approx(math.log(2), abs=1e-6)
    assert best.validation_loss is not None and best.validation_loss < math.log(2)
