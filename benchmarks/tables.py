"""Tables 1 and 2 of the paper in the lab: the cost of each method, by domain and by who edited the log.

In Table 1 the strong user evaluates every column. In Table 2 a user evaluates whose edits no policy was
trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bandit_settings import ALGORITHM_1
from benchmarks.cells import (
    ARM_COLUMNS,
    ARMS,
    COLUMNS,
    DOMAINS,
    ORDERS,
    POLICIES,
    Column,
    Late,
    TableSettings,
    column_costs,
    known,
)
from editloop.lab import get_domain
from editloop.lab.settings import COST
from editloop.offline import methods
from editloop.offline.plots import colour_of, tidy
from editloop.online import BanditConfig
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, plus_minus, recent_mean, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = {
    "base": "Base",
    "sft": "SFT",
    "dpo": "DPO",
    "rl": "RL",
    "early": "EarlyEnsemble",
    "mixture": "Mixture",
    "late": "LateEnsemble",
}
DEFAULT = "default"
ROWS = METHODS | {DEFAULT: "LateEnsemble, our default"}
"""The rows of a table. Algorithm 1 to the letter is `late`; `default` is what `Bandit` does by default."""

LATE = {"late": BanditConfig(**ALGORITHM_1), DEFAULT: BanditConfig()}
"""The configurations of the online phase."""

PAPER = {
    "base": (0.9455, 0.9445, 0.5108, 0.4923, 0.7364),
    "sft": (0.5377, 0.9304, 0.4159, 0.4539, 0.5772),
    "dpo": (1.0790, 0.8267, 0.3365, 0.3368, 0.8698),
    "early": (0.2092, 0.3586, 0.3438, 0.4864, 0.1612),
    "late": (0.2768, 0.4403, 0.4202, 0.3739, 0.1586),
}
"""Table 1 of the paper, which has neither RL nor the mixture: the columns in our order, then Max SubOpt."""

WINDOW = 20
"""Rounds over which the share of an arm is averaged in the figure."""

Costs = Mapping[Column, Mapping[str, NDArray[np.float64]]]
"""The cost of each round [seeds, T], by column and method."""

Shares = Mapping[Column, Mapping[str, NDArray[np.float64]]]
"""How often each arm is played in a round [T, arms], by column and by the name of the online phase."""


def table1(
    out: str | Path, *, settings: TableSettings | None = None, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure and write `table1.json`, `table1.md` and `table1.png`.

    Args:
        out: The folder for the results.
        settings: Where the policies are kept, and the size of the experiment.
        callback: Receives progress.
    """
    lead = "Evaluated by the strong user in all columns; the columns differ in who edited the log."
    return _table("table1", "strong", lead, out, settings or TableSettings(), callback or WarningCallback())


def table2(
    out: str | Path, *, settings: TableSettings | None = None, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """As `table1`, evaluated by a user who leaves at most two wrong attributes, or else corrects them all."""
    lead = (
        "Evaluated by `other`, a user on whose edits no policy was trained: they leave a response with at "
        "most two wrong attributes as it is, and otherwise correct all of them. The policies are those of "
        "Table 1."
    )
    return _table("table2", "other", lead, out, settings or TableSettings(), callback or WarningCallback())


def _table(
    name: str, evaluator: str, lead: str, out: str | Path, settings: TableSettings, callback: ProgressCallback
) -> dict[str, Any]:
    tables, contexts, seconds = column_costs(settings, evaluator, callback)
    costs: dict[Column, dict[str, NDArray[np.float64]]] = {}
    shares: dict[Column, dict[str, NDArray[np.float64]]] = {}
    for column, table in tables.items():
        late = {
            name: Late.played(table[:, :, ARM_COLUMNS], config, contexts[column])
            for name, config in LATE.items()
        }
        fixed = {method: table[:, :, i] for i, method in enumerate(POLICIES)}
        costs[column] = fixed | {name: each.costs for name, each in late.items()}
        shares[column] = {name: each.shares.mean(axis=0) for name, each in late.items()}
    cells = {"cells": len(COLUMNS) * len(settings.seeds), "seconds": round(seconds, 1)}
    data = {"evaluator": evaluator, "seeds": settings.seeds, **cells, **_numbers(costs, shares)}
    write_result(name, data, _markdown(name, lead, data, settings), out, _figure(costs, shares))
    return data


def max_subopt(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each method is from the best method of a column, at most, by seed [methods, seeds].

    Args:
        means: Mean costs [methods, columns, seeds]; NaN where there is no such policy.

    Returns:
        NaN for a method and a seed that lacks the policy in a column: its other columns would flatter it.
    """
    found: NDArray[np.float64] = (means - np.nanmin(means, axis=0)).max(axis=1)
    return found


def _numbers(costs: Costs, shares: Shares) -> dict[str, Any]:
    means = np.array([[costs[column][method].mean(axis=1) for column in COLUMNS] for method in ROWS])
    worst = max_subopt(means)
    by_arm = [[known_mean(means[i, k]) for k in range(len(COLUMNS))] for i in range(len(ROWS))[ARM_COLUMNS]]
    best_arm = np.nanmin(np.array(by_arm), axis=0)
    missing = {c.title: int(np.isnan(costs[c]["rl"]).any(axis=1).sum()) for c in COLUMNS}
    return {
        "without_rl": {title: count for title, count in missing.items() if count},
        "methods": {
            method: {
                "columns": {c.title: spread(means[i, k]) for k, c in enumerate(COLUMNS)},
                "max_subopt": spread(worst[i]),
            }
            for i, method in enumerate(ROWS)
        },
        "shares": {
            name: {
                c.title: dict(zip(ARMS, shares[c][name].mean(axis=0).tolist(), strict=True)) for c in COLUMNS
            }
            for name in LATE
        },
        "above_best_arm": {
            name: {
                c.title: float(means[list(ROWS).index(name), k].mean() - best_arm[k])
                for k, c in enumerate(COLUMNS)
            }
            for name in LATE
        },
    }


def known_mean(values: NDArray[np.float64]) -> float:
    """Return the mean of values [n] without those that are NaN; NaN if all are."""
    left = known(values)
    return float(left.mean()) if len(left) else float("nan")


def spread(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return the mean of values [seeds], their standard deviation if there are several, and the values.

    A NaN is a seed without the policy: it is None among the values, and does not count.
    """
    left = known(values)
    sd = float(left.std(ddof=1)) if len(left) > 1 else None
    by_seed = [None if np.isnan(value) else float(value) for value in values]
    return {"mean": known_mean(values), "sd": sd, "by_seed": by_seed}


def _markdown(name: str, lead: str, data: Mapping[str, Any], settings: TableSettings) -> str:
    titles = [column.title for column in COLUMNS]
    headings = ["method", *titles, "Max SubOpt"]
    rows = []
    for method, label in ROWS.items():
        row = data["methods"][method]
        spreads = [*(row["columns"][title] for title in titles), row["max_subopt"]]
        rows.append([label, *(plus_minus(each["mean"], each["sd"]) for each in spreads)])
    shares = [
        [f"{METHODS[arm]}, {ROWS[name]}", *(f"{data['shares'][name][title][arm]:.0%}" for title in titles)]
        for name in LATE
        for arm in ARMS
    ]
    above = [
        [ROWS[name], *(f"{data['above_best_arm'][name][title]:+.3f}" for title in titles)] for name in LATE
    ]
    rl = "; ".join(f"{domain}, {_tuned(domain)}" for domain in DOMAINS)
    text = [
        f"Mean cost of a round ({COST}), mean ± sd over seeds "
        f"{', '.join(map(str, settings.seeds))}; {settings.rounds} rounds each; lower is better. {lead} Max "
        "SubOpt is the largest distance to the best method of a column, by seed. LateEnsemble chooses among "
        "SFT, DPO, RL and EarlyEnsemble, by Algorithm 1 to the letter or by our default, which knows the "
        f"contexts; it is the mean over {ORDERS} orders of each seed's rounds. Mixture samples from them "
        f"with weights fitted by likelihood on the validation part. RL: {rl}.{_left_out(data['without_rl'])}",
        markdown_table(headings, rows),
        "Less the best of its arms, which is the arm with the least mean over seeds:",
        markdown_table(["cost above the best arm", *titles], above),
        markdown_table(["share of the rounds", *titles], shares),
        f"Making the {data['cells']} logs, training the policies and sampling their responses took "
        f"{data['seconds'] / 60:.0f} min in all, summed over processes that ran at the same time, each "
        "since its last start.",
    ]
    if name == "table1":
        paper = [[METHODS[method], *(f"{x:.3f}" for x in row)] for method, row in PAPER.items()]
        text += [
            "The paper's table, for comparison; it has another base and other users:",
            markdown_table(headings, paper),
        ]
    return "\n\n".join(text)


def _left_out(without: Mapping[str, int]) -> str:
    if not without:
        return ""
    where = ", ".join(f"{count} of the seeds of {title}" for title, count in without.items())
    return (
        f" `fit` left RL out of {where}, where its cost model predicts nothing; its figures are those of the "
        "other seeds, and LateEnsemble has one arm less there."
    )


def _tuned(domain: str) -> str:
    """The hyperparameters of RL in a domain, in words."""
    method = methods.METHODS.get("rl")
    return method.report_line(method.hyperparameters(**get_domain(domain).tuned["rl"]))


def _figure(costs: Costs, shares: Shares) -> Figure:
    """The cumulative cost by round, mean and sd over seeds, above the share of each arm with Algorithm 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=160, layout="constrained")
    axes = figure.subplots(2, len(COLUMNS), sharex=True, height_ratios=(1.6, 1))
    for k, column in enumerate(COLUMNS):
        upper, lower = axes[0, k], axes[1, k]
        for method, label in METHODS.items():
            if method == "mixture":
                continue  # Its line lies between those of its policies and would only crowd the figure.
            total = costs[column][method].cumsum(axis=1)
            rounds = np.arange(1, total.shape[1] + 1)
            total = total[~np.isnan(total).any(axis=1)]
            mean, sd = total.mean(axis=0), total.std(axis=0, ddof=1) if len(total) > 1 else 0.0
            wide = 2.2 if method == "late" else 1.3
            upper.plot(rounds, mean, color=colour_of(method), label=label, linewidth=wide)
            upper.fill_between(rounds, mean - sd, mean + sd, color=colour_of(method), alpha=0.15, linewidth=0)
        tidy(upper, column.title, "", "" if k else "cumulative cost")
        smooth = np.stack([recent_mean(row, WINDOW) for row in shares[column]["late"].T])
        lower.stackplot(rounds, smooth, colors=[colour_of(arm) for arm in ARMS], alpha=0.85)
        lower.set_ylim(0, 1)
        lower.set_xlim(1, len(rounds))
        tidy(lower, "", "round", "" if k else "share of rounds")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(METHODS) - 1, fontsize=8, frameon=False
    )
    return figure
