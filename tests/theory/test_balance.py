"""Balanced users: exact by construction, found by iteration, unique where that is proved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editloop.errors import WorldError
from editloop.theory.balance import Description, around, metropolis
from editloop.theory.bounds import lemma_1
from editloop.theory.distributions import total_variation
from editloop.theory.draws import balanced_world, simplex
from editloop.theory.fixed_points import balanced
from editloop.theory.responses import abstract_distances, edit_distances, neighbours, strings

WORDS = edit_distances(strings("ab", 3))


def describe(seed: int, beta: float, gamma: float = 0.9) -> Description:
    rng = np.random.default_rng(seed)
    return Description(rng.dirichlet(np.ones(len(WORDS))), WORDS, beta, gamma, neighbours(WORDS))


def test_metropolis_by_hand() -> None:
    proposal = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    kernel = metropolis(proposal, np.log([0.5, 0.25, 0.25]))
    # From 0: π(1) P(1,0) / (π(0) P(0,1)) = .25; from 1 all is taken; from 2: half of the proposals.
    assert kernel == pytest.approx(np.array([[0.75, 0.25, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]))
    assert metropolis(proposal, np.log([0.5, 0.25, 0.25]), 1.0) == pytest.approx(np.eye(3))


@pytest.mark.parametrize("seed", range(4))
def test_a_world_around_an_optimum_is_balanced_for_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    optimum = simplex(rng, 3, len(WORDS))
    world = around(optimum, WORDS, 0.3, 0.4, neighbours(WORDS))
    assert world.optimum == pytest.approx(optimum, abs=1e-14)
    assert world.imbalance < 1e-14 and world.drift < 1e-14 and world.log_imbalance < 1e-10
    assert world.gamma_min >= 0.4 - 1e-12


@settings(max_examples=10_000, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_lemma_1_is_never_violated_in_10_000_worlds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = balanced_world(rng)
    left, right = lemma_1(world, simplex(rng, *world.reference.shape))
    assert (left <= right + 1e-12).all()


def test_lemma_1_is_tight_for_users_who_write_the_optimum_or_nothing() -> None:
    rng = np.random.default_rng(1)
    for gamma in (0.0, 0.3, 0.9, 1.0):
        distance = abstract_distances(6, rng)
        world = around(simplex(rng, 2, 6), distance, 0.5, gamma, neighbours(distance, 1.0), laziness=1.0)
        left, right = lemma_1(world, simplex(rng, 2, 6))
        assert left == pytest.approx(right, abs=1e-12) and world.gamma_min == pytest.approx(gamma)


@given(st.integers(0, 2**32 - 1))
def test_the_map_moves_two_points_no_further_apart_than_its_constant_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = int(rng.integers(2, 6))
    distance = abstract_distances(m, rng) * (1 + rng.random((m, m)))  # there and back are not the same
    proposal = simplex(rng, m, m)
    gamma, lazy = rng.choice([0.0, 0.3, 1.0], size=2)
    one = Description(simplex(rng, m), distance, rng.uniform(0.05, 2), gamma, proposal, lazy)
    u, v = np.log(simplex(rng, 2, m)) * rng.uniform(0.1, 3)
    after = np.ptp(one.answer(u - np.logaddexp.reduce(u)) - one.answer(v - np.logaddexp.reduce(v)))
    assert after <= one.lipschitz() * np.ptp(u - v) + 1e-12


def test_a_large_beta_has_one_user_and_it_is_found_from_anywhere() -> None:
    one = describe(0, beta=2.0)
    assert one.lipschitz() == pytest.approx((0.9 * 6 / 4 + 0.1 * 0.5 * 2) / 2)
    found = balanced(one)
    assert found.unique and len(found.found) == 1 and found.found[0].residual <= 1e-10
    world = found.world()
    assert world.log_optimum[0] == pytest.approx(found.found[0].log_optimum, abs=1e-9)
    assert world.imbalance < 1e-10
    start = np.log(simplex(np.random.default_rng(9), 14))
    for _ in range(200):
        start = one.answer(start)
    assert start == pytest.approx(found.found[0].log_optimum, abs=1e-9)


def test_a_small_beta_has_several_and_each_is_balanced() -> None:
    for seed in range(3):
        found = balanced(describe(seed, beta=0.25))
        assert not found.unique and len(found.found) > 1
        assert sum(each.attracts for each in found.found) > 1
        for which in range(len(found.found)):
            world = found.world(which)
            assert found.found[which].residual <= 1e-10 and world.imbalance < 1e-9
            assert total_variation(world.optimum[0], np.exp(found.found[which].log_optimum)) < 1e-9


def test_an_impossible_description_is_refused() -> None:
    with pytest.raises(WorldError, match=r"γ is a probability: 1\.5"):
        describe(0, 1.0, gamma=1.5)
    with pytest.raises(WorldError, match="β must be positive"):
        describe(0, 0.0)
    with pytest.raises(WorldError, match="each can be undone"):
        Description(np.array([0.5, 0.5]), 1 - np.eye(2), 1.0, 0.5, np.array([[0.0, 1.0], [0.0, 1.0]]))
    with pytest.raises(WorldError, match="positive probabilities"):
        Description(np.array([1.0, 0.0]), 1 - np.eye(2), 1.0, 0.5, 1 - np.eye(2))
    with pytest.raises(WorldError, match="must give every response a probability"):
        around(np.array([[1.0, 0.0]]), 1 - np.eye(2), 1.0, 0.5, 1 - np.eye(2))


def test_an_iteration_that_does_not_settle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editloop.theory.fixed_points.STEPS", 2)
    with pytest.raises(WorldError, match=r"does not converge.*larger β"):
        balanced(describe(0, 0.25))
