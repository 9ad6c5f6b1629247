"""How often one draft wins over another."""

from __future__ import annotations

import numpy as np
import pytest

from editloop.offline.wins import cost_wins, win_rate


def test_who_costs_less_wins_and_a_tie_is_half_a_win():
    costs, others = np.array([0.1, 0.5, 0.3, 0.1 + 0.2]), np.array([0.2, 0.4, 0.3, 0.3])
    assert cost_wins(costs, others).tolist() == [1.0, 0.0, 0.5, 0.5]


def test_the_rate_by_hand():
    found = win_rate(np.array([1.0, 0.5, 0.0, 1.0, np.nan]))
    assert found is not None
    assert found["mean"] == 0.625
    assert found["n"] == 4
    # The variance of 1, .5, 0, 1 is (.375² + .125² + .625² + .375²) / 3.
    assert found["se"] == pytest.approx((0.6875 / 3 / 4) ** 0.5)
    low, high = found["interval"]
    assert 0 < low < 0.625 < high < 1


def test_a_single_verdict_has_no_standard_error():
    found = win_rate(np.array([1.0]))
    assert found is not None
    assert (found["mean"], found["se"], found["n"]) == (1.0, None, 1)


def test_without_verdicts_there_is_no_rate():
    assert win_rate(np.array([np.nan, np.nan])) is None
    assert win_rate(np.array([])) is None
