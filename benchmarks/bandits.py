"""Regret of the online phase against river and MABWiser, on cost tables that all of them share.

Five arms; a cost is Beta(5μ, 5(1−μ)). A cost table is drawn once for a seed, so that all algorithms incur
the same for the same choice in the same round. What is reported is pseudo-regret: the sum of μ of the chosen
arm less the least μ of the round.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

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
CLOSE = np.array([0.30, 0.33, 0.33, 0.36, 0.36])
ARMS = len(MEANS)
USERS, REQUESTS = 20, 40


class Setting(NamedTuple):
    """Where the algorithms play: an environment, rounds, seeds, and how feedback comes."""

    environment: str
    rounds: int = 200
    seeds: int = 500
    delay: int = 0
    missing: float = 0.0

    @property
    def name(self) -> str:
        """What it is called in the tables."""
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
"""Most mean pseudo-regret of the default; by user in the last two."""


class Learner(Protocol):
    """An algorithm at play."""

    def choose(self, round: int) -> int:
        """The arm of a round."""
        ...

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """The cost of an earlier round, or None: it will never be known."""
        ...


class Own:
    """A bandit of this package."""

    def __init__(self, **options: Any) -> None:
        self.bandit = Bandit(map(str, range(ARMS)), BanditConfig(**options))

    def choose(self, round: int) -> int:
        """See `Learner`."""
        return int(self.bandit.decide(str(round)).arm)

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """See `Learner`."""
        if cost is None:
            self.bandit.expired(str(round))
        else:
            self.bandit.edited(str(round), cost)


class River:
    """river's UCB; its bonus is δ √(2 log t / N), so δ = α/√2. The reward is 1 − cost."""

    def __init__(self, alpha: float, seed: int) -> None:
        from river import bandit

        self.policy = bandit.UCB(delta=alpha / math.sqrt(2), seed=seed)

    def choose(self, round: int) -> int:
        """See `Learner`."""
        return int(self.policy.pull(range(ARMS)))

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """See `Learner`."""
        if cost is not None:
            self.policy.update(arm, 1 - cost)


class MABWiser:
    """MABWiser's UCB1, its bonus as river's. An unseen arm has index 0 there: each is played once first."""

    def __init__(self, alpha: float, seed: int) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self.mab = MAB(list(range(ARMS)), LearningPolicy.UCB1(alpha / math.sqrt(2)), seed=seed)
        self.fitted = False

    def choose(self, round: int) -> int:
        """See `Learner`."""
        return round if round < ARMS else int(self.mab.predict()) if self.fitted else round % ARMS

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """See `Learner`."""
        if cost is not None:
            (self.mab.partial_fit if self.fitted else self.mab.fit)([arm], [1 - cost])
            self.fitted = True


UCB1 = math.sqrt(2)
"""α of UCB1, and the default of river (δ = 1) and MABWiser (α = 1)."""

LEARNERS: dict[str, Callable[[int], Learner]] = {
    "EditLoop (α .45)": lambda seed: Own(seed=seed),
    "EditLoop, UCB1": lambda seed: Own(alpha=UCB1, seed=seed),
    "river, UCB1": lambda seed: River(UCB1, seed),
    "MABWiser, UCB1": lambda seed: MABWiser(UCB1, seed),
    "river, α .45": lambda seed: River(0.45, seed),
    "EditLoop, KL-UCB": lambda seed: Own(algorithm="kl-ucb", seed=seed),
    "EditLoop, Thompson": lambda seed: Own(algorithm="thompson", seed=seed),
    "EditLoop, discount .99": lambda seed: Own(discount=0.99, seed=seed),
    "uniform": lambda seed: Own(algorithm="uniform", seed=seed),
}
"""By the seed of their own draws."""

USER_LEARNERS: dict[str, dict[str, Any]] = {
    "prior learned": {"pool": "learned"},
    "prior of 5 pulls": {"pool": 5.0},
    "separate": {"pool": 0.0},
    "one for all": {},
}


def run(
    out: str | Path, *, seeds: int | None = None, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure, and write `bandits.json` and `bandits.md`.

    Args:
        out: The folder for the results.
        seeds: Fewer seeds than the settings say, for a trial.
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
    # The longest first, so that no process is left alone with one at the end.
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
    """μ of each round and arm, float64 [rounds, arms]."""
    if environment == "abrupt":
        return np.vstack([np.tile(MEANS, (rounds // 2, 1)), np.tile(AFTER, (rounds - rounds // 2, 1))])
    if environment == "slow":
        turn = np.arange(1, rounds + 1)[:, None] / rounds + np.arange(ARMS) / ARMS
        return np.clip(MEANS + 0.25 * np.sin(2 * np.pi * turn), 0.02, 0.98)
    return np.tile({"stationary": MEANS, "close": CLOSE}[environment], (rounds, 1))


def play(learner: Learner, setting: Setting, seed: int) -> NDArray[np.float64]:
    """The pseudo-regret of one learner on the cost table of one seed, round by round [T]."""
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
    lost_by: NDArray[np.float64] = mean[np.arange(setting.rounds), played] - mean.min(axis=1)
    return lost_by


def play_users(options: dict[str, Any], setting: Setting, seed: int) -> float:
    """The pseudo-regret by user, of 20 users in turn. Without options they share one scope."""
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
    """The regret of each seed, and the mean regret so far, round by round (empty for those by user)."""
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
    """Median time of a decision and its update, over blocks of 100 rounds, without a delay."""
    learner, costs, blocks = (
        make(0),
        np.random.default_rng(0).beta(5 * MEANS, 5 * (1 - MEANS), (rounds, ARMS)),
        [],
    )
    for start in range(0, rounds, 100):
        begun = time.perf_counter()
        for t in range(start, start + 100):
            arm = learner.choose(t)
            learner.learn(t, arm, costs[t, arm])
        blocks.append((time.perf_counter() - begun) / 100 * 1e6)
    return float(np.median(blocks))


def _figure(curves: Mapping[tuple[str, str], NDArray[np.float64]]) -> Figure:
    """The mean regret so far, by round, where there are 200."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    drawn = ("stationary, T 200", "abrupt, T 200", "slow, T 200", "close, T 200")
    figure = Figure(figsize=(11, 3.2), dpi=160, layout="constrained")
    axes = figure.subplots(1, len(drawn))
    for k, (one, setting) in enumerate(zip(axes, drawn, strict=True)):
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
        "Pseudo-regret, mean ± standard error over seeds (95th percentile); lower is better. Costs are the "
        "same for all. `α .45` is EditLoop's default; UCB1 is α = √2, the default of river and MABWiser: "
        "with it all three must tie. Under a delay river and MABWiser do not know what is in flight.",
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
        text += [f"## {title}" if title else "", markdown_table(["setting", "asked", *names], rows), ""]
    text.append(
        "A decision and its update, five arms, microseconds (median of blocks of 100; asked: at most 10 "
        "for the default): " + ", ".join(f"{name} {value:.1f}" for name, value in timing.items()) + "."
    )
    return "\n".join(text)
