"""What a sweep found: a table of all its fits by what they validated, as Markdown, JSON and a figure.

Fits are compared on their validation parts alone. Those of one setting with different seeds are one line,
with the standard error of their mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from editloop.errors import RunError
from editloop.extras import requires
from editloop.io import write_bytes, write_json, write_text
from editloop.offline.methods import METHODS
from editloop.offline.sweep.grid import SweepRun
from editloop.policy import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from editloop.policy.manifest import TrialRecord

__all__ = ["Line", "compare", "write_comparison"]

SEED = "seed"
"""The field of a grid that makes no setting of its own."""


@dataclass(frozen=True)
class Line:
    """A method in one setting of a sweep.

    Attributes:
        setting: The values of the grid without the seed.
        method: The method.
        chosen: What its best trials had in place of their grids, one for each fit.
        costs: Validation cost of each fit, a mean over sampled responses; empty if one has none.
        losses: Validation loss of each fit.
        loss_keys: Lines with one equal key have the same loss.
        is_best: Whether it has the least cost of all; without costs, the least loss of its method.
    """

    setting: Mapping[str, Any]
    method: str
    chosen: tuple[str, ...]
    costs: tuple[float, ...]
    losses: tuple[float, ...]
    loss_keys: tuple[tuple[str, ...], ...] = ()
    is_best: bool = False

    @property
    def label(self) -> str:
        """The setting in a line."""
        return ", ".join(f"{name}={value}" for name, value in self.setting.items()) or "all"

    def to_json(self) -> dict[str, Any]:
        """Return the line as JSON types."""
        return {
            "setting": dict(self.setting),
            "method": self.method,
            "chosen": list(self.chosen),
            "validation_costs": list(self.costs),
            "validation_losses": list(self.losses),
            "best": self.is_best,
        }


def compare(out: Path, runs: Sequence[SweepRun]) -> list[Line]:
    """Return what the finished fits of a sweep validated, the best lines marked.

    The validation cost decides if every fit has one, because it means the same for all methods. Losses are
    compared within a method only, and not at all if the lines differ in what changes the loss itself.

    Args:
        out: The sweep's folder.
        runs: Its finished runs.

    Raises:
        RunError: A run folder is damaged.
    """
    found: dict[tuple[Any, ...], list[tuple[SweepRun, TrialRecord]]] = {}
    for run in runs:
        for name, policy in RunFolder(out / run.name).manifest().policies.items():
            setting = tuple((key, str(value)) for key, value in run.values.items() if key != SEED)
            found.setdefault((name, setting), []).append((run, policy.best))
    lines = []
    for (method, _), pairs in found.items():
        trials = [trial for _, trial in pairs]
        costs = [trial.validation_cost for trial in trials if trial.validation_cost is not None]
        lines.append(
            Line(
                {key: value for key, value in pairs[0][0].values.items() if key != SEED},
                method,
                tuple(dict.fromkeys(trial.settings for trial in trials)),
                tuple(costs) if len(costs) == len(trials) else (),
                tuple(math.inf if t.validation_loss is None else t.validation_loss for t in trials),
                tuple(dict.fromkeys(_loss_key(method, trial) for trial in trials)),
            )
        )
    best = _best(lines)
    return [replace(line, is_best=i in best) for i, line in enumerate(lines)]


def _loss_key(method: str, trial: TrialRecord) -> tuple[str, ...]:
    """Return what decides which function a trial's loss is, as `Trial.loss_key` does."""
    model = METHODS.get(method).hyperparameters
    fields = [name for name in model.model_fields if not model.extra(name)["comparable"]]
    return tuple(str(trial.hyperparameters.get(name)) for name in fields)


def _best(lines: Sequence[Line]) -> set[int]:
    """Return the places of the best lines."""
    if lines and all(line.costs for line in lines):
        return {min(range(len(lines)), key=lambda i: float(np.mean(lines[i].costs)))}
    best = set()
    for method in {line.method for line in lines}:
        mine = [i for i, line in enumerate(lines) if line.method == method]
        if len({key for i in mine for key in lines[i].loss_keys}) == 1:
            best.add(min(mine, key=lambda i: float(np.mean(lines[i].losses))))
    return best


def write_comparison(out: Path, runs: Sequence[SweepRun], failed: Mapping[str, str]) -> list[Line]:
    """Write `sweep.md`, `results.json` and `sweep.png`; return the lines.

    Args:
        out: The sweep's folder.
        runs: All its runs.
        failed: Why those failed that are not done, by name.

    Raises:
        RunError: A run folder is damaged, or the folder cannot be written.
    """
    lines = compare(out, [run for run in runs if run.name not in failed])
    content = {"lines": [line.to_json() for line in lines], "failed": dict(failed), "runs": len(runs)}
    write_json(out / "results.json", content, RunError)
    write_text(out / "sweep.md", markdown(lines, failed, len(runs)), RunError)
    if lines:
        requires("plots")
        from editloop.offline.plots import figure_png

        write_bytes(out / "sweep.png", figure_png(figure(lines)), RunError)
    return lines


def markdown(lines: Sequence[Line], failed: Mapping[str, str], runs: int) -> str:
    """Return the table as Markdown."""
    fields = list(dict.fromkeys(name for line in lines for name in line.setting))
    heads = [*fields, "method", "fits", "validation cost", "validation loss", "settings", "best"]
    table = [heads, [*("---" for _ in fields), "---", "--:", "--:", "--:", "---", "---"]]
    for line in lines:
        values = [str(line.setting.get(name, "")) for name in fields]
        cost, loss = show(line.costs), show(line.losses)
        chosen = "; ".join(line.chosen)
        table.append(
            [*values, line.method, str(len(line.losses)), cost, loss, chosen, "best" if line.is_best else ""]
        )
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    done = f"{runs - len(failed)} of {runs} fits are done. All figures are of the fits' validation parts"
    said = [f"- {name} failed: {reason}" for name, reason in failed.items()]
    seeds = "; ± is the standard error over seeds, each of which has a validation part of its own."
    return "\n".join(["# Sweep", "", f"{done}{seeds}", "", *rows, *(["", *said] if said else []), ""])


def show(values: Sequence[float]) -> str:
    """Return a mean, with its standard error if there are several values."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.4f}"


def figure(lines: Sequence[Line]) -> Figure:
    """Return a figure of the costs, or losses where a fit has no cost: a panel for each method."""
    from matplotlib.figure import Figure

    from editloop.offline.plots import colour_of, tidy

    by_cost = all(line.costs for line in lines)
    methods = list(dict.fromkeys(line.method for line in lines))
    height = 1.1 + 0.28 * max(sum(line.method == method for line in lines) for method in methods)
    made = Figure(figsize=(3.6 * max(len(methods), 2), height), dpi=160, layout="constrained")
    for i, method in enumerate(methods):
        axes = made.add_subplot(1, max(len(methods), 2), i + 1)
        mine = [line for line in lines if line.method == method]
        for place, line in enumerate(mine):
            values = line.costs if by_cost else line.losses
            axes.plot(values, [place] * len(values), "o", color=colour_of(method), alpha=0.4, markersize=4)
            axes.plot([np.mean(values)], [place], "D" if line.is_best else "|", color=colour_of(method))
        axes.set_yticks(range(len(mine)), [line.label for line in mine])
        axes.invert_yaxis()
        tidy(axes, method, "validation cost" if by_cost else "validation loss")
    return made
