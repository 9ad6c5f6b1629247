"""Train the trials of a method and keep the best of them on the validation part.

If validation losses decide, the trials are compared while they train (successive halving): the half with the
higher validation figure is dropped at a quarter of the steps, and with more than two trials also at an
eighth, a sixteenth and so on. The others go on from their checkpoints, so what is kept is the same policy
that a whole training would have given.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editloop.offline.alarms import SampleCheck, raise_alarms
from editloop.offline.arguments import training_length
from editloop.offline.config import FitConfig, Trial
from editloop.offline.data import FitData, trial_rows
from editloop.offline.schedule import rung_steps
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
    """Train the trials of a method, save the policy of the best, and raise its alarms.

    Long because it names all that a training gets and a record holds.

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
    trainings = [
        _Training(
            trial=trial.settled(data.train.examples),
            folder=run.work / name / trial.name,
            label=f"{name} {trial.name}" if len(trials) > 1 else name,
            policy=policy,
            config=config,
            data=data,
            callback=callback,
        )
        for trial in trials
    ]
    finalists = _halved(trainings, config, callback) if config.is_halved else trainings
    for training in finalists:
        training.run()
    criterion = "validation_loss" if config.select == "loss" else "validation_cost"
    best, figure = _best([training.result[criterion] for training in finalists])
    chosen = finalists[best]
    state = processes(policy.device)
    # Copied and not moved: after a kill before the next manifest, the trial's policy is still in its place.
    if state.is_main_process:
        run.save_policy(name, lambda fresh: _copy(chosen.folder / "policy", fresh))
    state.wait_for_everyone()
    result = chosen.result
    alarms = raise_alarms(
        initial_loss=result["initial_loss"],
        best_loss=result["validation_loss"],
        figures=result["validation"],
        sampled=SampleCheck.from_json(result["sampled"]) if result["sampled"] else None,
        base=base_samples,
    )
    callback.message(
        f"{name}: {criterion.replace('_', ' ')} {figure:.4f} with {chosen.trial.name}"
        + (f", the best of {len(trials)}" if len(trials) > 1 else "")
    )
    for alarm in alarms:
        callback.warn(f"{name}: {alarm}")
    record = {
        "chosen": trainings.index(chosen),
        "selected_by": config.select,
        "alarms": alarms,
        "trials": [training.result for training in trainings],
    }
    return PolicyRecord.model_validate(record, strict=False)


@dataclass(eq=False)  # two trainings are never the same one
class _Training:
    """The training of one trial, which can stop at a step and go on later.

    Attributes:
        trial: The method and its hyperparameters.
        folder: The folder of its checkpoints, its policy and its result.
        label: Its name in messages.
        result: Its figures where it stopped last.
    """

    trial: Trial
    folder: Path
    label: str
    policy: Policy
    config: FitConfig
    data: FitData
    callback: ProgressCallback
    result: dict[str, Any] = field(default_factory=dict)

    def rungs(self, rivals: int) -> list[int]:
        """The steps at which it is compared with its rivals, itself among them."""
        rows = sum(map(self.trial.method.rows, self.data.train.examples))
        world = processes(self.policy.device).num_processes
        steps, every = training_length(self.config, rows, world, self.trial.hyperparameters.epochs)
        return rung_steps(steps, rivals, every)

    def run(self, until: int | None = None) -> None:
        """Train up to a step, or to the end; what an earlier process has done is not done again."""
        result = finished_result(self.folder, until)
        if result is None:
            rows = trial_rows(self.trial, self.policy, self.data, self.callback)
            result = train_trial(
                self.folder, self.policy, self.trial, self.config, rows, self.label, self.callback, until
            )
        elif until is None:
            self.callback.message(f"{self.label}: finished by an earlier process")
        # The file of a rung or of the end has the seconds since the rung before.
        self.result = result | {"seconds": self.result.get("seconds", 0.0) + result["seconds"]}


def _halved(
    rivals: Sequence[_Training], config: FitConfig, callback: ProgressCallback
) -> Sequence[_Training]:
    """Those of comparable trainings that are worth training to the end; all, if steps are too few."""
    if len(rivals) < 2:
        return rivals
    # Trials with other numbers of passes have rungs at other steps, each at the same share of its training.
    rungs = [each.rungs(len(rivals)) for each in rivals]
    left = list(range(len(rivals)))
    for rung in range(min(map(len, rungs))):
        for i in left:
            rivals[i].run(until=rungs[i][rung])
        # A trial that diverged has NaN, and is dropped first. In a tie the earlier trial stays.
        figures = [_or_infinity(rivals[i].result["validation_loss"]) for i in left]
        ranked = [i for _, i in sorted(zip(figures, left, strict=True), key=lambda pair: pair[0])]
        left = sorted(ranked[: math.ceil(len(ranked) / 2)])
        for i in ranked[len(left) :]:
            rivals[i].result["dropped"] = True
            callback.message(f"{rivals[i].label}: dropped after {rivals[i].result['steps']} steps")
    return [rivals[i] for i in left]


def _best(figures: Sequence[float | None]) -> tuple[int, float]:
    """The index of the lowest figure, and the figure."""
    # A trial that diverged has a loss of NaN and no cost. Its policy is kept, with an alarm, only if all
    # trials diverged. NaN is replaced for the comparison, because `min` returns a NaN that comes first.
    best = min(range(len(figures)), key=lambda i: _or_infinity(figures[i]))
    figure = figures[best]
    return best, math.nan if figure is None else figure


def _or_infinity(figure: float | None) -> float:
    """A figure for comparisons; one that is missing or NaN is the worst."""
    return math.inf if figure is None or math.isnan(figure) else figure


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)
