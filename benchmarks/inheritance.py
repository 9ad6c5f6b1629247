"""A new arm beside the one that it was made from: what does it save to begin with that one's evidence?

Twenty users have edited the drafts of two arms when a third one comes, which was made from the first. What it
costs differs from the first one by a change, and users differ a little in that. Its change was seen in the
shadow, in 60 pairs of drafts. Then the three are played for 300 rounds.

- `nothing`: it begins without evidence, and is therefore tried first;
- `inherits`: it begins with the evidence on its parent, as `editloop.autopilot.inheritance` allows it;
- `unmoved`: the same pulls at the parent's mean, as if it had not changed;
- `all of it`: however many pulls there are of the parent, at its mean.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from editloop.autopilot.comparison import Cost
from editloop.autopilot.decisions import SHADOW_MARGIN
from editloop.autopilot.inheritance import inheritance
from editloop.online import Bandit, BanditConfig, Heir
from editloop.parallel import in_parallel
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result

__all__ = ["CHANGES", "WAYS", "World", "play", "run"]

USERS, BEFORE, PAIRS, AFTER = 20, 600, 60, 300
STRENGTH = 5.0
"""The sum of the two parameters of the Beta distribution of a cost around its mean."""

MEANS, SPREAD, DIFFERING = (0.30, 0.33), 0.1, 0.03
"""The arms' mean costs; how users differ in each arm, and in the change."""

CHANGES = (-0.1, -0.05, 0.0, 0.05, 0.15)
WAYS = ("nothing", "inherits", "unmoved", "all of it")
SCOPES = ("all", "user")
"""One bandit that knows the users by a feature, or one for each user."""


class World(NamedTuple):
    """The mean cost of each arm for each user.

    Attributes:
        means: [arms, users]; the last arm is the new one, which was made from the first.
        generator: Draws what happens.
    """

    means: np.ndarray[Any, np.dtype[np.float64]]
    generator: np.random.Generator

    @classmethod
    def of(cls, change: float, seed: int) -> World:
        """A world in which the new arm costs so much more than the first."""
        generator = np.random.default_rng([seed, round(1000 * (1 + change))])
        first, second = (mean + SPREAD * generator.standard_normal(USERS) for mean in MEANS)
        new = first + change + DIFFERING * generator.standard_normal(USERS)
        return cls(np.clip(np.stack([first, second, new]), 0.02, 0.98), generator)

    def cost(self, arm: int, user: int) -> float:
        """A cost of an arm for a user."""
        mean = self.means[arm, user]
        return float(self.generator.beta(STRENGTH * mean, STRENGTH * (1 - mean)))


def play(change: float, scope: str, seed: int) -> dict[str, Any]:
    """Return, for each way, what its rounds cost beyond the best arm of each user, and the pulls allowed."""
    world = World.of(change, seed)
    bandit, seen = Bandit("01", BanditConfig(seed=seed)), []
    for t in range(BEFORE):
        user = int(world.generator.integers(USERS))
        arm = int(bandit.decide(f"b{t}", **_asked(scope, user)).arm)
        cost = world.cost(arm, user)
        bandit.edited(f"b{t}", cost)
        if arm == 0:
            seen.append(Cost(str(user), cost))
    users = world.generator.integers(USERS, size=PAIRS).tolist()
    changes = [Cost(str(user), world.cost(2, user) - world.cost(0, user)) for user in users]
    found = inheritance("0", changes, seen, SHADOW_MARGIN)
    heir = Heir(**found) if found else Heir("0", 0.0)
    heirs = {
        "nothing": None,
        "inherits": heir,
        "unmoved": heir._replace(change=0.0),
        "all of it": Heir("0", 1e9),
    }
    known, askers = bandit.to_json(), world.generator.integers(USERS, size=AFTER).tolist()
    noise = [[world.cost(arm, user) for arm in range(3)] for user in askers]
    regrets: dict[str, Any] = {}
    for way in WAYS:
        played = Bandit.from_json(known)
        mine = heirs[way]
        played.set_arms("012", heirs={} if mine is None else {"2": mine})
        regret = 0.0
        for t, user in enumerate(askers):
            arm = int(played.decide(f"a{t}", **_asked(scope, user)).arm)
            played.edited(f"a{t}", noise[t][arm])
            regret += float(world.means[arm, user] - world.means[:, user].min())
        regrets[way] = regret
    return regrets | {"pulls": heir.pulls}


def _asked(scope: str, user: int) -> dict[str, str]:
    return {"user": f"u{user}"} if scope == "all" else {"scope": f"u{user}"}


def run(out: str | Path, *, seeds: int = 100, callback: ProgressCallback | None = None) -> dict[str, Any]:
    """Measure, and write `inheritance.json` and `inheritance.md`.

    Args:
        out: The folder for the results.
        seeds: The number of seeds.
        callback: Receives progress.
    """
    jobs = [(change, scope, seeds) for scope in SCOPES for change in CHANGES]
    played = dict(in_parallel(_job, jobs, "games", callback or WarningCallback()))
    results = []
    for change, scope, _ in jobs:
        games = played[change, scope, seeds]
        figures = {}
        for name in (*WAYS, "pulls"):
            values = np.array([game[name] for game in games])
            figures[name] = {"mean": float(values.mean()), "se": float(values.std() / math.sqrt(len(values)))}
        results.append({"scope": scope, "change": change, "figures": figures})
    sizes = {"seeds": seeds, "users": USERS, "before": BEFORE, "pairs": PAIRS, "after": AFTER}
    data = {**sizes, "results": results}
    write_result("inheritance", data, _page(data), out)
    return data


def _job(job: tuple[float, str, int]) -> list[dict[str, Any]]:
    change, scope, seeds = job
    return [play(change, scope, seed) for seed in range(seeds)]


def _page(data: dict[str, Any]) -> str:
    def shown(each: dict[str, float]) -> str:
        return f"{each['mean']:.1f} ± {each['se']:.1f}"

    rows = [
        [
            "one bandit for all" if each["scope"] == "all" else "one for each user",
            f"{each['change']:+.2f}",
            *(shown(each["figures"][way]) for way in WAYS),
            f"{each['figures']['pulls']['mean']:.1f}",
        ]
        for each in data["results"]
    ]
    text = (
        f"Summed cost beyond the best arm of each user, over {data['after']} rounds in which a third arm is "
        f"new, with standard errors over {data['seeds']} seeds. {data['users']} users; {data['before']} "
        f"rounds came before, and {data['pairs']} pairs of drafts in the shadow. The last column is the most "
        "pulls that the evidence on the parent counts for."
    )
    return f"{text}\n\n{markdown_table(['', 'change', *WAYS, 'pulls'], rows)}"
