"""Comparisons of policies that may be looked at any time: of groups of users, and of arms within users.

**Groups.** In a canary some users get one policy for good and the others another one. Most of the variance of
costs lies between people, so a mean over few users says little. But most users have a past: what they cost
before tells how much they edit any draft. With user means a ~ N(0, τ²) around the policy's and costs with the
variance σ² around those, the best prediction of a from n earlier costs with the mean x̄ is B (x̄ − m),
B = τ²/(τ² + σ²/n), and what is left of it has the variance τ²(1 − B). So each user's mean in the canary, less
that prediction, has the variance v = σ²/n₁ + τ²(1 − B) + ω², where ω² is how much users differ in what they
think of the two policies. The groups' means weighted by 1/v differ by δ̂, with the variance Σ 1/Σ(1/v). The
variances are estimated from the costs, by the method of moments; ω² from the spread of the users' changes in
each group (DerSimonian and Laird 1986). As far as the standard error rests on that spread, it is widened by
Student's t.

**Within users.** Where the bandit plays several arms for each user, the difference of two arms is the mean of
the users' own differences, weighted by 1/(σ²(1/n_a + 1/n_b) + ω²).

**Looking at any time.** δ̂ times its information behaves like a Brownian motion in the information. For a
canary, which ends after N rounds, the bound is constant in it: |z| ≥ c √(N/n) after n rounds. By the
reflection principle a Brownian motion exceeds that, in one direction and at any time up to N, with the
probability 2(1 − Φ(c)), which is set to the error that is allowed. Information grows no faster than the
rounds, for the uncertain past of each user stays; so the bound by rounds is on the safe side. Between arms
there is no end, and the bound is Robbins' mixture: |z| ≥ √((1 + n₀/n)(log(1 + n/n₀) + 2 log(1/α))).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SMALLEST_VARIANCE",
    "Cost",
    "Difference",
    "Sums",
    "between_groups",
    "budget_bound",
    "excess_variance",
    "mixture_bound",
    "paired",
    "sums_by_unit",
    "variance_within",
    "within_bound",
    "within_users",
]

Array = NDArray[np.float64]

FEWEST_UNITS = 2
"""A group of fewer users has no spread, and therefore no comparison."""

TUNED_FOR = 100.0
"""The rounds at which the mixture bound is tightest."""

SMALLEST_VARIANCE = 1e-4
"""The least variance of a cost that is assumed: a hundredth of the scale, squared. A few equal costs must not
count as certainty."""


class Cost(NamedTuple):
    """A cost of an edit.

    Attributes:
        unit: Who edited, or the response where requests are compared.
        cost: At most the bound of costs.
    """

    unit: str
    cost: float


class Difference(NamedTuple):
    """The mean cost of one policy less that of another.

    Attributes:
        mean: The difference; below 0 if the first one is better.
        error: Its standard error; infinite where the costs do not suffice for one.
        rounds: The costs of the first policy.
        other_rounds: Those of the second one.
        units: The users of the first policy.
        other_units: Those of the second one.
    """

    mean: float
    error: float
    rounds: int
    other_rounds: int
    units: int
    other_units: int

    @property
    def z(self) -> float:
        """The difference in standard errors."""
        return 0.0 if math.isinf(self.error) else self.mean / self.error

    def interval(self, bound: float) -> tuple[float, float] | None:
        """The interval of so many standard errors; None without any."""
        if math.isinf(self.error):
            return None
        return self.mean - bound * self.error, self.mean + bound * self.error

    def to_json(self, bound: float) -> dict[str, Any]:
        """The comparison as JSON types, with the interval of so many standard errors."""
        row: dict[str, Any] = self._asdict()
        row["error"] = None if math.isinf(self.error) else self.error
        interval = self.interval(bound)
        return row | {"interval": None if interval is None else list(interval)}


class Sums(NamedTuple):
    """The number of costs, their sum and the sum of their squares for each unit [U]."""

    n: Array
    total: Array
    squares: Array

    @property
    def mean(self) -> Array:
        """The mean of each unit; 0 where there is none."""
        return self.total / np.maximum(self.n, 1)


def _index(*groups: Iterable[Cost]) -> dict[str, int]:
    """A number for each unit that occurs, in the order of its first cost."""
    return {unit: i for i, unit in enumerate(dict.fromkeys(c.unit for each in groups for c in each))}


def _sums(costs: Iterable[Cost], index: dict[str, int]) -> Sums:
    rows = [(index[each.unit], each.cost) for each in costs]
    units = np.array([unit for unit, _ in rows], dtype=np.intp)
    values = np.array([value for _, value in rows], dtype=np.float64)
    size = len(index)
    counted = [np.bincount(units, weights, minlength=size) for weights in (None, values, values * values)]
    return Sums(*(each.astype(np.float64) for each in counted))


def sums_by_unit(costs: Iterable[Cost]) -> Sums:
    """The sums of each unit that has a cost, in the order of its first one."""
    costs = list(costs)
    return _sums(costs, _index(costs))


def variance_within(*groups: Sums) -> float:
    """The variance σ² of a cost around the mean of its unit, pooled over units and groups."""
    squares = sum(float((g.squares - g.total**2 / np.maximum(g.n, 1)).sum()) for g in groups)
    freedom = sum(float(np.maximum(g.n - 1, 0).sum()) for g in groups)
    return max(squares / freedom, SMALLEST_VARIANCE) if freedom > 0 else math.inf


def excess_variance(values: Sequence[Array], variances: Sequence[Array]) -> float:
    """The variance ω² of values around the means of their groups beyond that of each (DerSimonian-Laird)."""
    spread = freedom = scale = 0.0
    for x, v in zip(values, variances, strict=True):
        w = 1 / v
        mean = float((w * x).sum() / w.sum())
        spread += float((w * (x - mean) ** 2).sum())
        freedom += len(x) - 1
        scale += float(w.sum() - (w * w).sum() / w.sum())
    return max(0.0, (spread - freedom) / scale) if scale > 0 else 0.0


def between_groups(before: Iterable[Cost], first: Iterable[Cost], second: Iterable[Cost]) -> Difference:
    """Compare the policies of two groups of users, given what all of them cost before.

    Args:
        before: Costs before the comparison, of users of both groups and of others.
        first: Costs of the first policy since then.
        second: Costs of the second policy since then, by other users.
    """
    before, groups = list(before), (list(first), list(second))
    index = _index(before, *groups)
    past, now = _sums(before, index), [_sums(each, index) for each in groups]
    present = [each.n > 0 for each in now]
    counts = [len(each) for each in groups] + [int(each.sum()) for each in present]
    within = variance_within(past, *now)
    if min(counts[2:]) < FEWEST_UNITS:
        return Difference(0.0, math.inf, *counts)
    if math.isinf(within):  # each unit has one cost, as where requests are compared
        means, variances = [each.mean[k] for each, k in zip(now, present, strict=True)], []
        spread = max(SMALLEST_VARIANCE, float(np.mean([x.var(ddof=1) for x in means])))
        variances, excess = [np.full(len(x), spread) for x in means], [0.0, 0.0]
    else:
        means, variances = _changes(past, now, present, within)
        # By group: users who differ in what they think of the new policy say nothing of the old one's users.
        excess = [excess_variance([x], [v]) for x, v in zip(means, variances, strict=True)]
        variances = [v + more for v, more in zip(variances, excess, strict=True)]
    weights = [1 / v for v in variances]
    averages = [float((w * x).sum() / w.sum()) for w, x in zip(weights, means, strict=True)]
    parts = [1 / float(w.sum()) for w in weights]
    error = math.sqrt(sum(parts))
    # Welch-Satterthwaite: what rests on the spread of a few users is itself uncertain.
    known = [1 / float((1 / (v - more)).sum()) for v, more in zip(variances, excess, strict=True)]
    loose = sum((p - q) ** 2 / (k - 1) for p, q, k in zip(parts, known, counts[2:], strict=True))
    freedom = sum(parts) ** 2 / loose if loose > 0 else math.inf
    return Difference(averages[0] - averages[1], error * _tail_ratio(freedom), *counts)


def _tail_ratio(freedom: float) -> float:
    """How much further the 97.5% quantile of Student's t lies than the normal one (Cornish-Fisher).

    Args:
        freedom: The degrees of freedom.
    """
    z = NormalDist().inv_cdf(0.975)
    first = (z**2 + 1) / 4
    second = (5 * z**4 + 16 * z**2 + 3) / 96
    return 1 + first / freedom + second / freedom**2


def _changes(
    past: Sums, now: Sequence[Sums], present: Sequence[NDArray[np.bool_]], within: float
) -> tuple[list[Array], list[Array]]:
    """For each group what its users cost beyond what their past predicts, and the variance of that."""
    known = past.n > 0
    if known.sum() > FEWEST_UNITS:
        x, n = past.mean[known], past.n[known]
        centre = float(x.mean())
        between = max(0.0, float(x.var(ddof=1)) - within * float((1 / n).mean()))
    else:  # nothing is known of how users differ but what they cost now
        found = [each.mean[k] for each, k in zip(now, present, strict=True)]
        noise = [within / each.n[k] for each, k in zip(now, present, strict=True)]
        centre, between = 0.0, excess_variance(found, noise)
    trust = np.where(known, between / (between + within / np.maximum(past.n, 1)), 0.0)
    means = [each.mean[k] - (trust * (past.mean - centre))[k] for each, k in zip(now, present, strict=True)]
    left = between * (1 - trust)
    return means, [within / each.n[k] + left[k] for each, k in zip(now, present, strict=True)]


def within_users(first: Iterable[Cost], second: Iterable[Cost]) -> Difference:
    """Compare two arms by the differences of each user, over the users who had drafts of both.

    Args:
        first: Costs of the first arm.
        second: Costs of the second arm.
    """
    groups = (list(first), list(second))
    index = _index(*groups)
    one, other = (_sums(each, index) for each in groups)
    both = (one.n > 0) & (other.n > 0)
    units = int(both.sum())
    counts = (int(one.n[both].sum()), int(other.n[both].sum()), units, units)
    within = variance_within(one, other)
    if units == 0 or math.isinf(within):
        return Difference(0.0, math.inf, *counts)
    change = (one.mean - other.mean)[both]
    variance = within * (1 / one.n[both] + 1 / other.n[both])
    if units >= FEWEST_UNITS:
        variance = variance + excess_variance([change], [variance])
    weights = 1 / variance
    mean = float((weights * change).sum() / weights.sum())
    return Difference(mean, math.sqrt(1 / float(weights.sum())), *counts)


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare the costs of two drafts of the same requests [n] and [n]."""
    n = len(first)
    if n < FEWEST_UNITS:
        return Difference(0.0, math.inf, n, n, n, n)
    changes = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    variance = max(float(changes.var(ddof=1)), SMALLEST_VARIANCE)
    return Difference(float(changes.mean()), math.sqrt(variance / n), n, n, n, n)


def budget_bound(rounds: int, budget: int, error: float) -> float:
    """The bound for |z| of a comparison that ends after a number of rounds.

    Args:
        rounds: The rounds so far.
        budget: The rounds at which it ends.
        error: The probability, at most, with which an equal policy ever exceeds it in one direction.
    """
    if rounds <= 0:
        return math.inf
    return NormalDist().inv_cdf(1 - error / 2) * math.sqrt(budget / min(rounds, budget))


def mixture_bound(rounds: float, error: float) -> float:
    """The bound for |z| of a comparison without an end (Robbins 1970), as `budget_bound`."""
    if rounds <= 0:
        return math.inf
    ratio = rounds / TUNED_FOR
    return math.sqrt((1 + 1 / ratio) * (math.log1p(ratio) + 2 * math.log(1 / error)))


def within_bound(found: Difference, error: float) -> float:
    """The bound for |z| of a comparison of arms, which has no end, by the rounds of both."""
    return mixture_bound(1 / (1 / found.rounds + 1 / found.other_rounds), error)
