"""Comparisons of policies, by hand and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from editloop.autopilot.comparison import (
    Cost,
    between_groups,
    budget_bound,
    mixture_bound,
    paired,
    within_users,
)


def costs(**by_user: list[float]) -> list[Cost]:
    return [Cost(user, cost) for user, each in by_user.items() for cost in each]


def test_groups_without_a_past_by_hand():
    # Within each user the two costs are .1 apart: the sum of squares is .005 for each, over 4 degrees of
    # freedom, so σ² = .005. The users' means are .25, .35 and .55, .65; each has the variance .0025. Their
    # spread around the groups' means, 2 × .005 / .0025 = 4, exceeds its 2 degrees of freedom by 2: that is a
    # variance of 2 / (2 (800 − 400)) = .0025 between users, and no spread is left in a group beyond both.
    first = costs(a=[0.2, 0.3], b=[0.3, 0.4])
    second = costs(c=[0.5, 0.6], d=[0.6, 0.7])
    found = between_groups([], first, second)
    assert found.mean == pytest.approx(-0.3)
    assert (found.rounds, found.other_rounds, found.units, found.other_units) == (4, 4, 2, 2)
    # Each user's mean then has the variance .0025 + .0025, and no spread is left beyond it.
    assert found.error == pytest.approx(math.sqrt(2 * 0.005 / 2))


def test_users_who_differ_about_the_new_policy_alone_make_it_uncertain():
    # σ² = .0001 (the least), no past: a spread of .2 between the new policy's users, none between the others.
    first = [Cost(f"a{i}", cost) for i, cost in enumerate((0.1, 0.3, 0.5, 0.7)) for _ in range(4)]
    second = [Cost(f"b{i}", 0.4) for i in range(12) for _ in range(4)]
    found = between_groups([*second, *(Cost(each.unit, 0.4) for each in first)], first, second)
    assert found.mean == pytest.approx(0.0)
    plain = math.sqrt(np.var([0.1, 0.3, 0.5, 0.7], ddof=1) / 4)
    # Nearly all of the error rests on four users: Student's t with 3 degrees of freedom, to second order.
    z = 1.959964
    widened = 1 + (z**2 + 1) / 12 + (5 * z**4 + 16 * z**2 + 3) / 96 / 9
    assert found.error == pytest.approx(plain * widened, rel=0.02)


def test_the_past_of_a_user_is_taken_out():
    # Users differ by .2 and cost the same as before, whichever policy they have: no difference is left.
    rng = np.random.default_rng(0)
    level = {f"u{i}": 0.2 + 0.02 * i for i in range(20)}

    def draw(users: list[str], n: int, shift: float = 0.0) -> list[Cost]:
        return [
            Cost(u, level[u] + shift + 0.02 * float(rng.standard_normal())) for u in users for _ in range(n)
        ]

    users = list(level)
    before = draw(users, 40)
    easy, hard = users[:10], users[10:]
    plain = between_groups([], draw(easy, 20), draw(hard, 20))
    known = between_groups(before, draw(easy, 20), draw(hard, 20))
    assert plain.mean == pytest.approx(-0.2, abs=0.01)
    assert abs(known.mean) < 0.005 and known.error < plain.error / 5
    shifted = between_groups(before, draw(easy, 20, -0.05), draw(hard, 20))
    assert shifted.mean == pytest.approx(-0.05, abs=0.005)


def test_requests_that_have_one_cost_each():
    first, second = [Cost(str(i), 0.1 * (i % 3)) for i in range(30)], [Cost(f"b{i}", 0.5) for i in range(10)]
    found = between_groups([], first, second)
    assert found.mean == pytest.approx(0.1 - 0.5)
    variance = (np.var([0.0, 0.1, 0.2] * 10, ddof=1) + 0.0) / 2
    assert found.error == pytest.approx(math.sqrt(variance * (1 / 30 + 1 / 10)))


def test_too_few_users_have_no_error():
    found = between_groups([], costs(a=[0.1, 0.2]), costs(b=[0.3, 0.4], c=[0.3]))
    assert math.isinf(found.error) and found.z == 0 and found.interval(2.0) is None
    assert found.to_json(2.0)["error"] is None and found.to_json(2.0)["interval"] is None


def test_arms_within_users_by_hand():
    # Differences −.2 and −.2; σ² = (4 × .005) / 4 = .005, the variance of each .005 × (1/2 + 1/2), no spread.
    first = costs(a=[0.2, 0.3], b=[0.5, 0.6])
    second = costs(a=[0.4, 0.5], b=[0.7, 0.8], c=[0.0])
    found = within_users(first, second)
    assert found.mean == pytest.approx(-0.2) and found.error == pytest.approx(math.sqrt(0.005 / 2))
    assert (found.rounds, found.other_rounds, found.units) == (4, 4, 2)
    assert math.isinf(within_users(first, costs(c=[0.1])).error)


def test_two_drafts_of_the_same_requests_by_hand():
    found = paired([0.1, 0.3, 0.5], [0.2, 0.3, 0.3])
    assert found.mean == pytest.approx(0.1 / 3)
    assert found.error == pytest.approx(math.sqrt(np.var([-0.1, 0.0, 0.2], ddof=1) / 3))
    assert math.isinf(paired([0.1], [0.2]).error)


def test_equal_costs_are_no_certainty():
    found = paired([0.2] * 10, [0.3] * 10)
    assert found.error == pytest.approx(0.01 / math.sqrt(10))


def test_the_bounds_by_hand():
    assert budget_bound(400, 400, 0.05) == pytest.approx(1.959964, abs=1e-6)
    assert budget_bound(100, 400, 0.05) == pytest.approx(2 * 1.959964, abs=1e-6)
    assert budget_bound(500, 400, 0.05) == budget_bound(400, 400, 0.05)
    assert math.isinf(budget_bound(0, 400, 0.05)) and math.isinf(mixture_bound(0, 0.05))
    # With one look the normal quantile; with more, O'Brien and Fleming's tables for 10% in two directions.
    assert budget_bound(400, 400, 0.05, looks=1) == pytest.approx(1.644854, abs=1e-6)
    assert budget_bound(400, 400, 0.05, looks=2) == pytest.approx(1.678, abs=5e-4)
    assert budget_bound(400, 400, 0.05, looks=5) == pytest.approx(1.751, abs=5e-4)
    assert budget_bound(80, 400, 0.05, looks=5) == pytest.approx(1.751 * math.sqrt(5), abs=2e-3)
    assert mixture_bound(100, 0.05) == pytest.approx(math.sqrt(2 * (math.log(2) + 2 * math.log(20))))


def test_a_walk_without_drift_rarely_crosses_a_bound():
    # Statistical gate, seeded: 4,000 walks of 400 steps, of which at most 5% may cross in one direction.
    rng = np.random.default_rng(1)
    steps = rng.standard_normal((4000, 400))
    n = np.arange(1, 401)
    z = steps.cumsum(axis=1) / np.sqrt(n)
    constant = np.array([budget_bound(int(i), 400, 0.05) for i in n])
    mixture = np.array([mixture_bound(int(i), 0.05) for i in n])
    fifths = np.where(n % 80 == 0, [budget_bound(int(i), 400, 0.05, looks=5) for i in n], np.inf)
    shares = [float((z < -bound).any(axis=1).mean()) for bound in (constant, mixture, fifths)]
    assert 0.03 < shares[0] < 0.06  # the bound is exact for a walk of infinitely small steps
    assert shares[1] < 0.05
    assert 0.04 < shares[2] < 0.06
