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

**Looking more than once.** δ̂ times its information behaves like a Brownian motion in the information.
Where a comparison ends after N rounds, the bound is constant in it: |z| ≥ c √(N/n) after n rounds. By the
reflection principle a Brownian motion exceeds that, in one direction and at any time up to N, with the
probability 2(1 − Φ(c)), which is set to the error that is allowed. A canary is judged only at K equally
spaced numbers of rounds, whenever it is looked at, and then a smaller c allows the same error (O'Brien and
Fleming 1979): with an error of 5%, 1.75 for K = 5 in place of 1.96. Information grows no faster than the
rounds, for the uncertain past of each user stays; so the bound by rounds is on the safe side. Between arms
there is no end, and the bound is Robbins' mixture: |z| ≥ √((1 + n₀/n)(log(1 + n/n₀) + 2 log(1/α))).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
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
        unit: Who edited, or the response if the user is not known.
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
    if math.isinf(within):  # each unit has one cost, as where no user is known
        means, variances = [each.mean[k] for each, k in zip(now, present, strict=True)], []
        spread = max(SMALLEST_VARIANCE, float(np.mean([x.var(ddof=1) for x in means])))
        variances, excess = [np.full(len(x), spread) for x in means], [0.0, 0.0]
    else:
        means, variances = _changes(past, now, present, within)
        # By group: users who differ in what they think of the new policy say nothing of the old one's users.
        excess = [excess_variance([x], [v]) for x, v in zip(means, variances, strict=True)]
    averages, error = _combined(means, variances, excess)
    return Difference(averages[0] - averages[1], error, *counts)


def _combined(
    values: Sequence[Array], variances: Sequence[Array], excess: Sequence[float]
) -> tuple[list[float], float]:
    """The weighted mean of each group, and the standard error of their difference or, if it is one, of it.

    Args:
        values: Those of the units of each group.
        variances: The variance of each but for what is in `excess`.
        excess: For each group, how much its units vary beyond that, as estimated from their spread.
    """
    weights = [1 / (v + more) for v, more in zip(variances, excess, strict=True)]
    averages = [float((w * x).sum() / w.sum()) for w, x in zip(weights, values, strict=True)]
    parts = [1 / float(w.sum()) for w in weights]
    # Welch-Satterthwaite: what rests on the spread of a few users is itself uncertain.
    known = [1 / float((1 / v).sum()) for v in variances]
    freedoms = [max(1, len(x) - 1) for x in values]
    loose = sum((p - q) ** 2 / k for p, q, k in zip(parts, known, freedoms, strict=True))
    freedom = sum(parts) ** 2 / loose if loose > 0 else math.inf
    return averages, math.sqrt(sum(parts)) * _tail_ratio(freedom)


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
    excess = excess_variance([change], [variance]) if units >= FEWEST_UNITS else 0.0
    mean, error = _combined([change], [variance], [excess])
    return Difference(mean[0], error, *counts)


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare the costs of two drafts of the same requests [n] and [n]."""
    n = len(first)
    if n < FEWEST_UNITS:
        return Difference(0.0, math.inf, n, n, n, n)
    changes = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    variance = max(float(changes.var(ddof=1)), SMALLEST_VARIANCE)
    return Difference(float(changes.mean()), math.sqrt(variance / n), n, n, n, n)


def budget_bound(rounds: int, budget: int, error: float, looks: int | None = None) -> float:
    """The bound for |z| of a comparison that ends after a number of rounds.

    Args:
        rounds: The rounds so far.
        budget: The rounds at which it ends.
        error: The probability, at most, with which an equal policy ever exceeds it in one direction.
        looks: It is judged after each of as many equal parts of the budget; None for at any time.
    """
    if rounds <= 0:
        return math.inf
    final = NormalDist().inv_cdf(1 - error / 2) if looks is None else _bound_of_looks(looks, error)
    return final * math.sqrt(budget / min(rounds, budget))


@cache
def _bound_of_looks(looks: int, error: float) -> float:
    """What a Brownian motion exceeds at one of so many equally spaced times, the last of which is 1."""
    low, high = 0.0, 2 * NormalDist().inv_cdf(1 - error / 2)
    for _ in range(50):
        bound = (low + high) / 2
        low, high = (low, bound) if _exceeding(bound, looks) < error else (bound, high)
    return high


def _exceeding(bound: float, looks: int) -> float:
    """The probability that a Brownian motion exceeds a bound at one of these times (Armitage et al. 1969)."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    least = -8.0  # further down it never is
    points, weights = least + (nodes + 1) * (bound - least) / 2, weights * (bound - least) / 2
    height = math.sqrt(looks / (2 * math.pi))
    density = height * np.exp(-looks * points**2 / 2)  # of those that have not exceeded it
    step = height * np.exp(-looks * (points[:, None] - points) ** 2 / 2)
    for _ in range(looks - 1):
        density = step @ (weights * density)
    return 1 - float(weights @ density)


def mixture_bound(rounds: float, error: float) -> float:
    """The bound for |z| of a comparison without an end (Robbins 1970), as `budget_bound`."""
    if rounds <= 0:
        return math.inf
    ratio = rounds / TUNED_FOR
    return math.sqrt((1 + 1 / ratio) * (math.log1p(ratio) + 2 * math.log(1 / error)))


def within_bound(found: Difference, error: float) -> float:
    """The bound for |z| of a comparison of arms, which has no end, by the rounds of both."""
    return mixture_bound(1 / (1 / found.rounds + 1 / found.other_rounds), error)
