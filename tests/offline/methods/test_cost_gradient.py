"""The cost gradient: baselines and loss by hand, its gradient, and that it lowers the cost of a policy."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from editloop.offline import METHODS, Batch, Completions, Example, FitConfig, Layout, fit
from editloop.policy import ContextTree
from small_log import small_log

METHOD = METHODS.get("cost_gradient")


def trial(**values: Any) -> Any:
    return METHOD.hyperparameters(**{"beta": 1e-9, **values})


def example(context: str, cost: float | None, sampled: tuple[float, ...] | None = None) -> Example:
    tree = ContextTree((1,), ((2, 3), (4,)))
    own = Completions(tree, {"edit": (0,), "response": (1,)}, reference=(-4.0, -1.0))
    drawn = None
    if sampled is not None:
        continuations = ((2, 3), (4,), *((5 + i,) for i in range(len(sampled) - 2)))
        roles = {"edit": (0,), "response": (1,), "sampled": tuple(range(2, len(sampled)))}
        drawn = Completions(ContextTree((1,), continuations), roles, cost=sampled)
    return Example("i", context, "edit", "response", own, drawn, cost=cost)


def batch(excess: list[float], log_probs: list[float], reference: float = -1.0) -> Batch:
    rows = [
        Completions(ContextTree((1,), ((4,),)), {"response": (0,)}, (reference,), (value,), (0.0,))
        for value in excess
    ]
    layout = Layout(rows, torch.tensor([1] * len(rows)))
    return Batch(layout, torch.tensor(log_probs, requires_grad=True), METHOD.totals(layout))


def excesses(rows: list[Example], **values: Any) -> list[float]:
    return [each.cost[0] for each in METHOD.completions(rows, trial(**values))]


def test_the_baseline_is_the_mean_of_the_other_drafts_of_the_context():
    rows = [example("a", 1.0), example("a", 4.0), example("a", 1.0), example("b", 2.0)]
    # Others of `a`: (4 + 1)/2, (1 + 1)/2, (1 + 4)/2; `b` has no other, so the mean of all others, 6/3.
    assert excesses(rows) == pytest.approx([-1.5, 3.0, -1.5, 0.0])
    assert excesses([example("a", 3.0)]) == [3.0]


def test_the_baseline_by_the_model_is_the_mean_cost_of_what_was_sampled():
    rows = [example("a", 1.0, (9.0, 9.0, 0.5, 1.0)), example("b", 2.0, (0.2, 0.4))]
    assert excesses(rows, baseline="model") == pytest.approx([0.25, 1.7])
    with pytest.raises(ValueError, match="has none"):
        excesses([example("a", 1.0)], baseline="model")
    with pytest.raises(ValueError, match="needs the costs"):
        excesses([example("a", None)])


def test_it_looks_at_the_draft_alone_and_needs_its_cost():
    (found,) = METHOD.completions([example("a", 1.0)], trial())
    assert found.tree.continuations == ((4,),)
    assert found.reference == (-1.0,)
    assert METHOD.needs(trial()) == {"reference", "cost"}
    assert METHOD.needs(trial(baseline="model")) == {"reference", "cost", "cost_model"}


def test_the_loss_by_hand():
    # Ratios e^.1 and e^-.5 within and outside of 1 ± .2; excess costs 2 and -1.
    made = batch([2.0, -1.0], [-0.9, -1.5])
    expected = (2 * math.exp(0.1) + max(-math.exp(-0.5), -0.8)) / 2
    assert METHOD.loss(made, trial()).item() == pytest.approx(expected)
    penalty = 0.3 / 2 * (0.1**2 + 0.5**2) / 2
    assert METHOD.loss(made, trial(beta=0.3)).item() == pytest.approx(expected + penalty)


@pytest.mark.parametrize(
    ("excess", "log_ratio", "slope"),
    [
        (2.0, 0.0, 2.0),  # at the policy that wrote it, the cost itself
        (-2.0, 0.0, -2.0),
        (2.0, 0.1, 2 * math.exp(0.1)),  # and off it, times the ratio
        (-2.0, 0.5, 0.0),  # cheap and clearly likelier already: it stops
        (2.0, -0.5, 0.0),  # dear and clearly less likely already: it stops
        (2.0, 0.5, 2 * math.exp(0.5)),  # dear and likelier: it goes on
        (-2.0, -0.5, -2 * math.exp(-0.5)),  # cheap and less likely: it goes on
    ],
)
def test_the_gradient_is_the_excess_cost_times_the_ratio_until_it_is_clipped(excess, log_ratio, slope):
    made = batch([excess], [-1.0 + log_ratio])
    METHOD.loss(made, trial()).backward()
    assert made.log_probs.grad.tolist() == pytest.approx([slope], abs=1e-6)


def test_in_expectation_it_is_the_gradient_of_the_cost():
    """Over three responses, with μ's probabilities as weights: ∇ Σ π d, whatever the baseline."""
    costs, written = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([0.5, 0.3, 0.2])
    logits = torch.tensor([0.1, 0.0, -0.1], requires_grad=True)
    (expected,) = torch.autograd.grad((logits.softmax(0) * costs).sum(), logits)
    for baseline in (0.0, 1.1):
        parts = []
        for y in range(3):
            row = Completions(
                ContextTree((1,), ((4,),)),
                {"response": (0,)},
                (float(written[y].log()),),
                (float(costs[y]) - baseline,),
                (0.0,),
            )
            layout = Layout([row], torch.tensor([1]))
            one = Batch(layout, logits.log_softmax(0)[y : y + 1], METHOD.totals(layout))
            # No ratio is clipped, so that what is compared is the gradient itself.
            parts.append(written[y] * METHOD.loss(one, trial(clip=50.0)))
        (found,) = torch.autograd.grad(sum(parts), logits)
        assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_ratio_that_would_overflow_is_finite():
    made = batch([1.0, -1.0], [1e6, -1e6], reference=0.0)
    loss = METHOD.loss(made, trial())
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(math.isfinite(value) for value in made.log_probs.grad.tolist())


def test_parts_of_a_step_add_up():
    whole = batch([2.0, -1.0, 0.5], [-0.9, -1.5, -1.1])
    parts = [batch([2.0], [-0.9]), batch([-1.0, 0.5], [-1.5, -1.1])]
    total = {"contexts": 3.0}
    found = sum(METHOD.loss(replace(part, totals=total), trial(beta=0.2)).item() for part in parts)
    assert found == pytest.approx(METHOD.loss(whole, trial(beta=0.2)).item())


@pytest.mark.parametrize("baseline", ["context", "model"])
def test_a_fit_trains_it(base: Any, tmp_path: Path, baseline: str) -> None:
    config = FitConfig(
        methods=("cost_gradient",),
        hyperparameters={"cost_gradient": {"learning_rate": (1e-3,), "baseline": (baseline,)}},
        epochs=1.0,
        validation_samples=0,
        max_new_tokens=8,
    )
    run = fit(small_log(24), base(), tmp_path / "run", config, report=False)
    assert list(run.manifest().policies) == ["cost_gradient"]
