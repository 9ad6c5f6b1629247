"""Confidence sequences: bets by hand, and that looking after every cost does not make them wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from editloop.errors import BanditError
from editloop.online.sequences import ConfidenceSequence, difference, gains, stake

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]

COSTS: dict[str, tuple[float, Draw]] = {
    "edits": (0.3, lambda g, n: g.beta(1.5, 3.5, n)),
    "mostly accepted": (0.05, lambda g, n: (g.random(n) < 0.05).astype(np.float64)),
    "all or nothing": (0.5, lambda g, n: (g.random(n) < 0.5).astype(np.float64)),
    "nearly always rewritten": (0.95, lambda g, n: g.beta(9.5, 0.5, n)),
}


def test_the_first_bet_by_hand() -> None:
    # The variance that is assumed before any cost is 1/4: sqrt(2 log 40 / (1/4 log 2)) = 6.525.
    first = float(stake(0, 0.0, 0.95))
    assert first == pytest.approx(math.sqrt(2 * math.log(40) / (0.25 * math.log(2))))
    # At m = .8 a bet above loses at most half with the stake .5/.8, and one below with .5/.2.
    above, below = gains(0.3, 0.8, first)
    assert (above, below) == pytest.approx((math.log(1 - 0.625 * 0.5), math.log(1 + 2.5 * 0.5)))
    # At the ends one of the bets has no limit but the stake, and never loses.
    assert gains(0.3, 0.0, first) == pytest.approx([math.log(1 + first * 0.3), math.log(1 - 0.5 * 0.3)])


def test_the_stake_follows_the_variance_that_was_seen() -> None:
    sequence = ConfidenceSequence()
    sequence.extend([0.2, 0.4])
    # The centres after each cost are (.5 + .2)/2 = .35 and (.5 + .6)/3; the squares .0225 and .00111.
    squares = 0.15**2 + (0.4 - 1.1 / 3) ** 2
    expected = math.sqrt(2 * math.log(40) / ((0.25 + squares) / 3 * 3 * math.log(4)))
    assert sequence._squares == pytest.approx(squares)
    assert float(stake(2, squares, 0.95)) == pytest.approx(expected)


def test_the_interval_only_shrinks_and_holds_the_mean() -> None:
    generator, sequence = np.random.default_rng(0), ConfidenceSequence()
    assert sequence.interval == (0.0, 1.0)
    widths = []
    for cost in generator.beta(1.5, 3.5, 1000):
        low, high = sequence.interval
        sequence.add(float(cost))
        assert low <= sequence.interval[0] and sequence.interval[1] <= high
        widths.append(sequence.interval[1] - sequence.interval[0])
    assert sequence.interval[0] < 0.3 < sequence.interval[1]
    assert widths[99] < 0.15 and widths[-1] < 0.05


def test_costs_of_another_unit() -> None:
    generator = np.random.default_rng(1)
    costs = generator.beta(1.5, 3.5, 50)
    one, other = ConfidenceSequence(), ConfidenceSequence(bound=40.0)
    one.extend(costs.tolist())
    other.extend((40 * costs).tolist())
    assert other.interval == pytest.approx([40 * end for end in one.interval])
    assert other.mean == pytest.approx(40 * costs.mean())


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_error_over_10000_runs_with_a_look_after_each_cost(name: str, level: float) -> None:
    """A run is wrong if the true mean is excluded at any time. The bets are those of the class."""
    mean, draw = COSTS[name]
    generator, runs = np.random.default_rng(2), 10_000
    capital, total = np.zeros((2, runs)), np.zeros(runs)
    squares, wrong = np.zeros(runs), np.zeros(runs, dtype=bool)
    for n in range(300):
        costs = draw(generator, runs)
        capital += gains(costs, mean, stake(n, squares, level))
        wrong |= capital.max(axis=0) >= math.log(2 / (1 - level))
        total += costs
        squares += (costs - (0.5 + total) / (n + 2)) ** 2
    assert wrong.mean() <= 1 - level
    assert wrong.mean() > 0  # it is not right for want of ever excluding anything


def test_a_difference_is_right_while_arms_are_chosen_by_what_was_seen() -> None:
    wrong = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        pair = [ConfidenceSequence(0.95), ConfidenceSequence(0.95)]
        for _ in range(120):
            arm = int(pair[0].mean > pair[1].mean) if generator.random() < 0.7 else int(generator.integers(2))
            pair[arm].add(float(generator.beta(1.5, 3.5) if arm else generator.beta(2, 3)))
            low, high = difference(pair[0], pair[1])
            if not low <= 0.1 <= high:
                wrong += 1
                break
    assert wrong <= 10
    low, high = difference(*pair)
    assert low == pytest.approx(pair[0].interval[0] - pair[1].interval[1])


def test_costs_without_one_mean_exclude_everything() -> None:
    sequence = ConfidenceSequence()
    sequence.extend([0.0] * 100 + [1.0] * 300)
    assert sequence.interval == (sequence.mean, sequence.mean) == (0.75, 0.75)


def test_bad_input() -> None:
    for level, bound in ((0.0, 1.0), (1.0, 1.0), (0.95, 0.0), (0.95, math.inf), (math.nan, 1.0)):
        with pytest.raises(BanditError, match="a level lies between"):
            ConfidenceSequence(level, bound=bound)
    sequence = ConfidenceSequence()
    for cost in (-0.1, 1.1, math.nan):
        with pytest.raises(BanditError, match="outside its bounds"):
            sequence.add(cost)
    assert sequence.n == 0


@pytest.mark.parametrize(
    ("shape", "n", "interval"),
    [
        ((1.5, 3.5), 200, (0.266, 0.342)),
        ((1.5, 3.5), 1000, (0.282, 0.319)),
        ((0.5, 9.5), 200, (0.030, 0.081)),
    ],
)
def test_the_intervals_are_those_of_confseq(
    shape: tuple[float, float], n: int, interval: tuple[float, float]
) -> None:
    """The intervals are those of `betting_cs` of confseq 0.0.11, which needs a compiler to be installed.

    It was called with `breaks=1000, running_intersection=True`.
    """
    sequence = ConfidenceSequence()
    sequence.extend(np.random.default_rng(3).beta(*shape, n).tolist())
    assert sequence.interval == pytest.approx(interval, abs=1e-9)
