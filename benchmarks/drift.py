"""LateEnsemble with a user whose preferences change, at several discounts.

The user begins with the preferences of a domain and ends with the shifted ones of `Domain.shifted`. The arms
are policies from two logs: one of a strong user with the first preferences, one of a strong user with the
last. A team is in this situation if it trains again and keeps its old policies as arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bandit_settings import ALGORITHM_1
from benchmarks.cells import (
    DOMAINS,
    EVALUATION,
    Cell,
    CellResponses,
    TableSettings,
    cost_table,
    incurred_cost,
    make_cells,
    play,
)
from editloop.edits import get_cost
from editloop.lab import get_domain
from editloop.offline.plots import tidy
from editloop.online import BanditConfig
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import (
    markdown_table,
    mean_and_error,
    plus_minus,
    recent_mean,
    write_result,
)
from editloop.users import DriftingUser, User, get_user

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DISCOUNTS = (1.0, 0.99, 0.97, 0.95, 0.9)
ARMS = ("sft", "dpo", "early")
"""The policies of each log that are arms."""
CHANGES = {"none": (1.0, 0.0), "abrupt": (0.5, 0.0), "gradual": (0.25, 0.5)}
"""When a change begins and how long it lasts, in shares of the rounds."""
WINDOW = 20
"""Rounds over which each point of the figure is averaged."""


def run(
    out: str | Path, *, settings: TableSettings | None = None, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure, and write `drift.json`, `drift.md` and `drift.png`.

    Args:
        out: The folder for the results.
        settings: Where the policies are kept, and the size of the experiment.
        callback: Receives progress.
    """
    settings = settings or TableSettings()
    pairs = [
        tuple(Cell(domain, "strong", seed, shifted) for shifted in (False, True))
        for domain in DOMAINS
        for seed in settings.seeds
    ]
    callback = callback or WarningCallback()
    made = make_cells([before for before, _ in pairs], settings, callback)
    others = settings._replace(changes=(("methods", ARMS), *settings.changes))
    made |= make_cells([after for _, after in pairs], others, callback)
    tables = {
        change: np.stack([_table(before, made, change, settings) for before, _ in pairs])
        for change in CHANGES
    }
    by_round = {change: _learners(table) for change, table in tables.items()}
    results = {
        change: {name: mean_and_error(costs.mean(axis=1)) for name, costs in learners.items()}
        for change, learners in by_round.items()
    }
    names = list(results["none"])
    rows = [[name, *(plus_minus(*results[change][name]) for change in CHANGES)] for name in names]
    text = (
        f"Mean cost of a round over {settings.rounds} rounds, mean ± standard error over {len(pairs)} "
        f"pairs of logs (two domains, seeds {', '.join(map(str, settings.seeds))}). LateEnsemble chooses "
        "among the policies of both logs, three each. The best single arm is found in hindsight, pair by "
        "pair. The best of each round is not an algorithm but a lower bound: no algorithm can cost less.\n\n"
        + markdown_table(["", *CHANGES], rows)
    )
    data = {"results": results, "seeds": settings.seeds}
    write_result("drift", data, text, out, _figure(by_round))
    return data


def _table(
    before: Cell, made: Mapping[Cell, CellResponses], change: str, settings: TableSettings
) -> NDArray[np.float64]:
    """Return the cost of each round with the policies of both logs [T, 2 · arms]."""
    domain, seed = get_domain(before.domain), EVALUATION + before.seed
    start, over = (round(share * settings.rounds) for share in CHANGES[change])
    user: User = DriftingUser(
        get_user("strong", domain, seed=seed),
        get_user("strong", domain.shifted(), seed=seed),
        start=start,
        over=over,
        seed=seed,
    )
    cells, cost = (before, before._replace(shifted=True)), get_cost(domain.cost)
    return np.hstack([cost_table(made[cell], user, ARMS, cost) for cell in cells])


def _learners(tables: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return the cost of each round [pairs, T] under each way of choosing, from costs [pairs, T, arms]."""
    found = {}
    for discount in DISCOUNTS:
        config = BanditConfig(**ALGORITHM_1, discount=discount)
        name = "LateEnsemble" if discount == 1 else f"LateEnsemble, discount {discount:g}"
        found[name] = np.stack([incurred_cost(table, play(table, config)) for table in tables])
    found["uniform"] = tables.mean(axis=2)
    found["best single arm"] = np.stack([table[:, table.mean(axis=0).argmin()] for table in tables])
    found["best of each round"] = tables.min(axis=2)
    return found


def _figure(by_round: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> Figure:
    """The moving average of the cost, by round."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), dpi=160, layout="constrained")
    axes: Sequence[Any] = figure.subplots(1, len(by_round), sharey=True)
    shown = [f"LateEnsemble{end}" for end in ("", ", discount 0.97", ", discount 0.9")]
    for k, (one, (change, learners)) in enumerate(zip(axes, by_round.items(), strict=True)):
        for i, name in enumerate([*shown, "best single arm"]):
            mean = learners[name].mean(axis=0)
            smooth = recent_mean(mean, WINDOW)
            colour = "#333" if name == "best single arm" else colormaps["plasma"](i / 3.5)
            style = ":" if name == "best single arm" else "-"
            one.plot(np.arange(1, len(mean) + 1), smooth, style, color=colour, label=name, linewidth=1.5)
        tidy(one, f"change: {change}", "round", "" if k else f"cost, mean of the last {WINDOW}")
    axes[0].set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure
