"""Users who violate Assumption 1: what is measured of it, and bounds that hold all the same."""

from __future__ import annotations

import numpy as np
import pytest

from editloop.theory.balance import around
from editloop.theory.bounds import dpo_bias, dpo_term, lemma_1, sft_bias
from editloop.theory.draws import balanced_world, simplex, violated_world
from editloop.theory.learners import limit
from editloop.theory.responses import neighbours
from editloop.theory.violations import VIOLATIONS, violated


def test_dpo_knows_nothing_across_what_no_edit_connects() -> None:
    apart = np.array([[0, 1, 9, 9], [1, 0, 9, 9], [9, 9, 0, 1], [9, 9, 1, 0.0]])
    world = around(simplex(np.random.default_rng(0), 1, 4), apart, 0.5, 0.0, neighbours(apart))
    assert world.imbalance < 1e-15 and world.suboptimality(limit(world, "dpo")) > 1e-5
    assert dpo_bias(world) == dpo_term(world, 100) == np.inf


@pytest.mark.parametrize("kind", VIOLATIONS)
def test_a_violation_grows_from_nothing(kind: str) -> None:
    rng = np.random.default_rng(4)
    world = balanced_world(rng, contexts=2)
    none = violated(world, kind, 0.0)
    assert none.imbalance < 1e-12 and none.optimum == pytest.approx(world.optimum)
    some = [violated(world, kind, share).imbalance for share in (0.0, 0.1, 0.3)]
    assert some[0] < some[1] < some[2]
    assert violated(world, kind, 1.0).kernel.sum(axis=2) == pytest.approx(1.0)


def test_the_bounds_have_not_one_exception_in_1_500_worlds() -> None:
    rng = np.random.default_rng(0)
    finite = 0
    for _ in range(1_500):
        world = violated_world(rng)
        left, right = lemma_1(world, simplex(rng, *world.reference.shape))
        assert (left <= right + 1e-12).all()
        assert world.suboptimality(limit(world, "sft")) <= sft_bias(world) + 1e-12
        if np.isfinite(bound := dpo_bias(world)):
            finite += 1
            assert world.suboptimality(limit(world, "dpo")) <= bound + 1e-9
    assert finite > 500  # where an edit and its way back are both possible
