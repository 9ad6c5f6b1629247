"""Regret of the online phase against river and MABWiser, on cost tables that all of them share.

There are five arms, and the cost of an arm with mean μ is distributed as Beta(5μ, 5(1−μ)). A table of costs
is sampled once for each seed, so that all algorithms incur the same cost for the same choice in the same
round. The pseudo-regret is reported: the sum over rounds of μ of the chosen arm less the least μ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.bandit_learners import ARMS, LEARNERS, USER_LEARNERS, Learner
from editloop.errors import ConfigError
from editloop.offline.plots import tidy
from editloop.online import Bandit, BanditConfig
from editloop.parallel import in_parallel
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEANS = np.array([0.21, 0.36, 0.34, 0.93, 0.49])
AFTER = np.array([0.49, 0.21, 0.34, 0.93, 0.36])
"""The mean costs after a change."""
CLOSE = np.array([0.30, 0.33, 0.33, 0.36, 0.36])
USERS, REQUESTS = 20, 40


class Setting(NamedTuple):
    """An environment, with the number of rounds and seeds, and the delay and loss of feedback.

    Attributes:
        environment: `stationary`, `abrupt`, `slow` or `close`; or a population of users.
        rounds: The number of rounds.
        seeds: The number of seeds.
        delay: After how many further rounds a cost becomes known.
        missing: The share of costs that never become known.
    """

    environment: str
    rounds: int = 200
    seeds: int = 500
    delay: int = 0
    missing: float = 0.0

    @property
    def name(self) -> str:
        """The name of the setting in the tables."""
        parts = [self.environment, f"T {self.rounds:,}"]
        parts += [f"delay {self.delay}"] if self.delay else []
        parts += [f"{self.missing:.0%} missing"] if self.missing else []
        return ", ".join(parts)


SETTINGS = [
    *(Setting(environment) for environment in ("stationary", "abrupt", "slow", "close")),
    *(Setting("stationary", delay=delay) for delay in (5, 20, 50)),
    *(Setting("stationary", missing=missing) for missing in (0.3, 0.6)),
    *(Setting(environment, rounds=10_000, seeds=100) for environment in ("stationary", "abrupt", "slow")),
]
USER_SETTINGS = [
    Setting("two kinds of users", USERS * REQUESTS, 100),
    Setting("users alike", USERS * REQUESTS, 100),
]
GOALS = {
    "stationary, T 200": 12.0,
    "abrupt, T 200": 15.0,
    "slow, T 200": 15.0,
    "stationary, T 200, delay 20": 13.0,
    "two kinds of users, T 800": 3.0,
    "users alike, T 800": 1.5,
}
"""Goals for the mean pseudo-regret of EditLoop's default: at most this; the last two are per user."""


def run(
    out: str | Path, *, seeds: int | None = None, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure, and write `bandits.json` and `bandits.md`.

    Args:
        out: The folder for the results.
        seeds: Limit on the seeds of each setting, for a smaller experiment.
        callback: Receives progress.

    Raises:
        ConfigError: river or MABWiser is not installed.
    """
    callback = callback or WarningCallback()
    try:
        import mabwiser  # noqa: F401
        import river  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "the benchmark needs river and MABWiser", do="pip install editloop[bench]"
        ) from error

    def fewer(setting: Setting) -> Setting:
        return setting._replace(seeds=min(setting.seeds, seeds or setting.seeds))

    jobs: list[tuple[str, Setting]] = [
        *((name, fewer(s)) for s in SETTINGS for name in LEARNERS),
        *((name, fewer(s)) for s in USER_SETTINGS for name in USER_LEARNERS),
    ]
    # The longest jobs start first, so that no process is left with a long one at the end.
    longest = sorted(jobs, key=lambda job: -job[1].rounds * job[1].seeds)
    found = dict(in_parallel(_job, longest, "bandits", callback))
    results = [
        {"learner": name, "setting": setting.name, **_summary(found[name, setting][0])}
        for name, setting in jobs
    ]
    curves = {(name, setting.name): found[name, setting][1] for name, setting in jobs}
    timing = {name: _microseconds(LEARNERS[name]) for name in LEARNERS}
    data = {"results": results, "goals": GOALS, "microseconds": timing}
    write_result("bandits", data, _markdown(results, timing), out, _figure(curves))
    return data


def means(environment: str, rounds: int) -> NDArray[np.float64]:
    """Return μ of each round and arm, float64 [rounds, arms]."""
    if environment == "abrupt":
        return np.vstack([np.tile(MEANS, (rounds // 2, 1)), np.tile(AFTER, (rounds - rounds // 2, 1))])
    if environment == "slow":
        turn = np.arange(1, rounds + 1)[:, None] / rounds + np.arange(ARMS) / ARMS
        return np.clip(MEANS + 0.25 * np.sin(2 * np.pi * turn), 0.02, 0.98)
    return np.tile({"stationary": MEANS, "close": CLOSE}[environment], (rounds, 1))


def play(learner: Learner, setting: Setting, seed: int) -> NDArray[np.float64]:
    """Return the pseudo-regret of one learner in each round [T], on the cost table of one seed."""
    generator = np.random.default_rng([seed, setting.rounds])
    mean = means(setting.environment, setting.rounds)
    costs = generator.beta(5 * mean, 5 * (1 - mean))
    lost = generator.random(setting.rounds) < setting.missing
    played: list[int] = []
    for t in range(setting.rounds):
        s = t - setting.delay - 1
        if s >= 0:
            learner.learn(s, played[s], None if lost[s] else float(costs[s, played[s]]))
        played.append(learner.choose(t))
    regret: NDArray[np.float64] = mean[np.arange(setting.rounds), played] - mean.min(axis=1)
    return regret


def play_users(options: dict[str, Any], setting: Setting, seed: int) -> float:
    """Return the mean pseudo-regret of `USERS` users who take turns; without options they share a scope."""
    generator = np.random.default_rng([seed, setting.rounds])
    mean = np.array(
        [AFTER if u % 2 and setting.environment.startswith("two") else MEANS for u in range(USERS)]
    )
    costs = generator.beta(5 * mean, 5 * (1 - mean), size=(REQUESTS, USERS, ARMS))
    bandit, total = Bandit(map(str, range(ARMS)), BanditConfig(**options)), 0.0
    for t in range(setting.rounds):
        user = t % USERS
        arm = int(bandit.decide(str(t), scope=f"user {user}" if options else "").arm)
        bandit.edited(str(t), float(costs[t // USERS, user, arm]))
        total += mean[user, arm] - mean[user].min()
    return total / USERS


def _job(job: tuple[str, Setting]) -> tuple[list[float], NDArray[np.float64]]:
    """Return the regret of each seed, and the cumulative mean regret by round (empty for many users)."""
    name, setting = job
    if name in USER_LEARNERS:
        options = USER_LEARNERS[name]
        return [play_users(options, setting, seed) for seed in range(setting.seeds)], np.array([])
    regrets = np.stack([play(LEARNERS[name](seed), setting, seed) for seed in range(setting.seeds)])
    return regrets.sum(axis=1).tolist(), regrets.mean(axis=0).cumsum()


def _summary(regrets: Sequence[float]) -> dict[str, Any]:
    mean, error = mean_and_error(np.array(regrets))
    return {"mean": mean, "se": error, "p95": float(np.quantile(regrets, 0.95)), "seeds": len(regrets)}


def _microseconds(make: Callable[[int], Learner], rounds: int = 3000) -> float:
    """Return the time of a decision and its update in μs: the median over blocks of 100 rounds, no delay."""
    learner, blocks = make(0), []
    costs = np.random.default_rng(0).beta(5 * MEANS, 5 * (1 - MEANS), (rounds, ARMS))
    for start in range(0, rounds, 100):
        begun = time.perf_counter()
        for t in range(start, start + 100):
            arm = learner.choose(t)
            learner.learn(t, arm, costs[t, arm])
        blocks.append((time.perf_counter() - begun) / 100 * 1e6)
    return float(np.median(blocks))


def _figure(curves: Mapping[tuple[str, str], NDArray[np.float64]]) -> Figure:
    """The cumulative mean regret by round, in the settings of 200 rounds."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    shown = ("stationary, T 200", "abrupt, T 200", "slow, T 200", "close, T 200")
    figure = Figure(figsize=(11, 3.2), dpi=160, layout="constrained")
    axes = figure.subplots(1, len(shown))
    for k, (one, setting) in enumerate(zip(axes, shown, strict=True)):
        for i, name in enumerate(LEARNERS):
            curve = curves.get((name, setting))
            if curve is None:
                continue
            own = name.startswith("EditLoop")
            one.plot(
                np.arange(1, len(curve) + 1),
                curve,
                "-" if own else "--",
                color=colormaps["tab10"](i),
                linewidth=2.2 if i == 0 else 1.2,
                label=name,
            )
        tidy(one, setting.partition(",")[0], "round", "" if k else "mean pseudo-regret")
        one.set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def _markdown(results: Sequence[dict[str, Any]], timing: dict[str, float]) -> str:
    text = [
        "Pseudo-regret, mean ± standard error over seeds (95th percentile); lower is better. All algorithms "
        "play on the same costs. `α .45` is EditLoop's default; UCB1 is α = √2, the default of river and "
        "MABWiser, with which all three must tie. Under a delay, river and MABWiser do not count the "
        "decisions whose costs are still to come.",
    ]
    for title, names in (
        ("", list(LEARNERS)),
        ("By user: 20 users in turn, 40 requests each", list(USER_LEARNERS)),
    ):
        rows = []
        for setting in dict.fromkeys(r["setting"] for r in results if r["learner"] in names):
            by_name = {r["learner"]: r for r in results if r["setting"] == setting}
            goal = GOALS.get(setting)
            digits = 2 if title else 1
            cells = []
            for found in (by_name[name] for name in names):
                mean = plus_minus(found["mean"], found["se"], digits)
                cells.append(f"{mean} ({found['p95']:.{digits - 1}f})")
            rows.append([setting, f"≤ {goal:g}" if goal else "", *cells])
        text += [f"## {title}" if title else "", markdown_table(["setting", "goal", *names], rows), ""]
    text.append(
        "A decision and its update with five arms, in microseconds (median over blocks of 100 rounds; the "
        "goal is at most 10 for the default): "
        + ", ".join(f"{name} {value:.1f}" for name, value in timing.items())
        + "."
    )
    return "\n".join(text)
