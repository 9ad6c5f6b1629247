"""Snapshots of version 1, which counted neither expired pulls nor a bound on costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from editloop.online.abandonment import Silence
from editloop.online.slopes import Slopes
from editloop.online.tallies import Pool, Tally, values_of

__all__ = ["upgraded"]


def upgraded(row: Mapping[str, Any], bound: float) -> dict[str, Any]:
    """Return a snapshot of version 1 in the form of version 2.

    Expired pulls are counted, and costs bounded, for the responses that the snapshot remembers; of older ones
    it has only the sums.

    Args:
        row: The snapshot.
        bound: The most that a cost counts for.

    Raises:
        KeyError, TypeError, ValueError: The snapshot is incomplete.
    """
    tallies = {
        scope: {arm: _tally(values) for arm, values in arms.items()} for scope, arms in row["tallies"].items()
    }
    responses: dict[str, list[Any]] = {}
    silence = Silence(row["memory"])
    first = row["decisions"] - len(row["responses"]) + 1  # what it remembers are the last decisions, in order
    for number, (key, response) in enumerate(row["responses"].items(), first):
        scope, arm, tick, revision, outcome, cost = response
        tally, weight = tallies[scope][arm], row["discount"] ** (row["clocks"][scope] - tick)
        if outcome == "expired":
            tally.expired += weight
            silence.expire(number, arm)
        elif revision >= 0:
            silence.observe(number, arm)
        if cost > bound:
            tally.cost -= weight * (cost - bound)
            tally.square -= weight * (cost * cost - bound * bound)
        responses[key] = [scope, arm, tick, revision, outcome, min(cost, bound), number]
    pools: dict[str, Pool] = {}
    for arms in tallies.values():
        for arm, tally in arms.items():
            pools.setdefault(arm, Pool()).count(tally, 1)
    return {
        **row,
        "format": 3,
        "bound": None if math.isinf(bound) else bound,
        "tallies": {
            scope: {arm: values_of(tally) for arm, tally in arms.items()} for scope, arms in tallies.items()
        },
        "pools": {arm: values_of(pool) for arm, pool in pools.items()},
        "silence": silence.to_json(),
        "slopes": Slopes().to_json(),
        "responses": responses,
    }


def _tally(values: list[float]) -> Tally:
    tally = Tally()
    tally.cost, tally.observed, tally.pending, tally.square = values
    return tally
