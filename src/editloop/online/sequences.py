"""Confidence sequences: intervals for means of bounded costs that may be looked at after each cost.

An ordinary 95% interval is right for a number of costs that was fixed beforehand. Who looks after each edit,
and stops when the interval excludes what they hoped to exclude, is wrong far more often than in 5% of the
cases. A confidence sequence holds at all times at once, so that a test may end at any of them.

**The bet** (Waudby-Smith and Ramdas 2024, Estimating means of bounded random variables by betting). For each
candidate m of the mean, a gambler starts with the capital 1 and bets before each cost that it is above, or
below, m. If m is the mean, no bet gains on average, and the probability that the capital ever reaches 1/α is
at most α (Ville). So all m at which it did are excluded. Half of the capital bets on costs above m, half on
costs below; the stakes follow the variance of the costs so far, and never risk more than half the capital.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.errors import BanditError
from editloop.online.arrays import array_text, read_array

__all__ = ["ConfidenceSequence", "difference", "gains", "stake"]

Numbers = float | NDArray[np.float64]

TRIED_MEANS = 1001
"""The means that are tried, from 0 to the bound at equal distances."""

RISK = 0.5
"""The most of its capital that a bet may lose."""


class ConfidenceSequence:
    """An interval for the mean of costs in [0, bound] that is right at all times at once.

    The costs may come from an arm that is played by what was seen before: each has to have the same mean,
    given all that came before it.

    Args:
        level: The probability, at least, with which the mean is in all of the intervals.
        bound: The greatest cost there can be.

    Attributes:
        n: The number of costs so far.
        mean: Their mean; 0 before the first.
    """

    def __init__(self, level: float = 0.95, *, bound: float = 1.0) -> None:
        if not 0 < level < 1 or not 0 < bound < math.inf:
            raise BanditError("a level lies between 0 and 1, and a bound above 0", seen=(level, bound))
        self.level, self.bound = level, bound
        self.n, self.mean = 0, 0.0
        self._means = np.linspace(0.0, 1.0, TRIED_MEANS)
        self._capital = np.zeros((2, TRIED_MEANS))  # logarithms, of the bets above and below
        self._open = np.ones(TRIED_MEANS, dtype=bool)
        self._sum = self._squares = 0.0

    def add(self, cost: float) -> None:
        """Take a cost in.

        Raises:
            BanditError: It is not a number from 0 to the bound.
        """
        if not 0 <= cost <= self.bound:
            raise BanditError("a cost of the sequence is outside its bounds", seen=cost)
        x = cost / self.bound
        self._capital += gains(x, self._means, stake(self.n, self._squares, self.level))
        self._open &= self._capital.max(axis=0) < math.log(2 / (1 - self.level))
        self._sum += x
        self.n += 1
        centre = (0.5 + self._sum) / (self.n + 1)
        self._squares += (x - centre) ** 2
        self.mean = self.bound * self._sum / self.n

    def to_json(self) -> dict[str, Any]:
        """The sequence as JSON types, from which `from_json` restores it exactly."""
        return {
            "level": self.level,
            "bound": self.bound,
            "sums": [self.n, self._sum, self._squares],
            "capital": array_text(self._capital),
            "open": np.packbits(self._open).tobytes().hex(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ConfidenceSequence:
        """What `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is damaged.
        """
        made = cls(row["level"], bound=row["bound"])
        made.n, made._sum, made._squares = row["sums"]
        made.mean = made.bound * made._sum / made.n if made.n else 0.0
        made._capital = read_array(row["capital"], made._capital.shape)
        bits = np.frombuffer(bytes.fromhex(row["open"]), dtype=np.uint8)
        made._open = np.unpackbits(bits, count=TRIED_MEANS).astype(bool)
        return made

    def extend(self, costs: Iterable[float]) -> None:
        """Take costs in, one after the other."""
        for cost in costs:
            self.add(cost)

    @property
    def interval(self) -> tuple[float, float]:
        """The interval, which no further cost makes wider.

        It is rounded outwards to the candidates. If all of them are excluded, the costs do not have one mean;
        the interval is then the point at their mean.
        """
        (left,) = np.nonzero(self._open)
        if not len(left):
            return self.mean, self.mean
        low, high = max(left[0] - 1, 0), min(left[-1] + 1, TRIED_MEANS - 1)
        return float(self._means[low]) * self.bound, float(self._means[high]) * self.bound


def stake(n: int, squares: Numbers, level: float) -> Numbers:
    """Return the stake of the next bet, before it is limited by the risk.

    Args:
        n: The number of costs so far.
        squares: Their squared distances, each from the mean of the costs up to it, summed.
        level: The level of the sequence.
    """
    variance = (0.25 + squares) / (n + 1)
    return np.sqrt(2 * math.log(2 / (1 - level)) / (variance * (n + 1) * math.log(n + 2)))


def gains(cost: Numbers, mean: Numbers, stake: Numbers) -> NDArray[np.float64]:
    """Return the logarithms of the factors by which two gamblers' capitals change [2, ...].

    Args:
        cost: The cost, in [0, 1].
        mean: The candidates for the mean, in [0, 1].
        stake: From `stake`.
    """
    with np.errstate(divide="ignore"):  # at 0 and at 1 the risk does not limit one of the two bets
        above = np.minimum(stake, RISK / np.asarray(mean))
        below = np.minimum(stake, RISK / (1 - np.asarray(mean)))
    distance = cost - np.asarray(mean)
    return np.stack([np.log1p(above * distance), np.log1p(-below * distance)])


def difference(one: ConfidenceSequence, other: ConfidenceSequence) -> tuple[float, float]:
    """Return an interval for the first mean less the second one, right at all times at once.

    It is wrong only if one of the two is, so with two sequences of level 1 − α/2 its level is 1 − α.
    """
    (low, high), (other_low, other_high) = one.interval, other.interval
    return low - other_high, high - other_low
