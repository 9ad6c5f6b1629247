"""Every method follows the protocol: its description, and parts that add up to the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from editloop.offline import METHODS, Batch, make_examples, pack_completions, reference_pass
from editloop.offline.examples import EDIT, RESPONSE, SAMPLED, Completions
from editloop.policy import ContextTree, Policy, load_base
from small_log import small_log


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def examples_of(policy: Policy, rows: int = 8) -> list[Any]:
    """Rows with log π_ref, two sampled completions, and made-up costs."""
    found = []
    for example in reference_pass(policy, make_examples(small_log(rows), policy.encoder).examples)[0]:
        own = example.completions
        more = tuple(policy.encoder.continuation(text) for text in ("one way", "another way"))
        tree = ContextTree(own.tree.context, (*own.tree.continuations, *more))
        roles = {**own.roles, SAMPLED: (len(own), len(own) + 1)}
        costs = tuple(0.1 * k for k in range(len(tree.continuations)))
        sampled = Completions(tree, roles, tuple(policy.log_probs([tree])[0]), costs, costs)
        found.append(replace(example, sampled=sampled, cost=float(len(found))))
    return found


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_says_what_it_is(name: str) -> None:
    method = METHODS.get(name)
    assert method.name == name == name.lower()
    assert method.title and method.summary and method.learns_from and method.roles
    trial = method.hyperparameters()
    assert method.needs(trial) <= {"reference", "cost_model", "cost"}
    assert f"lr {trial.learning_rate:g}" in method.report_line(trial)
    for field in method.hyperparameters.model_fields.values():
        assert field.description and field.description.endswith(".")


def test_no_two_methods_look_alike() -> None:
    for attribute in ("title", "summary", "colour"):
        values = [getattr(method, attribute) for method in METHODS.parts()]
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", list(METHODS))
def test_the_parts_of_a_batch_add_up_to_the_whole(policy: Policy, name: str) -> None:
    method = METHODS.get(name)
    hyperparameters = method.hyperparameters()
    rows = method.completions([e for e in examples_of(policy) if method.rows(e)], hyperparameters)
    rows = [each.with_reference(each.reference or policy.log_probs([each.tree])[0]) for each in rows]

    # Every completion is less likely than under the reference, so that the reference point of KTO, which is
    # estimated in each part, is 0 in all of them.
    table = [
        [r - 0.1 * (i + k + 1) for k, r in enumerate(each.reference or ())] for i, each in enumerate(rows)
    ]

    def loss(chosen: slice, totals: Any) -> float:
        trees, layout = pack_completions(policy, rows[chosen], from_fork=method.within_context)
        log_probs = torch.tensor([value for values in table[chosen] for value in values])
        assert len(trees.lengths) == len(log_probs) == sum(map(len, rows[chosen]))
        return float(method.loss(Batch(layout, log_probs, totals, log_probs * 0.9), hyperparameters))

    def totals(chosen: slice) -> Any:
        return method.totals(pack_completions(policy, rows[chosen], from_fork=method.within_context)[1])

    everything, parts = slice(None), (slice(0, 2), slice(2, 3), slice(3, None))
    whole = totals(everything)
    assert any(value > 0 for value in whole.values())
    assert {key: sum(totals(part)[key] for part in parts) for key in whole} == pytest.approx(dict(whole))
    assert sum(loss(part, whole) for part in parts) == pytest.approx(loss(everything, whole), rel=1e-5)
    assert abs(loss(everything, whole)) > 1e-3


def test_completions_keep_their_roles_when_they_are_chosen() -> None:
    tree = ContextTree((1,), ((2,), (3,), (4,), (5,)))
    all_of_them = Completions(
        tree, {EDIT: (0,), RESPONSE: (1,), SAMPLED: (1, 3)}, (-1.0, -2.0, -3.0, -4.0), (0.0, 1.0, 2.0, 3.0)
    )
    assert all_of_them.is_pair and all_of_them.only(EDIT, RESPONSE, SAMPLED) != all_of_them
    kept = all_of_them.only(SAMPLED)
    assert kept.tree.continuations == ((3,), (5,)) and kept.roles == {SAMPLED: (0, 1)}
    assert (kept.reference, kept.cost, kept.spread) == ((-2.0, -4.0), (1.0, 3.0), None)
    assert not kept.is_pair
    both = all_of_them.only(EDIT, RESPONSE)
    assert both.roles == {EDIT: (0,), RESPONSE: (1,)} and both.is_pair
    assert both.only(EDIT, RESPONSE) is both
    begun = Completions(tree, all_of_them.roles, start=(-5.0, -6.0, -7.0, -8.0))
    assert begun.only(SAMPLED).start == (-6.0, -8.0) and begun.only(EDIT).start == (-5.0,)
    unedited = Completions(ContextTree((1,), ((2,),)), {EDIT: (0,), RESPONSE: (0,)})
    assert not unedited.is_pair and unedited.of(RESPONSE) == 0
    with pytest.raises(KeyError):
        unedited.of(SAMPLED)
