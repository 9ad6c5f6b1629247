"""How much LateEnsemble depends on its arms (`ablation`) and on α (`alpha`), with the policies of Table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bandit_settings import ALGORITHM_1
from benchmarks.cells import (
    ARM_COLUMNS,
    ARMS,
    COLUMNS,
    ORDERS,
    POLICIES,
    Late,
    TableSettings,
    column_costs,
    known,
)
from benchmarks.tables import known_mean
from editloop.offline.plots import colour_of, tidy
from editloop.online import BanditConfig
from editloop.online.algorithms import ALPHA
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WITHOUT_RL = tuple(arm for arm in ARMS if arm != "rl")
SUBSETS: tuple[tuple[str, ...], ...] = (
    *((arm,) for arm in ARMS),
    ("sft", "dpo"),
    ("sft", "rl"),
    ("dpo", "rl"),
    ("sft", "early"),
    ("dpo", "early"),
    ("sft", "dpo", "rl"),
    WITHOUT_RL,
    ARMS,
    ("base", *ARMS),
)
TITLES = tuple(column.title for column in COLUMNS)
ALPHAS = tuple(float(alpha) for alpha in np.geomspace(0.045, 4.5, 9))


def ablation(
    out: str | Path, *, settings: TableSettings | None = None, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure LateEnsemble over subsets of its arms, and write `ablation.json` and `ablation.md`."""
    settings = settings or TableSettings()
    tables, contexts, _ = column_costs(settings, "strong", callback or WarningCallback())
    single = ("base", *ARMS)
    best = np.array([np.nanmin(tables[c][:, :, : len(single)].mean(axis=1), axis=1) for c in COLUMNS])
    results, rows = [], []
    by_seed: dict[tuple[str, ...], NDArray[np.float64]] = {}
    for subset in SUBSETS:
        picked = [single.index(arm) for arm in subset]
        found, by_default = (
            np.array([mean_bandit_cost(tables[c][:, :, picked], config, contexts[c]) for c in COLUMNS])
            for config in (BanditConfig(**ALGORITHM_1), BanditConfig())
        )
        # `fit` leaves RL out where its cost model predicts nothing: the others play without it, and RL alone
        # has no costs there.
        columns = {column.title: mean_and_error(known(found[k])) for k, column in enumerate(COLUMNS)}
        by_seed[subset] = (found - best).max(axis=0)
        worst = mean_and_error(known(by_seed[subset]))
        worst_by_default = mean_and_error(known((by_default - best).max(axis=0)))
        results.append(
            {
                "arms": list(subset),
                "columns": columns,
                "max_subopt": worst,
                "max_subopt_by_default": worst_by_default,
            }
        )
        cells = [*columns.values(), worst, worst_by_default]
        rows.append([", ".join(subset), *(plus_minus(*cell) for cell in cells)])
    with_rl = mean_and_error(by_seed[ARMS] - by_seed[WITHOUT_RL])
    text = (
        f"{_lead(settings)} LateEnsemble is Algorithm 1 to the letter, and in the last column the default of "
        "`Bandit`. Max SubOpt: the largest distance to the best single policy of a column; the base "
        "counts as one. Where `fit` left RL out (see `table1`), the others play without it.\n\n"
        + markdown_table(["arms", *TITLES, "Max SubOpt", "by default"], rows)
        + "\n\nRL as a further "
        f"arm beside {', '.join(WITHOUT_RL)} changes Max SubOpt by {plus_minus(*with_rl)} (mean over seeds)."
    )
    data = {"results": results, "with_rl": with_rl, "seeds": settings.seeds, "orders": ORDERS}
    write_result("ablation", data, text, out)
    return data


def alpha(
    out: str | Path, *, settings: TableSettings | None = None, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure LateEnsemble for α over two decades, and write `alpha.json`, `alpha.md` and `alpha.png`."""
    settings = settings or TableSettings()
    tables = column_costs(settings, "strong", callback or WarningCallback()).tables
    results = {
        value: [
            mean_and_error(
                mean_bandit_cost(tables[c][:, :, ARM_COLUMNS], BanditConfig(**ALGORITHM_1, alpha=value))
            )
            for c in COLUMNS
        ]
        for value in ALPHAS
    }
    best = [
        min(known_mean(tables[column][:, :, arm].mean(axis=1)) for arm in range(len(POLICIES))[ARM_COLUMNS])
        for column in COLUMNS
    ]
    rows = [[f"{value:.3g}", *(plus_minus(*cell) for cell in cells)] for value, cells in results.items()]
    rows.append(["best arm", *(f"{mean:.3f}" for mean in best)])
    text = f"{_lead(settings)} The default is {ALPHA:g}.\n\n" + markdown_table(["α", *TITLES], rows)
    data = {
        "results": [
            {"alpha": value, "columns": dict(zip(TITLES, cells, strict=True))}
            for value, cells in results.items()
        ],
        "best_arm": dict(zip(TITLES, best, strict=True)),
        "seeds": settings.seeds,
        "orders": ORDERS,
    }
    write_result("alpha", data, text, out, _figure(results, best))
    return data


def _lead(settings: TableSettings) -> str:
    return (
        f"Mean cost of a round over {settings.rounds} rounds, mean ± standard error over seeds "
        f"{', '.join(map(str, settings.seeds))}, each the mean of {ORDERS} orders of its rounds; the "
        "policies and the user are those of Table 1."
    )


def mean_bandit_cost(
    tables: NDArray[np.float64], config: BanditConfig, contexts: Sequence[Sequence[str]] | None = None
) -> NDArray[np.float64]:
    """Return the mean cost of a round for each seed [seeds], over several random orders of the rounds.

    Args:
        tables: Costs [seeds, T, arms].
        config: The bandit's configuration.
        contexts: What is asked in each round [seeds][T], for a bandit with features.
    """
    means: NDArray[np.float64] = Late.played(tables, config, contexts).costs.mean(axis=1)
    return means


def _figure(results: Mapping[float, Sequence[tuple[float, float | None]]], best: Sequence[float]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.8), dpi=160, layout="constrained")
    axes = figure.subplots(1, len(COLUMNS))
    for k, one in enumerate(axes):
        cells = [cells[k] for cells in results.values()]
        errors = [error or 0.0 for _, error in cells]
        one.errorbar(list(results), [mean for mean, _ in cells], errors, color=colour_of("late"))
        one.axhline(best[k], color="#333", linestyle=":", linewidth=1, label="best arm")
        one.axvline(ALPHA, color="#bbb", linewidth=1, label="default")
        one.set_xscale("log")
        one.set_ylim(bottom=0)
        tidy(one, TITLES[k], "α", "" if k else "mean cost of a round")
    axes[0].legend(fontsize=7, frameon=False)
    return figure
