"""Whether RL adds anything to SFT and DPO: emails, by the user who edited the log and by its number of rows.

The users range from weak to heavy editors. All methods are trained on every log with the settings of the
tables. On the logs of `VARIED` rows, RL is also trained with other losses, with other values of κ, and as a
third term of EarlyEnsemble. The strong user evaluates, as in Table 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import WORK
from benchmarks.cells import (
    ARMS,
    POLICIES,
    Cell,
    CellResponses,
    TableSettings,
    known,
    make_cells,
    strong_costs,
)
from benchmarks.sensitivity import WITHOUT_RL, mean_bandit_cost
from benchmarks.tables import METHODS
from editloop.online import BanditConfig
from editloop.policy import RunFolder
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOMAIN = "email"
Estimate = tuple[float, float | None]
"""A mean over seeds and its standard error, which a single seed does not have."""

USERS = ("weak", "light", "medium", "heavy")
SIZES = (100, 400, 1600)
VARIED = 400
VARIANTS: Mapping[str, tuple[tuple[str, Any], ...]] = {
    **{
        f"{loss}, κ {kappa:g}": (("methods", ("rl",)), ("rl.loss", loss), ("rl.kappa", kappa))
        for loss, kappa in (("pairwise", 0.0), ("pairwise", 1.0), ("pairwise", 2.0), ("weighted", 2.0))
    },
    "SFT + DPO + RL": (("methods", ("early",)), ("early.rl_weight", 1.0)),
}
"""Other ways to train with RL than that of the tables: changes to the configuration of the fit.

The β of the tables is kept: `make bench NAME=tune` found it to be the best for the regression, too.
"""

WEIGHTS = {
    "light": {"dpo": 0.15, "sft": 0.72, "rl": 0.13},
    "medium": {"dpo": 0.38, "sft": 0.35, "rl": 0.27},
    "heavy": {"dpo": 0.45, "sft": 0.12, "rl": 0.43},
}
"""The mixture weights that a second write-up of the paper fitted for its editors."""


def run(
    out: str | Path,
    *,
    folder: Path = WORK / "rl",
    seeds: Sequence[int] = (1, 2, 3),
    rounds: int = 200,
    log_sizes: Sequence[int] = SIZES,
    varied: int = VARIED,
    changes: Sequence[tuple[str, Any]] = (),
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `rl.json`, `rl.md` and `rl.png`.

    Args:
        out: The folder for the results.
        folder: Where the policies are trained and kept.
        seeds: Seeds of the logs, the trainings and the rounds.
        rounds: Rounds of the evaluation.
        log_sizes: Rows of the logs.
        varied: Rows of the logs on which the variants are trained.
        changes: Changes to the configuration of all fits, for a smaller experiment.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    cells = [Cell(DOMAIN, user, seed) for user in USERS for seed in seeds]
    common = TableSettings(seeds=tuple(seeds), rounds=rounds, changes=tuple(changes))
    by_size: dict[int, dict[Cell, CellResponses]] = {}
    for rows in sorted(log_sizes, reverse=True):
        callback.message(f"logs of {rows} rows")
        by_size[rows] = make_cells(cells, common._replace(folder=folder / str(rows), rows=rows), callback)
    variants: dict[str, dict[Cell, CellResponses]] = {}
    for i, (name, change) in enumerate(VARIANTS.items()):
        callback.message(f"{name}, logs of {varied} rows")
        settings = common._replace(
            folder=folder / f"{varied}-{i}", rows=varied, changes=(*common.changes, *change)
        )
        variants[name] = make_cells(cells, settings, callback)
    data: dict[str, Any] = {"seeds": list(seeds), "rounds": rounds, "varied": varied}
    data |= {part: {} for part in ("results", "variants", "weights", "mixture_costs")}
    for user in USERS:
        of_user = [cell for cell in cells if cell.trained == user]
        largest = [folder / str(max(log_sizes)) / cell.folder for cell in of_user]
        results = {
            str(rows): _figures([strong_costs(by_size[rows][cell], cell, POLICIES) for cell in of_user])
            | _cost_models([folder / str(rows) / cell.folder for cell in of_user])
            for rows in log_sizes
        }
        data["results"][user] = results
        data["variants"][user] = {
            **{name: _variant(name, made, of_user) for name, made in variants.items()},
            "weighted, κ 0": results[str(varied)]["rl"],
        }
        data["weights"][user] = _weights(largest)
        data["mixture_costs"][user] = _mixture_costs(largest)
    write_result("rl", data, _markdown(data), out, _figure(data))
    return data


def _variant(name: str, made: Mapping[Cell, CellResponses], cells: Sequence[Cell]) -> Estimate:
    """Return the mean cost of a round with the policy that a variant trains."""
    (method,) = dict(VARIANTS[name])["methods"]
    return _mean_cost([strong_costs(made[cell], cell, (method,))[:, 0] for cell in cells])


def _mean_cost(rounds: Sequence[NDArray[np.float64]]) -> Estimate:
    """Return the mean cost of a round and its standard error over seeds, from the costs of each seed [T]."""
    means = np.array([one.mean() for one in rounds])
    return mean_and_error(known(means))  # without the seeds of which `fit` left the method out


def _figures(tables: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """Return the costs of each policy and of LateEnsemble with and without RL.

    Args:
        tables: For each seed the cost of each round with each policy of `POLICIES` [T, policies].
    """
    stacked = np.stack(tables)
    late = {}
    for name, arms in (("late", ARMS), ("late without RL", WITHOUT_RL)):
        picked = stacked[:, :, [POLICIES.index(arm) for arm in arms]]
        late[name] = mean_bandit_cost(picked, BanditConfig())
    return {
        **{arm: _mean_cost([table[:, i] for table in tables]) for i, arm in enumerate(POLICIES)},
        **{name: mean_and_error(found) for name, found in late.items()},
        "RL adds": mean_and_error(late["late without RL"] - late["late"]),
    }


FIDELITY = {"R²": ("model", "r2"), "correlation": ("model", "pearson"), "R², length": ("length", "r2")}


def _cost_models(folders: Sequence[Path]) -> dict[str, Estimate | None]:
    """Return how well the cost models predict the validation rows' costs, beside the response's length."""
    found = [RunFolder(folder / "run").manifest().cost_model for folder in folders]
    figures: dict[str, Estimate | None] = {}
    for name, (part, key) in FIDELITY.items():
        # Where all costs of a log's validation part are equal, R² and the correlation are not defined.
        known = [value for each in found if each and (value := getattr(getattr(each, part), key)) is not None]
        figures[name] = mean_and_error(np.array(known)) if known else None
    return figures


def _weights(folders: Sequence[Path]) -> dict[str, Estimate]:
    """Return the weights of the mixture by likelihood."""
    found = [RunFolder(folder / "run").manifest().mixture for folder in folders]
    weights = [each.weights for each in found if each]
    return {arm: mean_and_error(np.array([each.get(arm, 0.0) for each in weights])) for arm in ARMS}


def _mixture_costs(folders: Sequence[Path]) -> dict[str, Estimate]:
    """Return the validation costs of the mixture by likelihood and of the mixture by cost.

    The latter is the best single policy: its objective is linear in the weights.
    """
    by_likelihood, by_cost = [], []
    for folder in folders:
        manifest = RunFolder(folder / "run").manifest()
        costs = {
            name: float(each.best.validation_cost)
            for name, each in manifest.policies.items()
            if each.best.validation_cost is not None
        }
        weights = manifest.mixture.weights if manifest.mixture else {}
        by_likelihood.append(sum(weight * costs[name] for name, weight in weights.items()))
        by_cost.append(min(costs.values()))
    return {
        "by likelihood": mean_and_error(np.array(by_likelihood)),
        "by cost": mean_and_error(np.array(by_cost)),
    }


def _markdown(data: Mapping[str, Any]) -> str:
    columns = {**METHODS, "late without RL": "without RL", "RL adds": "RL adds"}
    keys = [*POLICIES, "late without RL", "late", "RL adds"]
    rows = [
        [f"{user}, {size}", *(plus_minus(*figures[key]) for key in keys)]
        for user, by_size in data["results"].items()
        for size, figures in by_size.items()
    ]
    variants = [
        [user, *(plus_minus(*cell) for cell in by_name.values())]
        for user, by_name in data["variants"].items()
    ]
    weights = []
    for user, found in data["weights"].items():
        theirs = ", ".join(f"{METHODS[arm]} {weight:.2f}" for arm, weight in WEIGHTS.get(user, {}).items())
        costs = [plus_minus(*cell) for cell in data["mixture_costs"][user].values()]
        weights.append([user, *(plus_minus(*found[arm]) for arm in ARMS), theirs, *costs])
    return "\n\n".join(
        [
            f"Emails. Mean cost of a round by the strong user's edits, mean ± standard error over seeds "
            f"{', '.join(map(str, data['seeds']))}, {data['rounds']} rounds each. Each row is one log: who "
            "edited it, and its number of rows. `RL adds` is the cost of LateEnsemble without RL among its "
            "arms less that with it; it is positive where RL helps.",
            markdown_table(["log", *(columns[key] for key in keys)], rows),
            "How well the cost models predict the costs of the validation part, a tenth of the log, beside a "
            "prediction from the response's length:",
            markdown_table(
                ["log", *FIDELITY],
                [
                    [
                        f"{user}, {size}",
                        *(plus_minus(*figures[key]) if figures[key] else "–" for key in FIDELITY),
                    ]
                    for user, by_size in data["results"].items()
                    for size, figures in by_size.items()
                ],
            ),
            f"Variants of RL, on the logs of {data['varied']} rows: pairwise regression of log-ratios or "
            "likelihood weighted by e^(−f̄/β), each with and without pessimism, and RL as the third term of "
            "EarlyEnsemble. `weighted, κ 0` is the RL of the table above.",
            markdown_table(["log", *next(iter(data["variants"].values()))], variants),
            "Weights of the mixture fitted by likelihood on the validation part of the largest logs, beside "
            "those of a second write-up of the paper (other texts and editors, three policies). The last "
            "columns are the costs there of this mixture and of the one fitted by cost, which is the best "
            "single policy.",
            markdown_table(
                ["log", *(METHODS[arm] for arm in ARMS), "theirs", "cost, by likelihood", "by cost"], weights
            ),
        ]
    )


def _figure(data: Mapping[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    from editloop.offline.plots import colour_of, tidy

    figure = Figure(figsize=(11, 3), dpi=160, layout="constrained")
    axes = figure.subplots(1, len(USERS), sharey=True)
    for k, (user, by_size) in enumerate(data["results"].items()):
        sizes = [int(size) for size in by_size]
        for arm in ("base", *ARMS, "late"):
            mean, error = zip(*(figures[arm] for figures in by_size.values()), strict=True)
            axes[k].errorbar(
                sizes,
                mean,
                [each or 0.0 for each in error],
                color=colour_of(arm),
                label=METHODS[arm],
                capsize=2,
                marker="o",
                markersize=3,
            )
        axes[k].set_xscale("log")
        axes[k].set_xticks(sizes, map(str, sizes))
        axes[k].minorticks_off()
        tidy(axes[k], f"log of the {user} user", "rows", "" if k else "mean cost of a round")
    axes[0].set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return figure
