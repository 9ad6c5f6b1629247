"""What decides among DPO's trials: its loss, unless the edits became unlikely."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from editloop.offline import Batch, Completions, Layout
from editloop.offline.methods.base import Method
from editloop.offline.methods.dpo import METHOD as DPO
from editloop.offline.methods.dpo import DPOHyperparameters
from editloop.offline.methods.ipo import METHOD as IPO
from editloop.policy import ContextTree

TRIAL = DPOHyperparameters(beta=0.5)


def batch(edit: float, response: float, method: Method = DPO) -> Batch:
    """A pair whose edit has two tokens; the reference gives −1 to both sides."""
    roles = {"edit": (0,), "response": (1,)}
    pair = Completions(ContextTree((1,), ((2, 4), (3,))), roles, (-1.0, -1.0))
    layout = Layout([pair], torch.tensor([2, 1]))
    return Batch(layout, torch.tensor([edit, response], dtype=torch.float64), method.totals(layout))


def test_edits_that_rose_leave_the_loss_alone() -> None:
    risen = batch(-0.5, -2.5)  # the margin is 2
    assert float(DPO.validation_figure(risen, TRIAL)) == pytest.approx(math.log1p(math.exp(-1.0)))
    assert float(DPO.validation_figure(risen, TRIAL)) == float(DPO.loss(risen, TRIAL))


def test_a_fall_of_the_edits_counts_per_token_by_hand() -> None:
    fallen = batch(-4.0, -8.0)  # the margin is 4, and the edit lost 3 nats on 2 tokens
    loss = math.log1p(math.exp(-2.0))
    assert float(DPO.validation_figure(fallen, TRIAL)) == pytest.approx(loss + math.log(2) * 1.5)
    # IPO's loss is 1 for the reference: (0 − 1/(2 · .5))².
    assert float(IPO.validation_figure(fallen, TRIAL)) == pytest.approx((4 - 1) ** 2 + 1.0 * 1.5)


@pytest.mark.parametrize("method", [DPO, IPO])
def test_the_reference_itself_has_the_loss_without_learning(method: Any) -> None:
    itself = batch(-1.0, -1.0, method)
    assert float(method.validation_figure(itself, TRIAL)) == pytest.approx(method.unlearned(TRIAL))


def test_a_policy_that_forgot_how_to_write_is_worse_than_none() -> None:
    forgot = batch(-9.0, -90.0)
    assert float(DPO.loss(forgot, TRIAL)) < 1e-9
    assert float(DPO.validation_figure(forgot, TRIAL)) > DPO.unlearned(TRIAL)
