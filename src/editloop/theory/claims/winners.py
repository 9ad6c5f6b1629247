"""Who wins: the best method over the strength of the user, the coverage of the log and its size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from editloop.offline.plots import colour_of, tidy
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.theory.distributions import Floats
from editloop.theory.draws import tasteful_world
from editloop.theory.learners import LEARNERS, METHODS, seen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAMMAS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
COVERAGES = (1.5, 3.0, 10.0, 30.0, 100.0)
"""max π*/π_ref: the larger it is, the less of the optimum is in the log."""

SIZES = (30, 300, 3_000)


def run(
    out: str | Path, *, seed: int = 0, worlds: int = 12, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Compare the methods over a grid, and write `winners`.

    Args:
        out: The folder.
        seed: The seed of worlds and logs.
        worlds: The number of random optima for each cell, each with one log.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    kl = np.empty((len(GAMMAS), len(COVERAGES), worlds, len(SIZES), len(METHODS)))
    for i, gamma in enumerate(GAMMAS):
        for j, concentrability in enumerate(COVERAGES):
            for number in range(worlds):
                rng = np.random.default_rng([seed, number])
                world = tasteful_world(rng, gamma=gamma, concentrability=concentrability)
                rows = world.sample(SIZES[-1], rng)
                for k, n in enumerate(SIZES):
                    shown = seen(world, rows.first(n))
                    learned = [learner(world, shown) for learner in LEARNERS.values()]
                    kl[i, j, number, k] = [world.suboptimality(policy) / world.beta for policy in learned]
            callback.progress("cells", i * len(COVERAGES) + j + 1, len(GAMMAS) * len(COVERAGES))
    means = kl.mean(axis=2)
    data = {
        "seed": seed,
        "worlds": worlds,
        "gammas": list(GAMMAS),
        "concentrability": list(COVERAGES),
        "sizes": list(SIZES),
        "methods": list(METHODS),
        "kl": means.tolist(),
    }
    write_result("winners", data, _page(data, means), out, _figure(data, means), command="editloop theory ")
    return data


def _page(data: dict[str, Any], means: Floats) -> str:
    best = means.min(axis=-1, keepdims=True)
    rows = []
    for k, n in enumerate(SIZES):
        wins = [int((means[:, :, k].argmin(axis=-1) == i).sum()) for i in range(len(METHODS))]
        regrets = (means - best)[:, :, k].max(axis=(0, 1))
        for i, name in enumerate(METHODS):
            rows.append([f"{n:,}", name, str(wins[i]), f"{regrets[i]:.3f}"])
    table = markdown_table(["rows of the log", "method", "cells that it wins", "Max SubOpt"], rows, left=2)
    cells = len(GAMMAS) * len(COVERAGES)
    axes = f"γ from {GAMMAS[0]:g} to {GAMMAS[-1]:g}, `max π*/π_ref` to {COVERAGES[-1]:g}"
    return f"""The method with the least mean SubOpt/β, which is `KL(π ‖ π*)`, in each of {cells} cells
({axes}), {data["worlds"]} random optima over 14 strings in each; RL with κ = 1. `Max SubOpt` is the
largest distance to the cell's best method, in the same unit: the most that one loses by always using it.

{table}"""


def _figure(data: dict[str, Any], means: Floats) -> Figure:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    colours = ListedColormap([colour_of(name) for name in METHODS])
    for k, axes in enumerate(figure.subplots(1, len(SIZES), sharey=True)):
        cell = means[:, :, k]
        axes.imshow(
            cell.argmin(axis=-1),
            cmap=colours,
            vmin=-0.5,
            vmax=len(METHODS) - 0.5,
            aspect="auto",
            origin="lower",
        )
        for i, j in np.ndindex(cell.shape[:2]):
            axes.text(j, i, f"{cell[i, j].min():.2g}", ha="center", va="center", fontsize=7, color="white")
        axes.set_xticks(range(len(COVERAGES)), [f"{each:g}" for each in COVERAGES])
        axes.set_yticks(range(len(GAMMAS)), [f"{gamma:g}" for gamma in GAMMAS])
        tidy(axes, f"{SIZES[k]:,} rows", "max π*/π_ref", "γ, at most γ_min" if k == 0 else "")
    handles = [Patch(color=colour_of(name), label=name) for name in METHODS]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(METHODS), fontsize=8, frameon=False)
    return figure
