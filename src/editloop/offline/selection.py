"""Train every trial of a method and keep the best of them on the validation part."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editloop.offline.alarms import SampleCheck, raise_alarms
from editloop.offline.config import FitConfig
from editloop.offline.data import FitData, trial_rows
from editloop.offline.trial import finished_result, train_trial
from editloop.policy import Policy, RunFolder, processes
from editloop.policy.manifest import PolicyRecord
from editloop.progress import ProgressCallback

__all__ = ["train_method"]


def train_method(
    run: RunFolder,
    policy: Policy,
    name: str,
    config: FitConfig,
    data: FitData,
    base_samples: SampleCheck | None,
    callback: ProgressCallback,
) -> PolicyRecord:
    """Train every trial of a method, save the policy of the best, and raise its alarms.

    Args:
        run: The run folder.
        policy: The base.
        name: The method's name.
        config: The fit's configuration.
        data: The fit's data, from `add_estimates`.
        base_samples: What sampled responses of the base look like; alarms compare with them.
        callback: Receives progress and alarms.

    Returns:
        The record of the policy for `run.json`.
    """
    trials = config.trials(name)
    results: list[dict[str, Any]] = []
    for trial in trials:
        folder = run.work / name / trial.name
        label = f"{name} {trial.name}" if len(trials) > 1 else name
        result = finished_result(folder)
        if result is None:
            rows = trial_rows(trial, policy, data, callback)
            result = train_trial(folder, policy, trial, config, rows, label, callback)
        else:
            callback.message(f"{label}: finished by an earlier process")
        results.append(result)
    criterion = "validation_loss" if config.select == "loss" else "validation_cost"
    best, figure = _best([result[criterion] for result in results])
    chosen = run.work / name / trials[best].name / "policy"
    state = processes(policy.device)
    # Copied and not moved: after a kill before the next manifest, the trial's policy is still in its place.
    if state.is_main_process:
        run.save_policy(name, lambda fresh: _copy(chosen, fresh))
    state.wait_for_everyone()
    result = results[best]
    alarms = raise_alarms(
        initial_loss=result["initial_loss"],
        best_loss=result["validation_loss"],
        figures=result["validation"],
        sampled=SampleCheck.from_json(result["sampled"]) if result["sampled"] else None,
        base=base_samples,
    )
    callback.message(
        f"{name}: {criterion.replace('_', ' ')} {figure:.4f} with {trials[best].name}"
        + (f", the best of {len(trials)}" if len(trials) > 1 else "")
    )
    for alarm in alarms:
        callback.warn(f"{name}: {alarm}")
    record = {"chosen": best, "selected_by": config.select, "alarms": alarms, "trials": results}
    return PolicyRecord.model_validate(record, strict=False)


def _best(figures: Sequence[float | None]) -> tuple[int, float]:
    """The index of the lowest figure, and the figure."""
    # A trial that diverged has a loss of NaN and no cost. Its policy is kept, with an alarm, only if all
    # trials diverged. NaN is replaced for the comparison, because `min` returns a NaN that comes first.
    known = [math.nan if figure is None else figure for figure in figures]
    best = min(range(len(known)), key=lambda i: math.inf if math.isnan(known[i]) else known[i])
    return best, known[best]


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)
