"""Choosing for people who edit little: 80 users with 4 to 20 edits each, as real logs have them.

More than half of the variance of costs lies between people (56%, as in a log of letters by 81 people). Who
edits much, edits every draft much. Whether that matters for the choice differs by world: all prefer the same
policy; light, medium and heavy editors prefer another one each; or everyone prefers their own. Ways to choose
are one bandit for all, one for each user (alone, or starting from what others know), one for each segment of
light, medium and heavy editors, and those with the user or the segment as a feature of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.online import Bandit, BanditConfig
from editloop.parallel import in_parallel
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result

__all__ = ["WAYS", "WORLDS", "play", "population", "run"]

USERS, FEWEST, MOST = 80, 4, 20
BASE = np.array([0.30, 0.36, 0.38, 0.42, 0.50])
"""The mean costs of five policies to a user in the middle."""
BETWEEN = 0.56
"""The share of the variance that lies between users."""
GAIN = 0.12
"""By how much less a policy costs to those who prefer it."""
LIGHT, HEAVY = 0.25, 0.5
"""The mean costs between which an editor is a medium one."""

Floats = NDArray[np.float64]


class Population(NamedTuple):
    """The users of one seed.

    Attributes:
        means: The mean cost of each policy to each user [users, policies].
        turns: Who asks, in order [requests].
    """

    means: Floats
    turns: NDArray[np.int64]


def _alike(levels: Floats, generator: np.random.Generator) -> Floats:
    return np.zeros((len(levels), len(BASE)))


def _by_segment(levels: Floats, generator: np.random.Generator) -> Floats:
    """Light editors prefer the third policy, medium ones the first, heavy ones the second."""
    third = np.argsort(np.argsort(levels)) * 3 // len(levels)
    found = np.zeros((len(levels), len(BASE)))
    found[np.arange(len(levels)), np.array([2, 0, 1])[third]] = -GAIN
    return found


def _each_their_own(levels: Floats, generator: np.random.Generator) -> Floats:
    found = np.zeros((len(levels), len(BASE)))
    found[np.arange(len(levels)), generator.integers(len(BASE), size=len(levels))] = -2 * GAIN
    return found


WORLDS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "all prefer the same": _alike,
    "by how much they edit": _by_segment,
    "each their own": _each_their_own,
}


def _segment(user: int, mean: float | None) -> str:
    if mean is None:
        return "medium"
    return "light" if mean < LIGHT else "heavy" if mean > HEAVY else "medium"


def _user(user: int, mean: float | None) -> str:
    return f"user {user}"


def _nobody(user: int, mean: float | None) -> str:
    return ""


class Way(NamedTuple):
    """A way to choose.

    Attributes:
        pool: As of `BanditConfig`.
        scope: The scope of a request, from the user and their mean cost so far (None before the first).
        feature: What is a feature of the request.
    """

    pool: float | Literal["learned"] = "learned"
    scope: Callable[[int, float | None], str] = _nobody
    feature: Callable[[int, float | None], str] = _nobody


WAYS: dict[str, Way] = {
    "one for all, which knows the user (default)": Way(feature=_user),
    "one for all, which knows the segment": Way(feature=_segment),
    "one for all": Way(),
    "each user, starting from the others": Way(scope=_user),
    "each user alone": Way(0.0, _user),
    "each user, starting from the others, and which knows the segment": Way(scope=_user, feature=_segment),
    "each segment, starting from the others": Way(scope=_segment),
    "each segment alone": Way(0.0, _segment),
}


def population(world: str, seed: int) -> Population:
    """Return the users of a seed."""
    generator = np.random.default_rng([seed, USERS])
    within = float((BASE * (1 - BASE) / 6).mean())
    levels = generator.normal(0.0, np.sqrt(within * BETWEEN / (1 - BETWEEN)), USERS)
    means = np.clip(BASE + levels[:, None] + WORLDS[world](levels, generator), 0.02, 0.98)
    turns = np.repeat(np.arange(USERS), generator.integers(FEWEST, MOST + 1, USERS))
    return Population(means, generator.permutation(turns))


def play(way: Way, users: Population, seed: int) -> float:
    """Return the mean pseudo-regret of a request."""
    generator = np.random.default_rng([seed, 1])
    costs = generator.beta(5 * users.means[users.turns], 5 * (1 - users.means[users.turns]))
    bandit = Bandit(map(str, range(len(BASE))), BanditConfig(pool=way.pool, seed=seed))
    sums, counts, total = np.zeros(USERS), np.zeros(USERS, np.int64), 0.0
    for t, user in enumerate(users.turns.tolist()):
        mean = float(sums[user] / counts[user]) if counts[user] else None
        known = way.feature(user, mean)
        arm = int(bandit.decide(str(t), scope=way.scope(user, mean), user=known).arm)
        bandit.edited(str(t), float(costs[t, arm]))
        sums[user] += costs[t, arm]
        counts[user] += 1
        total += users.means[user, arm] - users.means[user].min()
    return total / len(users.turns)


def run(out: str | Path, *, seeds: int = 100, callback: ProgressCallback | None = None) -> dict[str, Any]:
    """Measure, and write `personal.json` and `personal.md`.

    Args:
        out: The folder for the results.
        seeds: The number of seeds.
        callback: Receives progress.
    """
    jobs = [(world, way, seeds) for world in WORLDS for way in WAYS]
    found = dict(in_parallel(_job, jobs, "ways", callback or WarningCallback()))
    results = []
    for world, way, _ in jobs:
        mean, error = mean_and_error(np.array(found[world, way, seeds]))
        results.append({"world": world, "way": way, "mean": mean, "se": error})
    data = {"seeds": seeds, "results": results}
    write_result("personal", data, _page(data), out)
    return data


def _job(job: tuple[str, str, int]) -> list[float]:
    world, way, seeds = job
    return [play(WAYS[way], population(world, seed), seed) for seed in range(seeds)]


def _page(data: Mapping[str, Any]) -> str:
    table = {(each["world"], each["way"]): each for each in data["results"]}
    rows = [
        [way, *(plus_minus(table[world, way]["mean"], table[world, way]["se"], 4) for world in WORLDS)]
        for way in WAYS
    ]
    return (
        f"Mean pseudo-regret of a request, ± standard error over {data['seeds']} seeds; lower is better. "
        f"{USERS} users with {FEWEST} to {MOST} edits each ask in random order for drafts of five policies. "
        f"{BETWEEN:.0%} of the costs' variance lies between users. A segment follows from the user's mean "
        f"cost so far: light below {LIGHT}, heavy above {HEAVY}.\n\n" + markdown_table(["", *WORLDS], rows)
    )
