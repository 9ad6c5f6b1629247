"""What pessimism is worth: the optimum of Eq. 6 under f̂ + κ u, in worlds whose costs are known.

A world has a few contexts and a line of responses. The cost of a response is its distance from the response
that is wanted in its context. The log covers only the first part of the line. Beyond it, the estimate f̂
extrapolates and the uncertainty u grows; κ decides which of the two dominates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.offline import fit_cost_model
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

CONTEXTS, RESPONSES = 8, 41
BETA = 0.05
NOISE = 0.1
ROWS = 200
KAPPAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
COVERED = (0.4, 0.5, 0.7, 1.0)
"""Which part of the line the log covers."""
SIZES = (25, 50, 100, 200, 400, 800)
"""Rows of the logs with exact costs."""
SEEDS = 40


class World(NamedTuple):
    """Contexts, responses and costs.

    Attributes:
        wanted: The position on the line, in [0, 1], of the response that is wanted in each context [C].
        costs: The cost of every response in every context [C, R].
    """

    wanted: Floats
    costs: Floats

    def features(self, context: NDArray[np.int64], response: NDArray[np.int64]) -> Floats:
        """Return the features of a cost model: one of the context, then four of the response [n, 5]."""
        x = response / (RESPONSES - 1)
        return np.stack([self.wanted[context], x, x**2, np.sin(3 * x), np.cos(3 * x)], axis=1)

    def optimum(self, bound: Floats) -> Floats:
        """Return π_ref e^{−f̄/β}/Z for each context, where π_ref is uniform [C, R]."""
        # The least bound is subtracted so that the largest exponent is 0; Z cancels the factor.
        weight = np.exp(-(bound - bound.min(axis=1, keepdims=True)) / BETA)
        found: Floats = weight / weight.sum(axis=1, keepdims=True)
        return found

    def expected_cost(self, policy: Floats) -> float:
        """Return the expected true cost of a policy [C, R]."""
        return float((policy * self.costs).sum(axis=1).mean())

    def subopt(self, policy: Floats) -> float:
        """Return J_β of a policy less that of the optimum.

        J_β is the cost plus β KL(π ‖ π_ref), a mean over contexts.
        """

        def objective(one: Floats) -> float:
            logs = np.log(np.maximum(one, 1e-300) * RESPONSES)
            return self.expected_cost(one) + BETA * float((one * logs).sum(axis=1).mean())

        return objective(policy) - objective(self.optimum(self.costs))


def make_world(seed: int) -> World:
    """Return the world of a seed."""
    wanted = np.random.default_rng(seed).uniform(0.2, 0.8, CONTEXTS)
    return World(wanted, np.abs(np.linspace(0, 1, RESPONSES) - wanted[:, None]))


def learned(
    world: World, *, rows: int, covered: float, noise: float, kappas: Sequence[float], seed: int
) -> dict[float, Floats]:
    """Return for each κ the optimum under f̂ + κ u [C, R].

    Args:
        world: The world that the log comes from.
        rows: Rows of the log.
        covered: The part of the responses that the log covers.
        noise: Standard deviation of the noise of the logged costs.
        kappas: The values of κ.
        seed: Seed of the log.
    """
    generator = np.random.default_rng([seed, rows])
    context = generator.integers(CONTEXTS, size=rows)
    response = generator.integers(max(1, round(covered * RESPONSES)), size=rows)
    costs = world.costs[context, response] + generator.normal(0, noise, rows)
    model = fit_cost_model(world.features(context, response), costs, context=1, seed=seed)
    every = np.divmod(np.arange(CONTEXTS * RESPONSES), RESPONSES)
    mean, spread = (each.reshape(CONTEXTS, RESPONSES) for each in model.predict(world.features(*every)))
    return {kappa: world.optimum(mean + kappa * spread) for kappa in kappas}


def run(out: str | Path, *, seeds: int = SEEDS, callback: ProgressCallback | None = None) -> dict[str, Any]:
    """Measure, and write `pessimism.json`, `pessimism.md` and `pessimism.png`.

    Args:
        out: The folder for the results.
        seeds: The number of worlds.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    cost = np.zeros((len(COVERED), len(KAPPAS), seeds))
    subopt = np.zeros((len(SIZES), seeds))
    for seed in range(seeds):
        world = make_world(seed)
        for i, covered in enumerate(COVERED):
            found = learned(world, rows=ROWS, covered=covered, noise=NOISE, kappas=KAPPAS, seed=seed)
            cost[i, :, seed] = [world.expected_cost(policy) for policy in found.values()]
        for i, rows in enumerate(SIZES):
            (policy,) = learned(world, rows=rows, covered=1.0, noise=0.0, kappas=(0.0,), seed=seed).values()
            subopt[i, seed] = world.subopt(policy)
        callback.progress("worlds", seed + 1, seeds)
    worlds = [make_world(seed) for seed in range(seeds)]
    best = float(np.mean([world.expected_cost(world.optimum(world.costs)) for world in worlds]))
    base = float(np.mean([world.costs.mean() for world in worlds]))
    data = {
        "seeds": seeds,
        "beta": BETA,
        "reference": base,
        "optimum": best,
        "cost": {
            str(c): {str(k): mean_and_error(cost[i, j]) for j, k in enumerate(KAPPAS)}
            for i, c in enumerate(COVERED)
        },
        "against_no_pessimism": {
            str(c): {str(k): mean_and_error(cost[i, j] - cost[i, 0]) for j, k in enumerate(KAPPAS)}
            for i, c in enumerate(COVERED)
        },
        "subopt": {str(n): mean_and_error(subopt[i]) for i, n in enumerate(SIZES)},
    }
    write_result("pessimism", data, _markdown(data), out, _figure(data))
    return data


def _markdown(data: dict[str, Any]) -> str:
    headings = ["responses in the log", *(f"κ = {kappa:g}" for kappa in KAPPAS)]
    shares = [f"the first {covered:.0%}" if covered < 1 else "all" for covered in COVERED]

    def table(key: str) -> str:
        return markdown_table(
            headings,
            [
                [share, *(plus_minus(*cell) for cell in data[key][str(covered)].values())]
                for share, covered in zip(shares, COVERED, strict=True)
            ],
        )

    falling = [plus_minus(*each) for each in data["subopt"].values()]
    return "\n\n".join(
        [
            f"Expected cost of the policy π_ref e^(−f̄/β)/Z, f̄ = f̂ + κ u fitted on {ROWS} rows with noise "
            f"{NOISE:g}; β = {BETA:g}, {data['seeds']} worlds, mean ± standard error. The true "
            f"cost of the reference is {data['reference']:.3f}, that of the optimum {data['optimum']:.3f}.",
            table("cost"),
            "The same, less the cost at κ = 0 in the same world:",
            table("against_no_pessimism"),
            "SubOpt (J_β less that of the optimum) by rows of the log, with exact costs and κ = 0, where the "
            "log covers all responses:",
            markdown_table(["rows", *map(str, SIZES)], [["SubOpt", *falling]]),
        ]
    )


def _figure(data: dict[str, Any]) -> Figure:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    from editloop.offline.plots import tidy

    figure = Figure(figsize=(8, 3), dpi=160, layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, covered in enumerate(COVERED):
        cells = data["cost"][str(covered)].values()
        label = "all logged" if covered == 1 else f"{covered:.0%} logged"
        mean, error = zip(*cells, strict=True)
        left.errorbar(
            KAPPAS, mean, error, color=colormaps["viridis"](i / len(COVERED)), label=label, capsize=2
        )
    left.axhline(data["optimum"], color="#333", linestyle=":", linewidth=1, label="optimum")
    left.set_ylim(bottom=0)
    left.legend(fontsize=7, frameon=False)
    tidy(left, "A log that misses a region", "κ", "true cost")
    mean, error = zip(*data["subopt"].values(), strict=True)
    right.errorbar(SIZES, mean, error, color="#b23a63", capsize=2, marker="o", markersize=3)
    right.set_xscale("log")
    right.set_xticks(SIZES, map(str, SIZES))
    right.minorticks_off()
    right.set_ylim(bottom=0)
    tidy(right, "Exact costs", "rows", "SubOpt")
    return figure
