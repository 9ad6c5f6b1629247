"""KTO: its loss by hand, what it makes of accepted and edited rows, and that it learns from acceptance."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from editloop.edits import Record
from editloop.errors import EmptyViewError
from editloop.offline import Batch, Completions, FitConfig, Layout, fit, make_examples
from editloop.offline.methods.kto import METHOD, KTOHyperparameters, kto_loss
from editloop.policy import ContextTree, Encoder, Policy, load_base
from tiny import tiny_tokenizer


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_loss_by_hand() -> None:
    desirable, undesirable = torch.tensor([1.0]), torch.tensor([-0.5, 0.4])
    mismatched = torch.tensor([0.2, 0.4, 0.3])  # z = .3
    found = kto_loss(desirable, undesirable, mismatched, beta=2.0, weights=(1.0, 0.5), count=3.0)
    short = 1 - sigmoid(2 * (1.0 - 0.3))
    over = (1 - sigmoid(2 * (0.3 + 0.5))) + (1 - sigmoid(2 * (0.3 - 0.4)))
    assert float(found) == pytest.approx((short + 0.5 * over) / 3)


def test_the_reference_point_is_not_below_zero_and_no_gradient_flows_through_it() -> None:
    desirable, mismatched = (torch.tensor([x], requires_grad=True) for x in (0.5, -3.0))
    loss = kto_loss(desirable, desirable[:0], mismatched, beta=1.0, count=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(1 - sigmoid(0.5))
    assert mismatched.grad is None
    assert float(desirable.grad) == pytest.approx(-sigmoid(0.5) * (1 - sigmoid(0.5)))  # type: ignore[arg-type]


def test_the_figure_that_decides_counts_what_accepted_drafts_lost() -> None:
    # The accepted draft, of two tokens, lost 3 nats; the edited one lost more, so the loss is low.
    kinds = {"desirable": (-2.0, -5.0, 2), "undesirable": (-2.0, -90.0, 1)}
    drafts = [
        Completions(ContextTree((1,), ((2,) * length,)), {kind: (0,)}, (reference,))
        for kind, (reference, _, length) in kinds.items()
    ]
    layout = Layout(drafts, torch.tensor([length for *_, length in kinds.values()]))
    log_probs = torch.tensor([value for _, value, _ in kinds.values()], dtype=torch.float64)
    batch = Batch(layout, log_probs, METHOD.totals(layout))
    trial = KTOHyperparameters(beta=1.0)
    figure = float(METHOD.validation_figure(batch, trial))
    assert figure == pytest.approx((1 - sigmoid(-3.0)) / 2 + 0.5 * 3 / 2)
    assert figure == pytest.approx(float(METHOD.loss(batch, trial)) + 0.75)


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def log(rows: int) -> list[Record]:
    """Every second draft is left as it is; those that begin with "dear" are edited."""
    return [
        Record(
            id=str(i),
            context=f"mail {i}",
            response="see you soon" if i % 2 else "dear all",
            edit="see you soon" if i % 2 else f"hi {i}",
        )
        for i in range(rows)
    ]


def test_drafts_are_desirable_where_they_were_left_and_the_next_ones_draft_is_mismatched(
    policy: Policy,
) -> None:
    examples = make_examples(log(3), policy.encoder).examples
    found = METHOD.completions(examples, KTOHyperparameters())
    draft = policy.encoder.continuation
    assert [sorted(each.roles) for each in found] == [
        ["mismatched", "undesirable"],
        ["desirable", "mismatched"],
        ["mismatched", "undesirable"],
    ]
    assert found[0].tree.continuations == (draft("dear all"), draft("see you soon"))
    assert found[1].tree.continuations == (draft("see you soon"), draft("dear all"))
    assert found[2].tree.continuations == (draft("dear all"),)  # the first one's draft is the same
    assert found[2].roles == {"undesirable": (0,), "mismatched": (0,)}
    assert all(each.reference is None for each in found)


def test_a_draft_that_was_edited_after_the_cut_is_undesirable() -> None:
    rows = [Record(id="a", context="say it", response="abcdefghij", edit="abcdefghiX")]
    examples = make_examples(rows, Encoder(tiny_tokenizer(), 12)).examples  # room for 5 of 11 tokens
    assert not examples[0].is_pair
    (found,) = METHOD.completions(examples, KTOHyperparameters())
    assert sorted(found.roles) == ["mismatched", "undesirable"]


def test_a_mismatched_draft_is_no_longer_than_the_longest_row(policy: Policy) -> None:
    rows = [
        Record(id="a", context="a long context of many words", response="x", edit="y"),
        Record(id="b", context="b", response="a long draft, too", edit="y"),
    ]
    examples = make_examples(rows, policy.encoder).examples
    longest = max(
        len(e.tree.context) + max(map(len, e.completions.only("response").tree.continuations))
        for e in examples
    )
    for each in METHOD.completions(examples, KTOHyperparameters()):
        assert len(each.tree.context) + max(map(len, each.tree.continuations)) <= longest


def test_both_kinds_of_drafts_weigh_the_same_together(policy: Policy) -> None:
    rows = log(8)
    examples = make_examples([*rows[::2], rows[1]], policy.encoder).examples  # 4 edited, 1 accepted
    found = METHOD.settled(KTOHyperparameters(), examples)
    assert (found.desirable_weight, found.undesirable_weight) == (2.5, 0.625)  # 5/2 over 1 and over 4
    given = METHOD.settled(KTOHyperparameters(undesirable_weight=0.5), examples)
    assert (given.desirable_weight, given.undesirable_weight) == (2.5, 0.5)


def test_kto_needs_drafts_of_both_kinds(policy: Policy, tmp_path: Path) -> None:
    config = FitConfig(methods=["kto"], validation_samples=0)
    edited = [row for row in log(40) if row.edit != row.response]
    with pytest.raises(
        EmptyViewError, match="KTO needs rows that were accepted unchanged and rows that were"
    ):
        fit(edited, policy, tmp_path / "run", config, report=False)


def test_a_fit_learns_from_acceptance(policy: Policy, tmp_path: Path) -> None:
    config = FitConfig(
        methods=["kto"],
        hyperparameters={"kto": {"learning_rate": 5e-3, "beta": 0.5}},
        epochs=6,
        batch_size=8,
        evaluations=3,
        validation=0.25,
        validation_samples=0,
        lora={"rank": 4, "alpha": 8},
    )
    rows = log(48)
    run = fit(rows, policy, tmp_path / "run", config, report=False)
    best = run.manifest().policies["kto"].best
    assert best.initial_loss == pytest.approx(0.5, abs=1e-6)  # the base against itself: σ(0)
    assert best.validation_loss is not None and best.validation_loss < 0.45
    assert best.settings == "lr 0.005, beta 0.5, desirable 1, undesirable 1"
    trees = [e.completions.only("response").tree for e in make_examples(rows, policy.encoder).examples]
    before = np.array([each[0] for each in policy.log_probs(trees)])
    with run.policy("kto", policy) as trained:
        shift = np.array([each[0] for each in trained.log_probs(trees)]) - before
    assert shift[1::2].mean() > 0 > shift[::2].mean()  # accepted drafts become likelier, edited ones do not
