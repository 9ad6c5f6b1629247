"""Arms that learn: does regret balancing choose better where arms improve as they are played?

The mean cost of an arm falls with its own pulls, as that of a policy that is fitted again from its own edits.
In the last two environments no arm improves, which is what the arms of a server are between two generations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from editloop.online import Bandit, BanditConfig
from editloop.parallel import in_parallel
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result

__all__ = ["ALGORITHMS", "ENVIRONMENTS", "Environment", "play", "run"]

ROUNDS, STRENGTH = 1000, 5.0
"""Rounds of a game, and the sum of the two parameters of the Beta distribution of a cost around its mean."""

ALGORITHMS = ("rand-ucb", "regret-balancing", "ucb", "uniform")


class Environment(NamedTuple):
    """Arms by what they cost after n pulls of their own.

    Attributes:
        name: What it is called in the table.
        arms: For each arm the mean cost of its next pull, given its pulls so far.
    """

    name: str
    arms: tuple[Callable[[int], float], ...]


def still(mean: float) -> Callable[[int], float]:
    """An arm that does not learn."""
    return lambda n: mean


def learns(start: float, end: float, pulls: float) -> Callable[[int], float]:
    """An arm whose cost falls from a start to an end, most of the way in so many pulls."""
    return lambda n: end + (start - end) * math.exp(-n / pulls)


ENVIRONMENTS = (
    Environment("one of three learns, quickly", (still(0.3), still(0.4), learns(0.6, 0.1, 40))),
    Environment("one of three learns, slowly", (still(0.3), still(0.4), learns(0.6, 0.1, 150))),
    Environment("all learn, at different speed", tuple(learns(0.6, end, 80) for end in (0.1, 0.25, 0.4))),
    Environment("no arm learns: .2, .3, .4", (still(0.2), still(0.3), still(0.4))),
    Environment("no arm learns: .25, .3", (still(0.25), still(0.3))),
)


def play(environment: Environment, algorithm: str, seed: int) -> float:
    """Return the mean cost of a game."""
    generator = np.random.default_rng([seed, ROUNDS])
    config = BanditConfig(algorithm=algorithm, features="none", seed=seed)
    bandit = Bandit(map(str, range(len(environment.arms))), config)
    pulls, total = [0] * len(environment.arms), 0.0
    for t in range(ROUNDS):
        arm = int(bandit.decide(str(t)).arm)
        mean = environment.arms[arm](pulls[arm])
        pulls[arm] += 1
        cost = float(generator.beta(STRENGTH * mean, STRENGTH * (1 - mean)))
        bandit.edited(str(t), cost)
        total += mean
    return total / ROUNDS


def best(environment: Environment) -> float:
    """The mean cost of a game in which one arm is played, the one for which that is least."""
    return min(sum(arm(n) for n in range(ROUNDS)) / ROUNDS for arm in environment.arms)


def run(out: str | Path, *, seeds: int = 100, callback: ProgressCallback | None = None) -> dict[str, Any]:
    """Measure, and write `learners.json` and `learners.md`.

    Args:
        out: The folder for the results.
        seeds: The number of seeds.
        callback: Receives progress.
    """
    jobs = [(number, name, seeds) for number in range(len(ENVIRONMENTS)) for name in ALGORITHMS]
    played = dict(in_parallel(_job, jobs, "games", callback or WarningCallback()))
    results = []
    for number, environment in enumerate(ENVIRONMENTS):
        costs = {name: played[number, name, seeds] for name in ALGORITHMS}
        figures = {
            name: {"mean": float(np.mean(c)), "se": float(np.std(c) / math.sqrt(len(c)))}
            for name, c in costs.items()
        }
        results.append({"environment": environment.name, "best": best(environment), "costs": figures})
    data = {"rounds": ROUNDS, "seeds": seeds, "results": results}
    write_result("learners", data, _page(data), out)
    return data


def _job(job: tuple[int, str, int]) -> list[float]:
    number, name, seeds = job
    return [play(ENVIRONMENTS[number], name, seed) for seed in range(seeds)]


def _page(data: dict[str, Any]) -> str:
    rows = [
        [
            each["environment"],
            f"{each['best']:.3f}",
            *(f"{each['costs'][name]['mean']:.3f} ± {each['costs'][name]['se']:.3f}" for name in ALGORITHMS),
        ]
        for each in data["results"]
    ]
    text = (
        f"Mean cost of a round over {data['rounds']:,} rounds, {data['seeds']} seeds, with standard errors"
        " over the seeds. The best is the arm that costs least if it is played alone. Without features of "
        "requests."
    )
    return f"{text}\n\n{markdown_table(['', 'best arm alone', *ALGORITHMS], rows)}"
