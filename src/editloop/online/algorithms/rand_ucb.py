"""Randomised UCB for costs (Vaswani et al. 2020, Randomized UCB for Bandit Problems)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from editloop.online.algorithms.base import Choice, Numbers, Uniform01, drawn
from editloop.online.algorithms.ucb import UCB

__all__ = ["RandUCB"]

LEVELS = 10
"""Strengths of exploration among which one is drawn."""

LEAST = 0.85
"""The least of them, as a share of the greatest. With less, a slow drift of the costs is noticed too late."""

FLOOR = 0.02
"""The probability, in the first `FLOOR_PULLS` pulls, with which all arms are equally likely."""

FLOOR_PULLS = 200.0
"""From here on the floor falls with the root of the pulls, so that its cost grows with the root, too."""


class RandUCB(UCB):
    """UCB whose strength of exploration is drawn anew for each decision, with a floor for all arms.

    A z is drawn from `LEVELS` equally spaced numbers up to α, and the arm with the least C/N − z √(log t / N)
    is played. With a small probability, all arms are equally likely instead. So every arm has a probability
    above 0, which is known exactly: it is the share of the levels at which the arm is the best one, and its
    part of the floor. That is the propensity by which a log can be weighted later.
    """

    name = "rand-ucb"

    def choose(self, pulls: Numbers, observed: Numbers, means: Numbers, uniform: Uniform01) -> Choice:
        """See `Algorithm.choose`."""
        return drawn(self.probabilities(pulls, observed, means), uniform())

    def probabilities(
        self, pulls: Sequence[float], observed: Sequence[float], means: Sequence[float]
    ) -> list[float]:
        """Return the probability of each arm [arms]; arms without a pull share all but the floor equally."""
        total = max(sum(pulls), 1.0)
        floor = FLOOR * min(1.0, math.sqrt(FLOOR_PULLS / total))
        found = [floor / len(pulls)] * len(pulls)
        if untried := [arm for arm, n in enumerate(pulls) if n <= 0]:
            for arm in untried:
                found[arm] += (1 - floor) / len(untried)
            return found
        log_t = math.log(total)
        known = [mean if n > 0 else 0.0 for mean, n in zip(means, observed, strict=True)]
        widths = [math.sqrt(log_t / n) for n in pulls]

        def best(level: int) -> int:
            z = self.alpha * (LEAST + (1 - LEAST) * level / LEVELS)
            bounds = [mean - z * width for mean, width in zip(known, widths, strict=True)]
            return bounds.index(min(bounds))

        for arm, levels in _runs(best, 1, best(1), LEVELS, best(LEVELS)):
            found[arm] += (1 - floor) * (levels / LEVELS)  # a single arm has 1 exactly, and not a little more
        return found


def _runs(
    best: Callable[[int], int], first: int, at_first: int, last: int, at_last: int
) -> Iterator[tuple[int, int]]:
    """Yield arms and the numbers of levels from the first to the last at which they are best.

    A bound is a line in z. So an arm with the least one at two levels has it at those in between, too, and
    few levels have to be looked at.
    """
    if at_first == at_last:
        yield at_first, last - first + 1
    elif last - first == 1:
        yield at_first, 1
        yield at_last, 1
    else:
        middle = (first + last) // 2
        at_middle = best(middle)
        yield from _runs(best, first, at_first, middle, at_middle)
        yield from _runs(best, middle, at_middle, last, at_last)
        yield at_middle, -1  # it was in both halves
