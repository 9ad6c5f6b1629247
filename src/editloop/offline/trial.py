"""Train one trial, a point of a method's grid, from its start to its figures, with checkpoints on the way."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from editloop.edits import get_cost
from editloop.errors import RunError
from editloop.io import atomic_folder, write_text
from editloop.offline.alarms import check_samples
from editloop.offline.arguments import training_arguments
from editloop.offline.config import FitConfig, Trial
from editloop.offline.disk import disk_errors
from editloop.offline.recorded import RecordedPolicy
from editloop.offline.start import Start
from editloop.offline.trainer import EditTrainer
from editloop.offline.validation import TrialRows, Validation
from editloop.offline.within_memory import within_memory
from editloop.policy import (
    Policy,
    Sample,
    attach_adapter,
    detach_adapter,
    processes,
    trainable_copy,
)
from editloop.policy.memory import release_memory
from editloop.progress import ProgressCallback, counter

__all__ = ["finished_result", "train_trial", "trainable"]

RESULT = "result.json"
"""The file of a trial's figures. It is written last, so whatever it describes is there, too."""

RUNG = "rung-{}.json"
"""The file of the figures of a trial that was stopped at a step, to be continued or dropped."""


def finished_result(folder: Path, until: int | None = None) -> dict[str, Any] | None:
    """The figures of a trial that an earlier process has finished; None if it has to be trained.

    Args:
        folder: The trial's folder.
        until: The step that it had to reach; None for its end.
    """
    file = folder / (RESULT if until is None else RUNG.format(until))
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def train_trial(
    folder: Path,
    policy: Policy,
    trial: Trial,
    config: FitConfig,
    rows: TrialRows,
    name: str,
    callback: ProgressCallback,
    until: int | None = None,
) -> dict[str, Any]:
    """Train one trial, or continue from the last checkpoint of an earlier process.

    Where memory runs out, the training goes on from its last checkpoint with smaller micro-batches, and with
    gradient checkpointing once they are of one context.

    Args:
        folder: The folder of its checkpoints, its policy and its result.
        policy: The base.
        trial: The method and its hyperparameters.
        config: The fit's configuration.
        rows: What it is trained and validated on.
        name: The name of the trial in messages.
        callback: Receives progress.
        until: An evaluation's step at which it stops, to be continued by another call; no response is
            sampled there. None trains to the end.

    Returns:
        The figures of the trial, as `run.json` keeps them.

    Raises:
        RunError: The memory is too small for one context, or the folder cannot be written.
    """
    return within_memory(
        lambda config: _train_once(folder, policy, trial, config, rows, name, callback, until),
        config,
        trial.method,
        name,
        callback,
    )


def _train_once(
    folder: Path,
    policy: Policy,
    trial: Trial,
    config: FitConfig,
    rows: TrialRows,
    name: str,
    callback: ProgressCallback,
    until: int | None,
) -> dict[str, Any]:
    """Train one trial with the given division of a step; arguments as for `train_trial`."""
    state = processes(policy.device)
    started = time.monotonic()
    with trainable(policy, config, rows.start) as trained:
        validation = Validation(trained, trial, rows, name, callback)
        trainer = EditTrainer(
            policy=trained,
            trial=trial,
            config=config,
            arguments=training_arguments(
                config,
                folder,
                trained,
                [each.tree for each in rows.train],
                learning_rate=trial.hyperparameters.learning_rate,
                epochs=trial.hyperparameters.epochs,
            ),
            train=rows.train,
            validate=validation.run,
            callbacks=[_StepProgress(name, callback, until), *([] if until is None else [_StopAt(until)])],
        )
        trainer.train_from(_last_complete_checkpoint(folder, state), until)
        release_memory()  # what the batches held would stand beside what the responses take
        samples = config.validation_samples if until is None else 0
        result = _result(trainer, validation, trained, config, samples, name, callback)
        result["seconds"] = round(time.monotonic() - started, 1)
        if state.is_main_process:
            if until is None:
                _save(folder, trained, config, result)
            else:
                write_text(folder / RUNG.format(until), json.dumps(result), RunError)
        state.wait_for_everyone()
        del trainer  # it refers to the model, whose adapter is about to be detached
    release_memory()  # the trainer and its optimiser are in reference cycles, and hold memory until then
    return result


@contextmanager
def trainable(policy: Policy, config: FitConfig, start: Start | None = None) -> Iterator[Policy]:
    """A context with a policy to train: the base with an adapter, or all of the base.

    Afterwards the base is as it was.

    Args:
        policy: The base.
        config: The fit's configuration.
        start: The policy at whose adapter the training begins; by default the adapter is a fresh one.
    """
    with ExitStack() as after:
        if config.gradient_checkpointing:  # the trainer switches it on, and it is not for the next training
            after.callback(policy.model.gradient_checkpointing_disable)
        if config.full:
            yield after.enter_context(trainable_copy(policy))
        else:
            folder = None if start is None else start.folder()
            trained = attach_adapter(policy, config.lora, seed=config.seed, start=folder)
            after.callback(detach_adapter, trained)
            yield trained


def _result(
    trainer: EditTrainer,
    validation: Validation,
    trained: Policy,
    config: FitConfig,
    samples: int,
    name: str,
    callback: ProgressCallback,
) -> dict[str, Any]:
    """The figures of a trained policy, and what so many samples of it look like."""
    final = validation.of_state(trainer.state.best_metric)
    examples, trial = validation.rows.examples, validation.trial
    # A policy that diverged has no distribution to sample from.
    shown = list(examples[:samples]) if math.isfinite(final) else []
    drawn: dict[tuple[int, ...], Sample] = {}
    sampled = check_samples(
        RecordedPolicy(trained, drawn),
        shown,
        get_cost(config.cost, tokenize=trained.encoder.tokenize),
        seed=config.seed,
        max_new_tokens=config.longest_response,
        progress=counter(callback, f"{name}, samples", len(shown)),
    )
    return {
        "hyperparameters": trial.hyperparameters.model_dump(mode="json"),
        "settings": trial.method.report_line(trial.hyperparameters),
        # Of log-probabilities known before, because an earlier process may have run the first evaluation.
        "initial_loss": validation.initial,
        "validation_loss": final,
        "validation_cost": sampled.cost.mean if sampled else None,
        "validation": validation.figures,
        # For the mixture of the run, which need not score and sample again.
        "edit_log_probs": [] if validation.scores is None else validation.scores.chosen.tolist(),
        "responses": [asdict(each) for each in drawn.values()],
        "sampled": sampled.to_json() if sampled else None,
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "history": [_without_epoch(entry) for entry in trainer.state.log_history],
    }


def _save(folder: Path, trained: Policy, config: FitConfig, result: dict[str, Any]) -> None:
    """Write the policy, then the result, and only then remove the checkpoints.

    Raises:
        RunError: The folder cannot be written to.
    """
    # After a kill between two of these steps, the checkpoint of the last step is still there, and the trial
    # goes on from it to the same policy. `atomic_folder` puts the policy on the disk before the result.
    with atomic_folder(folder / "policy", RunError) as unfinished, disk_errors(folder):
        trained.model.save_pretrained(str(unfinished))
        if config.full:
            trained.encoder.tokenizer.save_pretrained(str(unfinished))
    # Python's own JSON, because it keeps NaN: figures of a trial that diverged are read back as they were.
    write_text(folder / RESULT, json.dumps(result), RunError)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def _without_epoch(entry: dict[str, float]) -> dict[str, float]:
    """A log entry without its epoch, which is wrong: the library takes the whole training for one epoch."""
    return {key: value for key, value in entry.items() if key != "epoch"}


def _last_complete_checkpoint(folder: Path, state: PartialState) -> str | None:
    """The path of the last complete checkpoint, or None; incomplete ones are removed."""
    # The library writes a checkpoint's state file last, so a process that is killed while it writes a
    # checkpoint leaves one without it. A machine that loses power may keep the state file and lose what was
    # written before it, so the weights are checked, too. One process removes what is incomplete; the others
    # wait, so that all of them continue from the same checkpoint.
    while state.is_main_process and folder.is_dir() and (last := get_last_checkpoint(str(folder))):
        try:
            json.loads((Path(last) / "trainer_state.json").read_text(encoding="utf-8"))
            for weights in Path(last).glob("*.safetensors"):
                with safe_open(weights, "pt"):
                    pass
            break
        except (OSError, ValueError, SafetensorError):
            shutil.rmtree(last)
    state.wait_for_everyone()
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


class _StopAt(TrainerCallback):  # type: ignore[misc]
    """Stops a training at an evaluation, after its checkpoint has been written."""

    # Not at the end of the step, where early stopping decides: the checkpoint would say that the training is
    # over, and could not be continued.

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= self.step:
            control.should_training_stop = True


class _StepProgress(TrainerCallback):  # type: ignore[misc]
    """Reports each step of a training."""

    def __init__(self, name: str, callback: ProgressCallback, until: int | None) -> None:
        self.name, self.callback, self.until, self.note = name, callback, until, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._report(state.global_step, state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        self.note = f"validation loss {metrics['eval_loss']:.4f}"
        self._report(state.global_step, state.max_steps)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # At the end of a task, `done` is `total` (`ProgressCallback`), even if it was stopped early.
        self._report(state.max_steps, state.max_steps)

    def _report(self, done: int, steps: int) -> None:
        total = self.until or steps
        self.callback.progress(self.name, min(done, total), total, self.note)
