"""95% intervals that are honest about few observations: Student's t for means, Wilson's for shares."""

from __future__ import annotations

import math

__all__ = ["mean_interval", "share_interval"]

NORMAL = 1.959963984540054  # 97.5% of the normal distribution


def mean_interval(mean: float, error: float, n: int) -> tuple[float, float] | None:
    """The interval of a mean of n independent values by Student's t.

    None where the values cannot tell: fewer than two, or all alike, which says nothing of what others are.

    Args:
        mean: Of the values.
        error: Its standard error.
        n: Number of values.
    """
    if n < 2 or not math.isfinite(mean) or not error > 1e-7 * max(abs(mean), 1.0):
        return None
    from scipy.special import stdtrit

    reach = error * float(stdtrit(n - 1, 0.975))
    return mean - reach, mean + reach


def share_interval(share: float, n: int) -> tuple[float, float] | None:
    """The interval of a share of n independent trials by Wilson; of the shares 0 and 1, too.

    None where there are no trials, or no share.

    Args:
        share: Of the trials that succeeded; half a success, as of a tie, is allowed.
        n: Number of trials.
    """
    if n < 1 or not math.isfinite(share):
        return None
    square = NORMAL * NORMAL / n
    middle = (share + square / 2) / (1 + square)
    reach = NORMAL / (1 + square) * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)
