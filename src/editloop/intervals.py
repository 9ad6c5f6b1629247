"""95% intervals that are honest about few observations: Student's t for means, Wilson's for shares."""

from __future__ import annotations

import math

__all__ = ["mean_interval", "share_interval"]

NORMAL = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""


def mean_interval(mean: float, error: float, n: int) -> tuple[float, float] | None:
    """Return the interval of a mean of n independent values by Student's t.

    It is None where the values do not determine one: there are fewer than two, or all are equal, from which
    nothing follows about other values.

    Args:
        mean: The mean of the values.
        error: Its standard error.
        n: The number of values.
    """
    # Not `error > 0`: values that differ by the rounding of single precision alone (6e-8) count as equal.
    # With `not`, because a comparison with NaN is false: an error that is NaN gives None.
    if n < 2 or not math.isfinite(mean) or not error > 1e-7 * max(abs(mean), 1.0):
        return None
    reach = error * _student(n - 1)
    return mean - reach, mean + reach


def share_interval(share: float, n: int) -> tuple[float, float] | None:
    """Return Wilson's interval of the share of successes among n independent trials.

    It has a width for the shares 0 and 1, too. It is None if there are no trials or the share is not finite.

    Args:
        share: The share of successes; a tie may count as half a success.
        n: The number of trials.
    """
    if n < 1 or not math.isfinite(share):
        return None
    # The solutions p of |share - p| = z sqrt(p (1 - p) / n), with `square` = z² / n.
    square = NORMAL * NORMAL / n
    middle = (share + square / 2) / (1 + square)
    reach = NORMAL / (1 + square) * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def _student(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t, with a relative error below 1e-9.

    It is written out here because scipy, which has it, is larger than everything else that reading a log
    needs.

    Args:
        freedom: Degrees of freedom, 1 or more.
    """
    z, n = NORMAL, float(freedom)
    # From 200 on by Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5), whose first missing term
    # is of order 1 / n⁵. Below, the distribution itself is a sum of at most 100 terms, and bisection is fast.
    if freedom >= 200:
        reach = z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        reach += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        return reach + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    low, high = NORMAL, 13.0  # the quantile falls from 12.7 for one degree of freedom to that of the normal
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 0.95 else (low, middle)
    return low


def _within(t: float, freedom: int) -> float:
    """Return P(|T| < t) of Student's t, by the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for i in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (i - 1) / i
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
