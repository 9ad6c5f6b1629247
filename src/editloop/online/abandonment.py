"""Responses that were left without a trace: what the silence of an arm's users means.

A response that expires has no cost. Mostly that says nothing about it: the user went home, or the client
sends no edits. Then leaving it out costs nothing. But users may also leave *because of* the draft, and an arm
whose bad drafts are always left would keep the mean of its good ones.

**What counts.** Whether silence has to do with the arm shows in its rate. Of the R pulls of an arm that came
to an end, E expired; of the R' pulls of all other arms, E'. If arms make no difference, about R q pulls of
the arm expire, where q is the others' rate (E' + ½)/(R' + 1), and E differs from that by

    s = √(R q (1 − q) (1 + R/R')),

the noise of both counts. The pulls beyond that, **E − R q − 2 s**, count as discarded; if that is below 0,
none do. They are shared among the arm's scopes in proportion to the pulls that came to an end, because a
single user has too few to estimate a rate.

Where silence is as frequent with all arms, E − R q is above 2 s one time in forty. Where all of an arm's
responses are left and none of the others', a part of its first pull counts already.

**When.** An edit comes within minutes, and a response expires after days. An arm that is new has edits and no
expired pulls yet, and beside it every other arm would look abandoned. So only pulls count that had the time
to expire: those that were decided before the last one that did.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["Silence", "excess_share"]

ERRORS = 2.0
"""How many standard errors of the expected number do not count."""


class Silence:
    """How often each arm's pulls expired, of those that had the time to.

    Args:
        memory: How many observed pulls are remembered at most that have not had the time yet.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._last = 0  # the number of the last decision that expired
        self._counts: dict[str, list[int]] = {}  # by arm, observed and expired
        self._waiting: list[tuple[int, str]] = []  # observed pulls of later decisions, as a heap

    def observe(self, number: int, arm: str) -> None:
        """Count that feedback came for the decision of this number."""
        if number <= self._last:
            self._of(arm)[0] += 1
            return
        heapq.heappush(self._waiting, (number, arm))
        if len(self._waiting) > self.memory:
            heapq.heappop(self._waiting)

    def expire(self, number: int, arm: str) -> None:
        """Count that no feedback came for the decision of this number."""
        self._of(arm)[1] += 1
        self._last = max(self._last, number)
        while self._waiting and self._waiting[0][0] <= self._last:
            self._of(heapq.heappop(self._waiting)[1])[0] += 1

    def share(self, arm: str) -> float:
        """The share of an arm's finished pulls that count as discarded."""
        own = self._counts.get(arm)
        if own is None or not own[1]:
            return 0.0
        others = [counts for name, counts in self._counts.items() if name != arm]
        return excess_share(own[0], own[1], sum(each[0] for each in others), sum(each[1] for each in others))

    def _of(self, arm: str) -> list[int]:
        return self._counts.setdefault(arm, [0, 0])

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON types, from which `from_json` restores it."""
        counts = {arm: list(each) for arm, each in self._counts.items()}
        return {
            "last": self._last,
            "counts": counts,
            "waiting": [list(each) for each in sorted(self._waiting)],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], memory: int) -> Silence:
        """What `to_json` wrote."""
        made = cls(memory)
        made._last = row["last"]
        made._counts = {arm: list(each) for arm, each in row["counts"].items()}
        made._waiting = [(number, arm) for number, arm in row["waiting"]]  # sorted, and so a heap
        return made


def excess_share(
    observed: float,
    expired: float,
    other_observed: float,
    other_expired: float,
    *,
    errors: float = ERRORS,
) -> float:
    """Return the share of an arm's finished pulls that expired beyond what the others' rate would give.

    Args:
        observed: The arm's pulls with feedback.
        expired: Its expired pulls.
        other_observed: The other arms' pulls with feedback.
        other_expired: Their expired pulls. If they have no finished pull, there is nothing to compare with.
        errors: How many standard errors of the expected number do not count.

    Returns:
        A number in [0, 1).
    """
    own, finished = observed + expired, other_observed + other_expired
    if own <= 0 or finished <= 0:
        return 0.0
    rate = (other_expired + 0.5) / (finished + 1)
    noise = math.sqrt(own * rate * (1 - rate) * (1 + own / finished))
    return max(0.0, expired - own * rate - errors * noise) / own
