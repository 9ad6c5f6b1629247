"""Regret balancing: arms that learn themselves share the regret, and not the pulls."""

from __future__ import annotations

import math
from dataclasses import dataclass

from editloop.online.algorithms.base import Choice, Numbers, Scaled, Uniform01

__all__ = ["RegretBalancing"]

LEAST_COEFFICIENT = 0.25
"""d_min, for costs of unit scale: the regret coefficient of an arm until its costs say more."""

CONFIDENCE = 0.25
"""c, for costs of unit scale: half the largest standard deviation of a bounded cost."""

ERROR = 0.1
"""δ of the confidence term."""


@dataclass(frozen=True)
class RegretBalancing(Scaled):
    """ED²RB of Pacchiano, Dann and Gentile (arXiv 2306.02869), for costs, computed from the counts alone.

    An arm that improves as it is played, such as a policy that is fitted again from its own edits, is dear at
    first, and a bandit that compares means gives it up. Here each arm has a potential d √N, where d is the
    least coefficient with which its costs so far are explained by a regret of d √N:
    d = max(d_min, √N (mean − c s(N) − min over the arms of (mean + c s(N)))), s(N) = √(log(M log N / δ)/N).
    The arm with the least potential is played. So a dear arm is played less, but never given up, and an arm
    that gets cheaper gets its pulls back.

    The paper lets a potential at most double, and never fall, from round to round. That depends on the path;
    this does not, so that a decision follows from the counts, like that of the other algorithms.
    """

    name = "regret-balancing"

    def choose(self, pulls: Numbers, observed: Numbers, means: Numbers, uniform: Uniform01) -> Choice:
        """See `Algorithm.choose`; deterministic. An arm without a pull comes first."""
        for arm, n in enumerate(pulls):
            if n <= 0:
                return arm, None
        m = len(pulls)
        slack = [
            CONFIDENCE * self.scale * math.sqrt(math.log(m * max(1.0, math.log(max(n, 1.0))) / ERROR) / n)
            if n > 0
            else math.inf
            for n in observed
        ]
        least = min(mean + reach for mean, reach in zip(means, slack, strict=True))
        potentials = []
        for n, seen, mean, reach in zip(pulls, observed, means, slack, strict=True):
            gap = mean - reach - least if seen > 0 else -math.inf
            d = max(LEAST_COEFFICIENT * self.scale, math.sqrt(n) * gap)
            potentials.append((d * math.sqrt(n), mean if seen > 0 else 0.0))
        return min(range(m), key=potentials.__getitem__), None
