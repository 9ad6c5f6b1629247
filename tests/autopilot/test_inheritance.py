"""How much of the champion's evidence a new policy may begin with."""

from __future__ import annotations

import numpy as np
import pytest

from editloop.autopilot.comparison import Cost
from editloop.autopilot.inheritance import inheritance


def costs(values: dict[str, list[float]]) -> list[Cost]:
    return [Cost(unit, each) for unit, own in values.items() for each in own]


CHAMPION = costs({"ada": [0.1, 0.5], "bob": [0.3, 0.7]})  # around the users' means .04 · 4 / 2 = .08


def test_the_pulls_by_hand():
    # Within users the variance is .02 · 4 / 2 = .04, so each of two means has .02, and both are .1.
    changes = costs({"ada": [0.1 - 2**0.5 / 10, 0.1 + 2**0.5 / 10], "bob": [0.1, 0.1]})
    found = inheritance("sft@1", changes, CHAMPION, 0.0)
    assert found["parent"] == "sft@1" and found["change"] == pytest.approx(0.1)
    assert found["pulls"] == pytest.approx(0.08 / (0.02 / 4))  # .02 of four: .005
    assert inheritance("sft@1", changes, CHAMPION, 0.05)["pulls"] == pytest.approx(0.08 / (0.005 + 0.0025))


def test_users_who_differ_in_the_change_allow_for_less():
    rng = np.random.default_rng(0)

    def changes(differing: float) -> list[Cost]:
        return [
            Cost(str(user), (differing if user % 2 else -differing) + 0.1 * rng.standard_normal())
            for user in range(10)
            for _ in range(6)
        ]

    alike, unlike = (inheritance("p", changes(each), CHAMPION, 0.0)["pulls"] for each in (0.0, 0.3))
    assert unlike < 0.08 / 0.3**2 * 1.5 < alike


def test_more_pairs_allow_for_more_up_to_what_the_bias_allows():
    rng = np.random.default_rng(1)
    pulls = []
    for n in (20, 200, 20_000):
        changes = [Cost(str(i % 20), 0.3 * rng.standard_normal()) for i in range(n)]
        pulls.append(inheritance("p", changes, CHAMPION, 0.05)["pulls"])
    assert pulls == sorted(pulls) and pulls[-1] < 0.08 / 0.05**2


def test_nothing_is_inherited_where_nothing_is_known():
    assert inheritance("p", [], CHAMPION, 0.05) is None
    assert inheritance("p", costs({"ada": [0.1]}), CHAMPION, 0.05) is None
    assert inheritance("p", costs({"ada": [0.1, 0.2]}), [], 0.05) is None
    assert inheritance("p", costs({"ada": [0.1], "bob": [0.2]}), CHAMPION, 0.05) is not None
