"""IPO: its loss by hand, and a fit that brings margins to the distance that β sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from editloop.offline import Batch, Completions, FitConfig, Layout, fit
from editloop.offline.methods.dpo import DPOHyperparameters
from editloop.offline.methods.ipo import METHOD
from editloop.policy import ContextTree, load_base
from small_log import small_log


def batch(margins: list[float]) -> Batch:
    """Pairs of these margins, by the policy's log-probability of the edit alone."""
    roles = {"edit": (0,), "response": (1,)}
    pairs = [Completions(ContextTree((1,), ((2,), (3,))), roles, (-1.0, -1.0)) for _ in margins]
    layout = Layout(pairs, torch.ones(2 * len(margins), dtype=torch.long))
    log_probs = torch.tensor([value for margin in margins for value in (margin - 1.0, -1.0)])
    return Batch(layout, log_probs, METHOD.totals(layout))


def test_the_loss_by_hand() -> None:
    trial = DPOHyperparameters(beta=0.5)  # the distance is 1
    assert float(METHOD.loss(batch([2.0, -1.0]), trial)) == pytest.approx((1 + 4) / 2)
    assert float(METHOD.loss(batch([1.0]), trial)) == pytest.approx(0.0)
    assert float(METHOD.loss(batch([]), trial)) == 0.0


def test_a_fit_brings_the_margin_to_its_distance(base: Any, tmp_path: Path) -> None:
    policy = load_base(base(), device="cpu")
    config = FitConfig(
        methods=["ipo"],
        hyperparameters={"ipo": {"learning_rate": 5e-3, "beta": 0.25}},
        epochs=8,
        batch_size=8,
        evaluations=4,
        validation=0.25,
        validation_samples=0,
        lora={"rank": 4, "alpha": 8},
    )
    run = fit(small_log(60, accepted=2), policy, tmp_path / "run", config, report=False)
    best = run.manifest().policies["ipo"].best
    assert best.initial_loss == pytest.approx((1 / (2 * 0.25)) ** 2, abs=1e-5)  # all margins are 0
    assert best.validation_loss is not None and best.validation_loss < 0.75 * 4
    accuracy = best.validation["reference_accuracy"]
    assert accuracy is not None and accuracy.mean is not None and accuracy.mean > 0.5
