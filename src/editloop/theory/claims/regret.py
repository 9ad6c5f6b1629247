"""LateEnsemble's regret over the rounds, between the lower bound for all algorithms and its upper bound."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from editloop.errors import WorldError
from editloop.offline.plots import colour_of, tidy
from editloop.online import Algorithm, get_algorithm
from editloop.online.algorithms import ALPHA
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.theory.distributions import Floats, as_distribution
from editloop.theory.draws import tasteful_world
from editloop.theory.learners import LEARNERS, METHODS, seen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDS = 10_000
MOMENTS = tuple(int(t) for t in np.unique(np.geomspace(10, ROUNDS, 25).round()))
HARD = (100, 1_000, 10_000)
"""The numbers of rounds of the games with coins that can hardly be distinguished within so many rounds."""

GAPS = (0.5, 1.0, 1.5, 2.0)
"""The gaps of the best coin, in √(K/T); the worst one for each algorithm is reported."""

ALGORITHMS = {
    f"α = {ALPHA:g}": ("ucb", {"alpha": ALPHA}),
    "α = √2": ("ucb", {"alpha": math.sqrt(2)}),
    "KL-UCB": ("kl-ucb", {}),
}
"""Algorithm 1 with the default α and with the α for which a bound is proved, and KL-UCB."""


class Arms(NamedTuple):
    """Policies to choose from.

    Attributes:
        names: Their names.
        values: The costs that a response can have, from 0 to 1 [v].
        shares: The probability of each cost, by arm [arms, v].
    """

    names: tuple[str, ...]
    values: Floats
    shares: Floats

    @property
    def gaps(self) -> Floats:
        """The mean cost of each arm minus that of the best."""
        means: Floats = self.shares @ self.values
        return means - float(means.min())


def lai_robbins(arms: Arms) -> float:
    """Return the factor of log T in the lower bound for every algorithm that is good in all instances.

    It is Σ Δ/K_inf over the arms that are not best, with K_inf the least divergence from an arm to a
    distribution on [0, 1] that costs less than the best arm (Burnetas and Katehakis 1996).
    """
    best = float((arms.shares @ arms.values).min())
    return math.fsum(
        gap / least_divergence(arms.values, shares, best)
        for gap, shares in zip(arms.gaps.tolist(), arms.shares, strict=True)
        if gap > 1e-12
    )


def least_divergence(values: Floats, shares: Floats, mean: float) -> float:
    """Return K_inf: inf KL(ν, ν') over ν' on [0, 1] with a mean of at most `mean`, for ν with a larger one.

    It is computed by its dual, the largest E log(1 - λ (μ - c)) over 0 ≤ λ ≤ 1/μ.

    Raises:
        WorldError: The mean is not between 0 and that of ν.
    """
    shares = as_distribution("the costs of an arm", shares)
    if not 0 < mean < float(shares @ values):
        raise WorldError("the best mean must lie between 0 and the arm's", seen=mean)
    there = shares > 0

    # `part` is λ μ. At λ = 1/μ a cost of 0 has the logarithm of 0; the last factor keeps it finite. The
    # expectation is concave in λ, so a bounded search finds the maximum.
    def loss(part: float) -> float:
        return -float(shares[there] @ np.log1p(-part / mean * (mean - values[there]) * (1 - 1e-12)))

    return -float(minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-10}).fun)


def proved_bound(gaps: Floats, t: float) -> float:
    """Return Σ 8 log t/Δ + (1 + π²/3) Σ Δ, UCB1's bound (α = √2) for costs up to 1 (Auer et al. 2002)."""
    some = gaps[gaps > 1e-12]
    return float((8 * math.log(t) / some).sum() + (1 + math.pi**2 / 3) * some.sum())


def minimax(arms: int, t: int) -> float:
    """Return √(K T)/20, which some instance costs any algorithm (Auer et al. 2002)."""
    return min(math.sqrt(arms * t), t) / 20


def run(
    out: str | Path, *, seed: int = 0, seeds: int = 40, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Play the games, and write `regret`.

    Args:
        out: The folder.
        seed: The seed of worlds and rounds.
        seeds: The number of repetitions.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    instances = {"policies of a world": learned_arms(seed), "policies that are close": close_arms()}
    played: dict[str, Any] = {}
    jobs = len(ALGORITHMS) * (len(instances) + len(HARD))
    done = 0
    for name, arms in instances.items():
        played[name] = {
            "means": dict(zip(arms.names, (arms.shares @ arms.values).tolist(), strict=True)),
            "lai_robbins": lai_robbins(arms),
            "bound": [proved_bound(arms.gaps, t) for t in MOMENTS],
            "regret": {},
        }
        for label, (kind, options) in ALGORITHMS.items():
            regret = _play(arms, get_algorithm(kind, **options), ROUNDS, seeds, seed)
            moments = regret[:, [t - 1 for t in MOMENTS]]
            played[name]["regret"][label] = {
                "mean": moments.mean(axis=0).tolist(),
                "error": (moments.std(axis=0, ddof=1) / math.sqrt(seeds)).tolist(),
            }
            callback.progress("games", done := done + 1, jobs, name)
    hardest: list[dict[str, Any]] = []
    for rounds in HARD:
        row: dict[str, Any] = {"rounds": rounds, "minimax": minimax(5, rounds), "regret": {}}
        # A uniform choice loses the gap, g √(5/T), in four rounds of five.
        row["uniform"] = 4 / 5 * max(GAPS) * math.sqrt(5 * rounds)
        for label, (kind, options) in ALGORITHMS.items():
            totals = [
                _play(hard_arms(5, rounds, gap), get_algorithm(kind, **options), rounds, seeds, seed)[:, -1]
                for gap in GAPS
            ]
            worst = max(totals, key=lambda total: float(total.mean()))
            row["regret"][label] = [float(worst.mean()), float(worst.std(ddof=1) / math.sqrt(seeds))]
            callback.progress("games", done := done + 1, jobs, "hardest")
        hardest.append(row)
    data = {"seed": seed, "seeds": seeds, "moments": list(MOMENTS), "instances": played, "hardest": hardest}
    write_result("regret", data, _page(data), out, _figure(data), command="editloop theory ")
    return data


def learned_arms(seed: int) -> Arms:
    """Return the reference and the policy of each method, learned from 300 rows of a medium user, as arms."""
    rng = np.random.default_rng(seed)
    world = tasteful_world(rng, gamma=0.5, concentrability=10.0)
    distance = world.distance
    data = seen(world, world.sample(300, rng))
    policies = [world.reference, *(learner(world, data) for learner in LEARNERS.values())]
    levels = np.unique(distance)
    shares = np.array(
        [
            [(policy[0][:, None] * world.kernel[0])[distance == level].sum() for level in levels]
            for policy in policies
        ]
    )
    return Arms(("base", *METHODS), levels / levels.max(), shares / shares.sum(axis=1, keepdims=True))


def close_arms() -> Arms:
    """Return five policies whose drafts are accepted or rewritten, with nearly equal probabilities."""
    means = np.array([0.30, 0.35, 0.35, 0.40, 0.40])
    return Arms(tuple("abcde"), np.array([0.0, 1.0]), np.stack([1 - means, means], axis=1))


def hard_arms(count: int, rounds: int, gap: float) -> Arms:
    """Return coins of which one is better by `gap` √(K/T), about the least that T rounds can detect."""
    means = np.full(count, 0.5)
    means[-1] -= gap * math.sqrt(count / rounds)
    return Arms(tuple(map(str, range(count))), np.array([0.0, 1.0]), np.stack([1 - means, means], axis=1))


def _play(arms: Arms, algorithm: Algorithm, rounds: int, seeds: int, seed: int) -> Floats:
    """The cumulative pseudo-regret [seeds, rounds]."""
    gaps, steps = arms.gaps, np.cumsum(arms.shares, axis=1)
    found = np.empty((seeds, rounds))
    for number in range(seeds):
        rng = np.random.default_rng([seed, number])
        # One draw a round for all arms, and the same for every algorithm of a seed: they have the
        # same luck, which takes most of the noise out of their differences.
        draws = rng.random((rounds, 1))
        picked = [np.minimum((draws >= row).sum(axis=1), len(row) - 1) for row in steps]
        costs = [arms.values[one].tolist() for one in picked]
        pulls, sums = [0.0] * len(gaps), [0.0] * len(gaps)
        means, chosen = [0.0] * len(gaps), []
        for t in range(rounds):
            arm, _ = algorithm.choose(pulls, pulls, means, rng.random)
            pulls[arm] += 1
            sums[arm] += costs[arm][t]
            means[arm] = sums[arm] / pulls[arm]
            chosen.append(arm)
        found[number] = np.cumsum(gaps[chosen])
    return found


def _page(data: dict[str, Any]) -> str:
    rows = []
    for name, each in data["instances"].items():
        for moment in (200, ROUNDS):
            k = min(range(len(MOMENTS)), key=lambda k: abs(MOMENTS[k] - moment))
            cells = [f"{r['mean'][k]:.1f} ± {r['error'][k]:.1f}" for r in each["regret"].values()]
            lower = each["lai_robbins"] * math.log(MOMENTS[k])
            most = MOMENTS[k] * (max(each["means"].values()) - min(each["means"].values()))
            limits = [f"{lower:.0f}", f"{most:.0f}", f"{each['bound'][k]:,.0f}"]
            rows.append([name, f"{MOMENTS[k]:,}", *cells, *limits])
    table = markdown_table(
        ["instance", "round", *ALGORITHMS, "Lai-Robbins", "most", "proved for √2"], rows, left=1
    )
    hard = markdown_table(
        ["rounds", *ALGORITHMS, "√(KT)/20", "at random"],
        [
            [
                f"{row['rounds']:,}",
                *(f"{mean:.1f} ± {error:.1f}" for mean, error in row["regret"].values()),
                f"{row['minimax']:.1f}",
                f"{row['uniform']:.1f}",
            ]
            for row in data["hardest"]
        ],
    )
    return f"""Pseudo-regret to the best policy, means over {data["seeds"]} repetitions. Lai-Robbins is
a lower bound as T goes to infinity; at these T regret is still below it. `most` is the largest regret that
is possible, T times the largest gap. The upper bound, which is proved for α = √2 only, is above that, too:
it is informative only for much longer games.

{table}

Coins of which one is better by {GAPS[0]:g} to {GAPS[-1]:g} √(K/T), K = 5: the regret of each algorithm
with the gap that is worst for it. Every algorithm has a regret of at least √(KT)/20 in some instance; `at
random` is a uniform choice with the largest gap.

{hard}"""


def _figure(data: dict[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    colours = dict(zip(ALGORITHMS, (colour_of("late"), colour_of("dpo"), colour_of("early")), strict=True))
    for axes, (name, each) in zip(
        figure.subplots(1, len(data["instances"])), data["instances"].items(), strict=True
    ):
        for label, regret in each["regret"].items():
            axes.errorbar(MOMENTS, regret["mean"], regret["error"], label=label, color=colours[label])
        lower = [each["lai_robbins"] * math.log(t) for t in MOMENTS]
        axes.plot(MOMENTS, lower, color="#444444", linestyle=":", label="Lai-Robbins")
        axes.plot(MOMENTS, each["bound"], color=colours["α = √2"], linestyle=":", label="proved for √2")
        axes.set(xscale="log", yscale="log")
        tidy(axes, name, "rounds", "pseudo-regret")
        axes.legend(fontsize=7, frameon=False)
    return figure
