"""Does RL add to SFT and DPO, where, at what κ, and by which loss: emails, by user and by rows of the log.

Users go from weak to heavy editors. All methods are trained on every log with the settings of the tables; on
the logs of `VARIED` rows RL is trained in other ways, too. The strong user evaluates, as in Table 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cells import (
    ARMS,
    COMPARED,
    WORK,
    Answers,
    Cell,
    Workplace,
    make_cells,
    strong_costs,
)
from benchmarks.sensitivity import WITHOUT_RL, played
from benchmarks.tables import METHODS
from editloop.online import BanditConfig
from editloop.policy import RunFolder
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOMAIN = "email"
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
"""Ways to train with RL besides the tables': changes of the fit's configuration. The β of the tables is also
the best one of the regression by `bench tune`."""

WEIGHTS = {
    "light": {"dpo": 0.15, "sft": 0.72, "rl": 0.13},
    "medium": {"dpo": 0.38, "sft": 0.35, "rl": 0.27},
    "heavy": {"dpo": 0.45, "sft": 0.12, "rl": 0.43},
}
"""What the second write-up fitted for its editors."""


def run(
    out: str | Path,
    *,
    folder: Path = WORK / "rl",
    seeds: Sequence[int] = (1, 2, 3),
    rounds: int = 200,
    sizes: Sequence[int] = SIZES,
    varied: int = VARIED,
    changes: Sequence[tuple[str, Any]] = (),
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `rl.json`, `rl.md` and `rl.png`.

    Args:
        out: The folder for the results.
        folder: Where the policies are trained and kept.
        seeds: Of the logs, the trainings and the rounds.
        rounds: Of the evaluation.
        sizes: Rows of the logs.
        varied: Rows of the logs on which RL is trained in other ways.
        changes: Fields of all fits' configuration to change, for a trial.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    cells = [Cell(DOMAIN, user, seed) for user in USERS for seed in seeds]
    common = Workplace(seeds=tuple(seeds), rounds=rounds, changes=tuple(changes))
    answers: dict[int, dict[Cell, Answers]] = {}
    for rows in sorted(sizes, reverse=True):
        callback.message(f"logs of {rows} rows")
        answers[rows] = make_cells(cells, common._replace(folder=folder / str(rows), rows=rows), callback)
    variants: dict[str, dict[Cell, Answers]] = {}
    for i, (name, change) in enumerate(VARIANTS.items()):
        callback.message(f"{name}, logs of {varied} rows")
        place = common._replace(
            folder=folder / f"{varied}-{i}", rows=varied, changes=(*common.changes, *change)
        )
        variants[name] = make_cells(cells, place, callback)
    results: dict[str, dict[str, Any]] = {}
    for user in USERS:
        mine = [cell for cell in cells if cell.trained == user]
        results[user] = {
            str(rows): _figures([strong_costs(answers[rows][cell], cell, COMPARED) for cell in mine])
            | _told([folder / str(rows) / cell.folder for cell in mine])
            for rows in sizes
        }
    ways = {
        user: {
            name: _pay(
                [
                    strong_costs(made[cell], cell, ("early" if "SFT" in name else "rl",))[:, 0]
                    for cell in cells
                    if cell.trained == user
                ]
            )
            for name, made in variants.items()
        }
        for user in USERS
    }
    for user, by_way in ways.items():
        by_way["weighted, κ 0"] = results[user][str(varied)]["rl"]
    weights = {
        user: _weights([folder / str(max(sizes)) / cell.folder for cell in cells if cell.trained == user])
        for user in USERS
    }
    data = {"seeds": list(seeds), "rounds": rounds, "varied": varied}
    mixed = {
        user: _mixed([folder / str(max(sizes)) / cell.folder for cell in cells if cell.trained == user])
        for user in USERS
    }
    data |= {"results": results, "ways": ways, "weights": weights, "mixed": mixed}
    write_result("rl", data, _markdown(data), out, _figure(data))
    return data


def _pay(rounds: Sequence[NDArray[np.float64]]) -> tuple[float, float | None]:
    """Mean cost of a round and its standard error over seeds, from the rounds of each [T]."""
    return mean_and_error(np.array([one.mean() for one in rounds]))


def _figures(tables: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """What each policy costs, and LateEnsemble with and without RL; of seeds' tables [T, policies]."""
    stacked = np.stack(tables)
    late = {}
    for name, arms in (("late", ARMS), ("late without RL", WITHOUT_RL)):
        picked = stacked[:, :, [COMPARED.index(arm) for arm in arms]]
        late[name] = played(picked, BanditConfig())
    return {
        **{arm: _pay([table[:, i] for table in tables]) for i, arm in enumerate(COMPARED)},
        **{name: mean_and_error(found) for name, found in late.items()},
        "RL adds": mean_and_error(late["late without RL"] - late["late"]),
    }


TOLD = {"R²": ("model", "r2"), "correlation": ("model", "pearson"), "R², length": ("length", "r2")}


def _told(folders: Sequence[Path]) -> dict[str, tuple[float, float | None] | None]:
    """What the cost models explain of the validation rows' costs, mean and standard error over seeds."""
    found = [RunFolder(folder / "run").manifest().cost_model for folder in folders]
    told: dict[str, tuple[float, float | None] | None] = {}
    for name, (part, key) in TOLD.items():
        known = [getattr(getattr(each, part), key) for each in found if each]
        told[name] = mean_and_error(np.array(known)) if known else None  # of equal costs nothing is told
    return told


def _weights(folders: Sequence[Path]) -> dict[str, tuple[float, float | None]]:
    """The mixture's weights, mean and standard error over seeds."""
    found = [RunFolder(folder / "run").manifest().mixture for folder in folders]
    weights = [each.weights for each in found if each]
    return {arm: mean_and_error(np.array([each.get(arm, 0.0) for each in weights])) for arm in ARMS}


def _mixed(folders: Sequence[Path]) -> dict[str, tuple[float, float | None]]:
    """What mixtures cost on the validation part: by likelihood, and by cost, the best policy's."""
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
    keys = [*COMPARED, "late without RL", "late", "RL adds"]
    rows = [
        [f"{user}, {size}", *(plus_minus(*figures[key]) for key in keys)]
        for user, by_size in data["results"].items()
        for size, figures in by_size.items()
    ]
    ways = [[user, *(plus_minus(*cell) for cell in by_way.values())] for user, by_way in data["ways"].items()]
    weights = []
    for user, found in data["weights"].items():
        theirs = WEIGHTS.get(user)
        told = ", ".join(f"{METHODS[arm]} {weight:.2f}" for arm, weight in theirs.items()) if theirs else ""
        costs = [plus_minus(*cell) for cell in data["mixed"][user].values()]
        weights.append([user, *(plus_minus(*found[arm]) for arm in ARMS), told, *costs])
    return "\n\n".join(
        [
            f"Emails. Mean cost of a round by the strong user's edits, mean ± standard error over seeds "
            f"{', '.join(map(str, data['seeds']))}, {data['rounds']} rounds each. Rows: who edited the log, "
            "and its size. `RL adds`: LateEnsemble without RL among its arms less that with it (above "
            "0: RL helps).",
            markdown_table(["log", *(columns[key] for key in keys)], rows),
            "The cost models on the validation parts, a tenth of the log, beside what a response's length "
            "tells:",
            markdown_table(
                ["log", *TOLD],
                [
                    [f"{user}, {size}", *(plus_minus(*figures[key]) if figures[key] else "–" for key in TOLD)]
                    for user, by_size in data["results"].items()
                    for size, figures in by_size.items()
                ],
            ),
            f"Ways to train with RL, on the logs of {data['varied']} rows: pairwise regression of log-ratios "
            "or likelihood weighted by e^(−f̄/β), with and without pessimism, and RL as the third term of "
            "EarlyEnsemble. `weighted, κ 0` is RL as it is above.",
            markdown_table(["log", *next(iter(data["ways"].values()))], ways),
            "Weights of the mixture fitted by likelihood on the validation part of the largest logs, beside "
            "those of the second write-up (other texts and editors; three policies). Then what the mixture "
            "costs there, and what one does that is fitted by cost: the best single policy's.",
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
