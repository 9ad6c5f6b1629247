"""95% intervals: Student's quantiles against tables, Wilson's by hand, and none where nothing is known."""

from __future__ import annotations

import math

import pytest
from scipy.special import stdtrit

from editloop.intervals import mean_interval, share_interval


@pytest.mark.parametrize(
    ("n", "quantile"), [(2, 12.7062), (3, 4.3027), (6, 2.5706), (31, 2.0423), (201, 1.9719)]
)
def test_a_mean_of_few_is_less_sure_than_its_error_says(n: int, quantile: float) -> None:
    low, high = mean_interval(0.5, 0.25, n) or pytest.fail()
    assert (low, high) == pytest.approx((0.5 - 0.25 * quantile, 0.5 + 0.25 * quantile), abs=1e-4)


def test_the_quantiles_are_those_of_scipy() -> None:
    for freedom in (*range(1, 250), 1_000, 10**6):
        _, high = mean_interval(0.0, 1.0, freedom + 1) or pytest.fail()
        assert high == pytest.approx(float(stdtrit(freedom, 0.975)), rel=1e-9), freedom


@pytest.mark.parametrize(
    ("mean", "error", "n"),
    [(0.5, 0.0, 2), (0.5, 0.0, 100), (0.3, 1e-9, 3), (0.5, math.nan, 1), (math.nan, 0.1, 9), (0.5, 0.1, 0)],
)
def test_values_that_are_alike_or_too_few_have_no_interval(mean: float, error: float, n: int) -> None:
    assert mean_interval(mean, error, n) is None


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [
        (1.0, 1, 0.20655, 1.0),  # 1 / (1 + z²)
        (0.0, 10, 0.0, 0.27753),  # z² / (10 + z²)
        (0.5, 10, 0.23659, 0.76341),
        (0.6, 749, 0.56449, 0.63449),
    ],
)
def test_wilsons_interval_of_a_share(share: float, n: int, low: float, high: float) -> None:
    assert share_interval(share, n) == pytest.approx((low, high), abs=1e-5)


def test_a_share_of_nothing_has_no_interval() -> None:
    assert share_interval(0.5, 0) is None
    assert share_interval(math.nan, 5) is None
