"""The tabular learners: by hand, in the limit, and how chance fades."""

from __future__ import annotations

import math

import numpy as np
import pytest

from editloop.errors import WorldError
from editloop.theory import bounds
from editloop.theory.balance import around
from editloop.theory.draws import any_world, balanced_world, simplex
from editloop.theory.learners import Seen, dpo, early, limit, rl, seen, sft
from editloop.theory.responses import abstract_distances, neighbours
from editloop.theory.world import Rows, World

APART = np.array([[0.0, 1.0], [1.0, 0.0]])
EVEN = World([[0.5, 0.5]], APART, [[[0.5, 0.5], [0.5, 0.5]]], 0.5)


def test_each_learner_by_hand() -> None:
    pairs = np.array([[[1.0, 6.0], [2.0, 1.0]]])  # 6 times the first became the second, twice the other way
    data = Seen(pairs, (pairs * APART).sum(axis=2))
    assert sft(EVEN, data).tolist() == [[0.3, 0.7]]
    assert dpo(EVEN, data, ridge=0.0)[0] == pytest.approx([0.25, 0.75])  # log-odds log(6/2)
    third = dpo(EVEN, data, strength=2.0, ridge=0.0)[0]
    assert third[1] / third[0] == pytest.approx(math.sqrt(3))
    costs = np.exp(-np.array([6 / 7, 2 / 3]) / 0.5)
    assert rl(EVEN, data, kappa=0.0)[0] == pytest.approx(costs / costs.sum())
    bound = np.exp(-np.minimum([6 / 7 + 0.5 / math.sqrt(7), 2 / 3 + 0.5 / math.sqrt(3)], 1) / 0.5)
    assert rl(EVEN, data, kappa=1.0)[0] == pytest.approx(bound / bound.sum())
    # Eq. 7: the slope 6 σ(-v) - 2 σ(v) + 7 - 10 σ(v) is zero where σ(v) = 13/18.
    joint = early(EVEN, data, ridge=0.0)[0]
    assert joint == pytest.approx([5 / 18, 13 / 18])


def test_a_log_is_counted() -> None:
    rows = Rows(*np.array([[0, 0, 1], [0, 1, 2], [2, 1, 0]]), np.array([1.0, 0.0, 4.0]))
    world = any_world(np.random.default_rng(0), m=3)
    data = seen(world, rows)
    assert data.pairs.sum() == 3 and data.pairs[0, 0, 2] == data.pairs[1, 2, 0] == 1
    assert data.costs[1, 2] == world.distance[2, 0]
    empty = seen(world, rows.first(0))
    assert sft(world, empty) == pytest.approx(world.reference)
    assert dpo(world, empty) == pytest.approx(world.reference)
    assert early(world, empty) == pytest.approx(world.reference)
    assert rl(world, empty) == pytest.approx(world.reference)


@pytest.mark.parametrize("seed", range(6))
def test_limits_under_assumption_1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = balanced_world(rng, contexts=2)
    assert limit(world, "sft") == pytest.approx(world.edited(world.reference))
    assert limit(world, "rl") == pytest.approx(world.optimum)
    if not np.isinf(world.preference_coverage):  # a user who edits, from anywhere to everywhere
        assert limit(world, "dpo") == pytest.approx(world.optimum, abs=1e-6)
        tilted = world.reference * (world.optimum / world.reference) ** 2
        tilted /= tilted.sum(axis=1, keepdims=True)
        assert limit(world, "dpo", strength=0.5) == pytest.approx(tilted, abs=1e-5)
    with pytest.raises(WorldError, match="no such method"):
        limit(world, "nonsense")
    with pytest.raises(WorldError, match="must be positive"):
        limit(world, "dpo", strength=0.0)


@pytest.mark.parametrize(
    ("learner", "term"), [(sft, bounds.sft_term), (dpo, bounds.dpo_term), (rl, bounds.rl_term)]
)
def test_what_chance_adds_is_what_theory_says(learner, term) -> None:
    rng = np.random.default_rng(3)
    distance = abstract_distances(4, rng)
    world = around(simplex(rng, 1, 4), distance, 0.5, 0.4, neighbours(distance, 1.0))
    name = learner.__name__
    options = {"kappa": 0.0} if name == "rl" else {}
    n, base = 4_000, world.suboptimality(limit(world, name))
    found = [
        world.suboptimality(learner(world, seen(world, world.sample(n, rng)), **options)) - base
        for _ in range(400)
    ]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - term(world, n)) < 3 * error + 0.05 * term(world, n)


def test_pessimism_keeps_away_from_what_was_never_seen() -> None:
    rng = np.random.default_rng(0)
    world = any_world(rng, m=6, contexts=1)
    rows = world.sample(200, rng)
    kept = Rows(*(column[rows.response != 2] for column in rows))
    assert rl(world, seen(world, kept))[0, 2] < limit(world, "rl")[0, 2]
