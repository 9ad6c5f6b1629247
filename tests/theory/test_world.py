"""Worlds: by hand, by invariants, and what cannot be one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.errors import WorldError
from editloop.theory.distributions import kl
from editloop.theory.draws import any_world, simplex
from editloop.theory.responses import edit_distances, neighbours, strings
from editloop.theory.world import World

APART = np.array([[0.0, 1.0], [1.0, 0.0]])


def small(**changes: Any) -> World:
    """Two responses: the first is rewritten as the second half of the time, the second is left."""
    parts: dict[str, Any] = {
        "reference": [[0.5, 0.5]],
        "distance": APART,
        "kernel": [[[0.5, 0.5], [0.0, 1.0]]],
        "beta": 0.5,
    }
    return World(**(parts | changes))


def test_two_responses_by_hand() -> None:
    world = small()
    assert world.cost.tolist() == [[0.5, 0.0]]
    first = math.exp(-1) / (1 + math.exp(-1))
    assert world.optimum == pytest.approx(np.array([[first, 1 - first]]))
    assert world.objective([[1.0, 0.0]]) == pytest.approx(0.5 + 0.5 * math.log(2))
    assert world.objective(world.optimum) == pytest.approx(-0.5 * math.log((1 + math.exp(-1)) / 2))
    assert world.suboptimality([[1.0, 0.0]]) == pytest.approx(-0.5 * math.log(first))
    assert world.edited([[0.6, 0.4]]).tolist() == [[0.3, 0.7]]
    assert world.gamma_min == 0.0 and world.dobrushin == 0.5
    assert world.imbalance == pytest.approx(0.5 * first) and world.drift == pytest.approx(0.5 * first)
    assert world.log_imbalance == math.inf
    assert world.concentrability == pytest.approx((1 - first) / 0.5)
    assert world.chi_square == pytest.approx(2 * (first**2 + (1 - first) ** 2) - 1)
    # f differs by 1: under π* with probability 2 p (1 - p), under the log's pairs with 1/4.
    assert world.preference_coverage == pytest.approx(2 * first * (1 - first) / 0.25)
    assert small(kernel=np.eye(2)[None]).preference_coverage == math.inf
    assert world.divergence([[0.5, 0.5]])["tv"] == pytest.approx(0.5 - first)


@given(st.integers(0, 2**32 - 1))
def test_suboptimality_is_never_negative_and_zero_at_the_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = any_world(rng, m=int(rng.integers(1, 8)))
    policy = simplex(rng, *world.reference.shape)
    assert world.suboptimality(policy) >= 0
    assert world.suboptimality(world.optimum) <= 1e-12
    difference = world.objective(policy) - world.objective(world.optimum)
    assert world.suboptimality(policy) == pytest.approx(difference, abs=1e-9)
    assert world.dobrushin <= 1 - world.gamma_min + 1e-12
    assert world.drift <= world.imbalance + 1e-12


def test_a_beta_so_small_that_the_optimum_is_one_text() -> None:
    world = small(beta=1e-3)
    assert world.suboptimality([[0.5, 0.5]]) == pytest.approx(0.25, abs=1e-3)
    assert small(beta=1e-4, kernel=[[[0.5, 0.5], [0.5, 0.5]]]).gamma_min == 1.0


def test_a_sample_is_the_worlds() -> None:
    rng = np.random.default_rng(0)
    world = any_world(rng, m=4)
    rows = world.sample(40_000, rng)
    joint = np.zeros((2, 4, 4))
    np.add.at(joint, (rows.context, rows.response, rows.edit), 1 / 40_000)
    exact = world.weights[:, None, None] * world.reference[:, :, None] * world.kernel
    assert joint == pytest.approx(exact, abs=0.01)
    assert (rows.cost == world.distance[rows.response, rows.edit]).all()
    assert len(rows.first(7).edit) == 7


def test_strings_their_distances_and_neighbours() -> None:
    words = strings("ab", 2)
    assert words == ("a", "b", "aa", "ab", "ba", "bb") and len(strings("ab", 3)) == 14
    distance = edit_distances(words)
    assert distance[0].tolist() == [0, 1, 1, 1, 1, 2] and (distance == distance.T).all()
    assert edit_distances(words, normalised=True)[2].tolist() == [0.5, 1, 0, 0.5, 0.5, 1]
    assert neighbours(distance)[0].tolist() == [0, 0.25, 0.25, 0.25, 0.25, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reference": [[0.5, 0.6]]}, "the reference does not sum to 1: 1.1"),
        ({"reference": [[1.5, -0.5]]}, "the reference has a negative probability: -0.5"),
        ({"reference": [[1.0, 0.0]]}, "never writes some response.*: 1"),
        ({"reference": [0.5, 0.5]}, "a row for each context"),
        ({"reference": [[np.nan, 0.5]]}, "not finite"),
        ({"kernel": [[[0.5, 0.4], [0.0, 1.0]]]}, "kernel does not sum to 1: 0.9"),
        ({"kernel": [[0.5, 0.5], [0.0, 1.0]]}, "a kernel has the shape"),
        ({"beta": 0.0}, "β must be positive.*: 0.0"),
        ({"beta": math.nan}, "β must be positive"),
        ({"distance": [[0.0, -1.0], [1.0, 0.0]]}, "a distance is finite, not negative"),
        ({"distance": [[0.5, 1.0], [1.0, 0.0]]}, "zero without an edit"),
        ({"distance": [[0.0]]}, "a distance has the shape"),
        ({"weights": np.array([0.5, 0.5])}, "a weight for each context"),
        (
            {"reference": [[0.5, 0.5]] * 2, "kernel": [np.eye(2)] * 2, "weights": [1, 0]},
            "cannot have weight 0",
        ),
    ],
)
def test_what_is_not_a_world_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(WorldError, match=words):
        small(**changes)


def test_a_world_that_cannot_be_enumerated_is_refused() -> None:
    with pytest.raises(WorldError, match="too large to enumerate: 2046 responses, at most 2000"):
        strings("ab", 10)
    with pytest.raises(WorldError, match="too large to enumerate"):
        strings("abc", 10_000)
    with pytest.raises(WorldError, match="no such strings"):
        strings("", 3)
    with pytest.raises(WorldError, match="without neighbours"):
        neighbours(edit_distances(("a", "b", "cdefg")))
    with pytest.raises(WorldError, match="a policy does not sum to 1"):
        small().suboptimality([[0.2, 0.2]])
    with pytest.raises(WorldError, match="the reference's shape"):
        small().suboptimality([[1.0]])


def test_the_divergence_where_a_probability_is_zero() -> None:
    assert kl(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0
    assert kl(np.array([0.0, 1.0]), np.array([0.5, 0.5])) == pytest.approx(math.log(2))
    assert kl(np.array([0.5, 0.5]), np.array([0.0, 1.0])) == math.inf
