"""Regret of the online phase against other libraries, on costs that all of them share.

The pseudo-regret is reported: the sum over rounds of μ of the chosen arm less the least μ, where μ is the
mean cost for what is asked. `bandit_settings` describes the environments, `bandit_learners` the algorithms.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import WORK
from benchmarks.bandit_learners import (
    BY_USER,
    CONTEXTUAL,
    DEFAULT,
    LEARNERS,
    NO_FEATURES,
    ONLY_ASKED,
    PAPER,
    SLOW,
    USER_LEARNERS,
    EditLoop,
    Learner,
)
from benchmarks.bandit_settings import AFTER, ARMS, MEANS, PATIENCE, Setting, world
from editloop import online
from editloop.errors import ConfigError
from editloop.journal import append_rows, read_rows
from editloop.offline.plots import tidy
from editloop.online import Bandit, BanditConfig
from editloop.online.features import FEATURES, HashedWords
from editloop.parallel import in_parallel
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USERS, REQUESTS = 20, 40

ASKED = (
    Setting("context", rounds=2000, seeds=100),
    Setting("context is noise"),
    Setting("context is noise", rounds=2000, seeds=100),
)
LEFT = (
    Setting("abandoned", rounds=1500, seeds=100),
    Setting("always abandoned", rounds=1500, seeds=100),
)
REWRITTEN = (Setting("outliers"), Setting("outliers", rounds=10_000, seeds=100))
SECTIONS: dict[str, tuple[Setting, ...]] = {
    "200 rounds": tuple(Setting(environment) for environment in ("stationary", "abrupt", "slow", "close")),
    "Feedback that comes late or never": (
        *(Setting("stationary", delay=delay) for delay in (5, 20, 50)),
        *(Setting("stationary", missing=missing) for missing in (0.3, 0.6)),
    ),
    "What a request says": ASKED,
    "Drafts that are left without a trace": LEFT,
    "Edits that are far longer than their drafts": REWRITTEN,
    "10,000 rounds": tuple(
        Setting(environment, rounds=10_000, seeds=100)
        for environment in ("stationary", "abrupt", "slow", "gap .1")
    ),
}
"""The settings, by the title of their table."""

USER_SETTINGS = [
    Setting("two kinds of users", USERS * REQUESTS, 100),
    Setting("users alike", USERS * REQUESTS, 100),
]
LIMITS = {Setting("stationary"): 12.0, Setting("abrupt"): 15.0, Setting("slow"): 15.0}
USER_LIMITS = dict(zip(USER_SETTINGS, (3.0, 1.5), strict=True))
"""Goals for the mean pseudo-regret of EditLoop's default: at most this; for users, each of them."""

DRAWN = (
    DEFAULT,
    PAPER,
    "Algorithm 1, UCB1",
    "river, UCB1",
    "MABWiser, UCB1",
    "VW, squarecb",
    "EditLoop, discount .99",
    "ε-greedy, .1",
    "uniform",
)
"""The learners of the figure."""

USERS_TITLE = "By user: 20 users in turn, 40 requests each"
SMALL = "EditLoop, 64 features"
"""A learner that is only timed."""

DRAWN_ROUNDS = 200
SETTLED = 500
"""The round from which on the share of an arm counts whose drafts are left."""


def run(
    out: str | Path,
    *,
    seeds: int | None = None,
    work: Path = WORK / "bandits",
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `bandits.json` and `bandits.md`. An interrupted benchmark goes on where it stopped.

    Args:
        out: The folder for the results.
        seeds: Limit on the seeds of each setting, for a smaller experiment.
        work: Where what was played is kept.
        callback: Receives progress.

    Raises:
        ConfigError: river, MABWiser or Vowpal Wabbit is not installed.
    """
    callback = callback or WarningCallback()
    try:
        import mabwiser  # noqa: F401
        import river  # noqa: F401
        import vowpalwabbit  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "the benchmark needs river, MABWiser and Vowpal Wabbit", do="pip install editloop[bench]"
        ) from error

    def fewer(setting: Setting) -> Setting:
        return setting._replace(seeds=min(setting.seeds, seeds or setting.seeds))

    jobs: list[tuple[str, Setting]] = [
        *((name, fewer(s)) for ss in SECTIONS.values() for s in ss for name in LEARNERS if plays(name, s)),
        *((name, fewer(s)) for s in USER_SETTINGS for name in USER_LEARNERS),
    ]
    kept = work / f"{_code_digest()}.jsonl"
    found = {_job_of(row): Played(*row["played"]) for row in read_rows(kept, ConfigError)}
    # The longest jobs start first, so that no process is left with a long one at the end.
    missing = [job for job in jobs if job not in found]
    longest = sorted(missing, key=lambda job: -job[1].rounds * job[1].seeds)
    work.mkdir(parents=True, exist_ok=True)
    for job, played in in_parallel(_job, longest, "bandits", callback):
        found[job] = played
        append_rows(kept, [{"learner": job[0], "setting": job[1], "played": played}])
    results = [{"learner": job[0], "setting": job[1].name, **_summary(found[job])} for job in jobs]
    curves = {(name, setting.name): found[name, setting].curve for name, setting in jobs}
    timing = {name: _microseconds(LEARNERS[name]) for name in LEARNERS}
    timing[SMALL] = _microseconds(_with_64_features)
    data = {"results": results, "goals": check_goals(results, timing), "microseconds": timing}
    write_result("bandits", data, page(data), out, _figure(curves))
    return data


def plays(name: str, setting: Setting) -> bool:
    """Whether a learner plays a setting.

    Some are compared only where requests differ, and the slowest not over 10,000 rounds.
    """
    if name in ONLY_ASKED:
        return setting in ASKED
    return name not in SLOW or setting.rounds < 10_000


class Played(NamedTuple):
    """What a learner did in a setting.

    Attributes:
        regrets: The pseudo-regret of each seed.
        curve: The cumulative mean regret after each of `DRAWN_ROUNDS` rounds; empty for more.
        first: By seed, the share of the first arm from round `SETTLED` on; empty for fewer rounds.
    """

    regrets: list[float]
    curve: list[float]
    first: list[float]


def _job_of(row: Mapping[str, Any]) -> tuple[str, Setting]:
    return row["learner"], Setting(*row["setting"])


def _code_digest() -> str:
    """A digest of the code that plays: what other code played is not kept."""
    files = [*Path(online.__file__).parent.rglob("*.py"), *Path(__file__).parent.glob("bandit*.py")]
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def play(learner: Learner, setting: Setting, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the pseudo-regret of one learner in each round, and its arms [T], in the world of one seed."""
    made, played = world(setting, seed), np.zeros(setting.rounds, dtype=np.int64)
    for t in range(setting.rounds):
        s = t - setting.delay - 1
        if s >= 0 and not made.left[s, played[s]]:
            learner.learn(s, int(played[s]), float(made.costs[s, played[s]]))
        s -= PATIENCE
        if s >= 0 and made.left[s, played[s]]:
            learner.learn(s, int(played[s]), None)
        played[t] = learner.choose(t, made.contexts[t])
    regret: NDArray[np.float64] = made.mean[np.arange(setting.rounds), played] - made.mean.min(axis=1)
    return regret, played


def play_users(options: dict[str, Any], setting: Setting, seed: int) -> float:
    """Return the mean pseudo-regret of `USERS` users who take turns.

    Args:
        options: Fields of `BanditConfig`; with a `pool`, each user has a scope, and else they share one.
        setting: The population.
        seed: The seed of the costs.
    """
    generator = np.random.default_rng([seed, setting.rounds])
    mean = np.array(
        [AFTER if u % 2 and setting.environment.startswith("two") else MEANS for u in range(USERS)]
    )
    costs = generator.beta(5 * mean, 5 * (1 - mean), size=(REQUESTS, USERS, ARMS))
    bandit, total = Bandit(map(str, range(ARMS)), BanditConfig(seed=seed, **options)), 0.0
    for t in range(setting.rounds):
        user = t % USERS
        scope = f"user {user}" if "pool" in options else ""
        arm = int(bandit.decide(str(t), scope=scope, user=f"user {user}").arm)
        bandit.edited(str(t), float(costs[t // USERS, user, arm]))
        total += mean[user, arm] - mean[user].min()
    return total / USERS


def _job(job: tuple[str, Setting]) -> Played:
    """Play all seeds of a job."""
    name, setting = job
    if name in USER_LEARNERS:
        options = USER_LEARNERS[name]
        regrets = [play_users(options, setting, seed) for seed in range(setting.seeds)]
        return Played(regrets, [], [])
    total, curve, first = [], np.zeros(setting.rounds), []
    for seed in range(setting.seeds):
        regret, played = play(LEARNERS[name](seed), setting, seed)
        total.append(float(regret.sum()))
        curve += regret.cumsum() / setting.seeds
        if setting.rounds > SETTLED:
            first.append(float((played[SETTLED:] == 0).mean()))
    return Played(total, curve.tolist() if setting.rounds == DRAWN_ROUNDS else [], first)


def _summary(played: Played) -> dict[str, Any]:
    mean, error = mean_and_error(np.array(played.regrets))
    p95, p99 = np.quantile(played.regrets, (0.95, 0.99)).tolist()
    first = float(np.mean(played.first)) if played.first else None
    found = {"mean": mean, "se": error, "p95": p95, "p99": p99, "seeds": len(played.regrets)}
    return found | {"first": first}


def _microseconds(make: Callable[[int], Learner], rounds: int = 3000) -> float:
    """Return the time of a decision and its update in μs: the median over blocks of 100 rounds, no delay.

    What is asked is eight words, and their hashing counts.
    """
    learner, blocks = make(0), []
    contexts = world(Setting("context", rounds), 0).contexts
    costs = np.random.default_rng(0).beta(5 * MEANS, 5 * (1 - MEANS), (rounds, ARMS))
    for start in range(0, rounds, 100):
        begun = time.perf_counter()
        for t in range(start, start + 100):
            arm = learner.choose(t, contexts[t])
            learner.learn(t, arm, costs[t, arm])
        blocks.append((time.perf_counter() - begun) / 100 * 1e6)
    return float(np.median(blocks))


def _figure(curves: Mapping[tuple[str, str], Sequence[float]]) -> Figure:
    """The cumulative mean regret by round, in the settings of 200 rounds."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    shown = [setting.name for setting in SECTIONS["200 rounds"]]
    figure = Figure(figsize=(11, 3.2), dpi=160, layout="constrained")
    axes = figure.subplots(1, len(shown))
    for k, (one, setting) in enumerate(zip(axes, shown, strict=True)):
        for i, name in enumerate(DRAWN):
            curve = curves.get((name, setting))
            if not curve:
                continue
            one.plot(
                np.arange(1, len(curve) + 1),
                curve,
                "-" if i < 2 else "--",
                color=colormaps["tab10"](i),
                linewidth=2.2 if i == 0 else 1.2,
                label=name,
            )
        tidy(one, setting.partition(",")[0], "round", "" if k else "mean pseudo-regret")
        one.set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def _with_64_features(seed: int) -> Learner:
    FEATURES.registered["hashed-64"] = partial(HashedWords, 64)
    return EditLoop(features="hashed-64", seed=seed)


class Goal(NamedTuple):
    """A goal and what was measured.

    Attributes:
        text: What is asked.
        value: What was measured.
        limit: It is to be at most this.
    """

    text: str
    value: float
    limit: float


def check_goals(results: Sequence[Mapping[str, Any]], timing: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return each goal for EditLoop's default beside the measured value, if its settings were played."""
    table = {(each["learner"], each["setting"]): each for each in results}

    def of(learner: str, setting: Setting, figure: str = "mean") -> float:
        found = table.get((learner, setting.name), {}).get(figure)
        return math.nan if found is None else float(found)

    def least(names: Sequence[str], setting: Setting) -> float:
        return min(of(name, setting) for name in names)

    late, lost = Setting("stationary", delay=20), Setting("stationary", missing=0.6)
    context, gap = Setting("context", rounds=2000), Setting("gap .1", rounds=10_000)
    plain = [name for name in LEARNERS if name not in CONTEXTUAL]
    goals = [
        *(Goal(f"{s.name}: mean", of(DEFAULT, s), limit) for s, limit in LIMITS.items()),
        Goal(f"{late.name}: mean", of(DEFAULT, late), 13.0),
        *(Goal(f"{s.name}: mean, per user", of(BY_USER, s), x) for s, x in USER_LIMITS.items()),
        Goal(f"{lost.name}: over Algorithm 1", of(DEFAULT, lost) / of(PAPER, lost), 1.1),
        *(
            Goal(f"{s.name}: share of the arm from round {SETTLED} on", of(DEFAULT, s, "first"), limit)
            for s, limit in zip(LEFT, (0.10, 0.03), strict=True)
        ),
        *(
            Goal(f"{s.name}: over the same without outliers", of(DEFAULT, s) / of(DEFAULT, other), 1.1)
            for s in REWRITTEN
            for other in (s._replace(environment="stationary"),)
        ),
        Goal(f"{context.name}: over the best without", of(DEFAULT, context) / least(plain, context), 0.5),
        Goal(
            f"{context.name}: over Vowpal Wabbit's best",
            of(DEFAULT, context) / least([name for name in LEARNERS if name.startswith("VW")], context),
            1.3,
        ),
        *(Goal(f"{s.name}: over no features", of(DEFAULT, s) / of(NO_FEATURES, s), 1.1) for s in ASKED[1:]),
        Goal(
            f"{gap.name}: 99th percentile over the mean of α = .71",
            of(DEFAULT, gap, "p99") / of("Algorithm 1, α .71", gap),
            1.5,
        ),
        Goal("microseconds of a decision and its update with 64 features", timing.get(SMALL, math.nan), 50.0),
    ]
    return [goal._asdict() for goal in goals if not math.isnan(goal.value)]


def page(data: Mapping[str, Any]) -> str:
    """The page of a run."""
    text = [
        "Pseudo-regret, mean ± standard error over seeds (95th and 99th percentile); lower is better. All "
        "algorithms play on the same costs. *EditLoop* is the default: rand-ucb with hashed words. "
        "*Algorithm 1* is the paper's to the letter, for one scope: without features, and with costs as they "
        "are. UCB1 is α = √2, the default of river and MABWiser, with which all three must tie. Under a "
        "delay, river and MABWiser do not count the decisions whose costs are still to come. A draft that is "
        f"left without a trace costs 1 in the regret, and expires after {PATIENCE} rounds. Vowpal Wabbit "
        "hashes the words itself, and was not tuned beyond the options that are named in "
        "`bandit_learners.py`.",
        "## Goals",
        markdown_table(
            ["EditLoop's default", "goal", "measured", ""],
            [
                [goal["text"], f"≤ {goal['limit']:g}", f"{goal['value']:.2f}", _verdict(goal)]
                for goal in data["goals"]
            ],
        ),
    ]
    found = {(each["learner"], each["setting"]): each for each in data["results"]}
    played = {name for _, name in found}
    for title, settings in [*SECTIONS.items(), (USERS_TITLE, USER_SETTINGS)]:
        names = [setting.name for setting in settings if setting.name in played]
        if not names:
            continue
        learners = [name for name in (*LEARNERS, *USER_LEARNERS) if (name, names[0]) in found]
        digits = 2 if title == USERS_TITLE else 1
        rows = [[name, *(_cell(found.get((name, each)), digits) for each in names)] for name in learners]
        text += [f"## {title}", markdown_table(["", *names], rows)]
    times = ", ".join(f"{name} {value:.0f}" for name, value in data["microseconds"].items())
    text.append(
        "A decision and its update with five arms and eight words, in microseconds, median over blocks of "
        f"100 rounds. The default has 320 features, of which the time grows with the square. {times}."
    )
    return "\n\n".join(text)


def _verdict(goal: Mapping[str, Any]) -> str:
    return "met" if goal["value"] <= goal["limit"] else "missed"


def _cell(found: Mapping[str, Any] | None, digits: int) -> str:
    if found is None:
        return ""
    mean = plus_minus(found["mean"], found["se"], digits)
    return f"{mean} ({found['p95']:.{digits - 1}f}, {found['p99']:.{digits - 1}f})"
