"""Chain DPO: its loss by hand, what a chain leaves out, and that every step of a chain is learned."""

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
from editloop.offline.data import FitData
from editloop.offline.methods.chain_dpo import adjacent_pairs, without_detours
from editloop.offline.resume import run_identity
from editloop.policy import ContextTree, Encoder, Policy, batch_log_probs, load_base
from small_log import small_log
from tiny import tiny_tokenizer

METHOD, DPO = METHODS.get("chain_dpo"), METHODS.get("dpo")


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def record(edit: str, *revisions: Any, response: str = "see you at nine") -> Record:
    metadata = {"revisions": list(revisions)} if revisions else {}
    return Record(id=edit, context="mail", response=response, edit=edit, metadata=metadata)


def chains(policy: Policy, *records: Record) -> list[Completions]:
    examples = make_examples(records, policy.encoder).examples
    return METHOD.completions([e for e in examples if METHOD.rows(e)], METHOD.hyperparameters())


def chain_texts(policy: Policy, one: Record) -> list[str]:
    """The texts of the only chain of a record, the oldest first."""
    (own,) = chains(policy, one)
    order = (own.of("response"), *own.roles.get("revision", ()), own.of("edit"))
    return [policy.encoder.decode(own.tree.continuations[i]) for i in order]


def sigmoid_loss(margin: float, beta: float) -> float:
    return math.log(1 + math.exp(-beta * margin))


def test_the_loss_by_hand() -> None:
    """A chain of three pairs and a row of one: the mean is over the four pairs."""
    long = Completions(
        ContextTree((1,), ((2,), (3,), (4,), (5,))),
        {"edit": (0,), "response": (1,), "revision": (3, 2)},
        (-1.0, -2.0, -3.0, -4.0),
    )
    short = Completions(ContextTree((1,), ((2,), (3,))), {"edit": (0,), "response": (1,)}, (-1.0, -1.0))
    layout = Layout([long, short], torch.ones(6, dtype=torch.long))
    chosen, rejected = adjacent_pairs(layout)
    assert (chosen.tolist(), rejected.tolist()) == ([3, 2, 0, 4], [1, 3, 2, 5])
    # log π/π_ref: edit .5, response −.5, later revision 1, earlier 0; those of the short row .25 and 0.
    log_probs = torch.tensor([-0.5, -2.5, -2.0, -4.0, -0.75, -1.0])
    batch = Batch(layout, log_probs, METHOD.totals(layout))
    assert batch.totals == {"pairs": 4.0}
    margins = (0.5, 1.0, -0.5, 0.25)  # response to earlier, earlier to later, later to edit; the short row
    expected = sum(sigmoid_loss(margin, 2.0) for margin in margins) / 4
    assert METHOD.loss(batch, METHOD.hyperparameters(beta=2.0)).item() == pytest.approx(expected)


def test_at_the_start_a_chain_pulls_as_its_ends_do() -> None:
    """The revision has no gradient while no margin differs, and edit and response have that of DPO."""
    roles = {"edit": (0,), "response": (1,)}
    gradients = {}
    for method, more in ((METHOD, {"revision": (2,)}), (DPO, {})):
        tree = ContextTree((1,), ((2,), (3,), (4,))[: 2 + len(more)])
        row = Completions(tree, {**roles, **more}, (-1.0, -2.0, -3.0)[: len(tree.continuations)])
        layout = Layout([row], torch.ones(len(row), dtype=torch.long))
        log_probs = torch.tensor(row.reference, requires_grad=True)
        # Divided by rows and not by pairs, as if the row were one among others of the same kind.
        method.loss(Batch(layout, log_probs, {"pairs": 1.0}), method.hyperparameters(beta=1.0)).backward()
        assert log_probs.grad is not None
        gradients[method.name] = log_probs.grad.tolist()
    assert gradients["dpo"] == pytest.approx([-0.5, 0.5])
    assert gradients["chain_dpo"] == pytest.approx([-0.5, 0.5, 0.0])


def test_without_earlier_revisions_it_is_dpo(policy: Policy) -> None:
    rows = make_examples(small_log(8), policy.encoder).examples
    own = [
        method.completions([e for e in rows if method.rows(e)], method.hyperparameters())
        for method in (METHOD, DPO)
    ]
    assert own[0] == own[1]
    known, _ = reference_of(policy, own[0])
    trees, layout = pack_completions(policy, known, from_fork=METHOD.within_context)
    log_probs = batch_log_probs(policy.model, trees).detach() - 0.3 * torch.arange(len(trees.lengths))
    losses = [
        float(each.loss(Batch(layout, log_probs, each.totals(layout)), each.hyperparameters()))
        for each in (METHOD, DPO)
    ]
    assert losses[0] == losses[1] != pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("chain", "left"),
    [
        ("abc", "abc"),
        ("aab", "ab"),  # saved without a change
        ("abb", "ab"),
        ("abac", "ac"),  # tried and taken back
        ("abcbd", "abd"),
        ("acbc", "ac"),  # the edit was there before
        ("abcad", "ad"),
        ("aba", "a"),  # in the end nothing was edited
        ("ab", "ab"),
    ],
)
def test_what_was_taken_back_is_left_out(chain: str, left: str) -> None:
    assert without_detours([(ord(each),) for each in chain]) == [(ord(each),) for each in left]


def test_a_chain_of_a_log(policy: Policy) -> None:
    first, last = "see me at nine", "see me at ten"
    start = "see you at nine"
    assert chain_texts(policy, record(last, first)) == [start, first, last]
    assert chain_texts(policy, record(last, first, start, first, last, first)) == [start, first, last]
    assert chain_texts(policy, record(last, "", first, "  ")) == [start, first, last]
    assert chain_texts(policy, record(last, None, {"text": first}, 3, first)) == [start, first, last]
    assert chain_texts(policy, record("", first)) == [start, first, ""]  # the user deleted it all at last
    odd = Record(id="0", context="mail", response=start, edit=last, metadata={"revisions": 2})
    assert odd.revisions == () and chain_texts(policy, odd) == [start, last]
    # Whoever returns to the draft has accepted it, and there is no pair.
    assert chains(policy, record(start, first)) == []


def test_a_chain_is_one_tree_and_each_shared_token_stands_once(policy: Policy) -> None:
    ((own,),) = [chains(policy, record("see me at ten", "see me at nine"))]
    context, continuations = own.tree.context, own.tree.continuations
    assert len(continuations) == 3
    distinct = {c[:end] for c in continuations for end in range(1, len(c) + 1)}
    assert len(own.tree.layout) == len(context) + len(distinct)
    assert own.reference is None  # the revision has none yet


def test_revisions_are_cut_as_their_tree_is() -> None:
    encoder = Encoder(tiny_tokenizer(), 12)
    (example,) = make_examples([record("abcdefXhij", "abcdeYghij", response="abcdefghij")], encoder).examples
    room = 12 - len(example.tree.context)
    assert 0 < room < 10 and [len(each) for each in example.revisions] == [room]


def test_a_run_knows_revisions_only_where_a_method_reads_them(policy: Policy) -> None:
    def identity(method: str, *revisions: str) -> str:
        part = make_examples([record("see me at ten", *revisions)], policy.encoder)
        return run_identity(policy, FitConfig(methods=[method]), FitData(part, part))

    assert identity("dpo") == identity("dpo", "see me at nine")
    assert identity("chain_dpo") != identity("chain_dpo", "see me at nine")


def test_every_step_of_a_chain_is_learned(base: Any, tmp_path: Path) -> None:
    """These users first greet and then sign. The greeted text is between the draft and the edit."""
    policy = load_base(base(), device="cpu")
    log = [
        Record(
            id=str(i),
            context=f"mail {i}",
            response=(draft := f"see Ann at {i % 7}"),
            edit=f"hi! {draft} Bob",
            metadata={"revisions": [f"hi! {draft}"]},
        )
        for i in range(48)
    ]
    config = FitConfig(
        methods=["chain_dpo"],
        hyperparameters={"chain_dpo": {"learning_rate": 5e-3, "beta": 0.1}},
        epochs=4,
        batch_size=8,
        evaluations=2,
        validation=0.25,
        validation_samples=0,
        lora={"rank": 4, "alpha": 8},
    )
    run = fit(log, policy, tmp_path / "run", config, report=False)
    best = run.manifest().policies["chain_dpo"].best
    assert best.initial_loss == pytest.approx(math.log(2), abs=1e-6)
    assert best.validation_loss is not None and best.validation_loss < math.log(2)
    rows = chains(policy, *log)
    before = policy.log_probs([row.tree for row in rows])
    with run.policy("chain_dpo", policy) as trained:
        after = trained.log_probs([row.tree for row in rows])
    steps: list[list[float]] = [[], []]
    for row, old, new in zip(rows, before, after, strict=True):
        shift = [new[i] - old[i] for i in (row.of("response"), row.of("revision"), row.of("edit"))]
        for place, (earlier, later) in enumerate(itertools.pairwise(shift)):
            steps[place].append(later - earlier)
    assert all(sum(margins) / len(margins) > 0.1 for margins in steps)
