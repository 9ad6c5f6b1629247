"""One trial: a point of a method's grid, from the base to its figures, however often it is killed."""

from __future__ import annotations

import gc
import json
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from editloop.edits import get_cost
from editloop.errors import RunError
from editloop.io import write_text
from editloop.offline.alarms import check_samples
from editloop.offline.arguments import training_arguments
from editloop.offline.config import FitConfig, Trial
from editloop.offline.examples import Completions, Example
from editloop.offline.methods.batch import Batch, Layout
from editloop.offline.reference import on_all_processes
from editloop.offline.scoring import DEFAULT_BETA, scores_of
from editloop.offline.trainer import EditTrainer, disk_errors
from editloop.policy import (
    Policy,
    attach_adapter,
    detach_adapter,
    processes,
    trainable_copy,
)
from editloop.progress import ProgressCallback, counter

__all__ = ["TrialRows", "train_trial"]


@dataclass(frozen=True)
class TrialRows:
    """What a trial is trained and validated on, prepared as its method needs it.

    Attributes:
        train: The completions of the training rows.
        held: Those of the validation rows that the method learns from.
        examples: All examples of the validation part, for the figures that every method has.
        held_examples: Those of `held`.
    """

    train: Sequence[Completions]
    held: Sequence[Completions]
    examples: Sequence[Example]
    held_examples: Sequence[Example]


def train_trial(
    folder: Path,
    policy: Policy,
    trial: Trial,
    config: FitConfig,
    rows: TrialRows,
    name: str,
    callback: ProgressCallback,
) -> dict[str, Any]:
    """Train one trial, or take up where an earlier process stopped.

    Args:
        folder: Where its checkpoints, its policy and `result.json` go.
        policy: The base.
        trial: The method and its hyperparameters.
        config: The fit's configuration.
        rows: What it is trained and validated on.
        name: How it is called in messages.
        callback: Receives progress.

    Returns:
        Its figures, as they are kept in `run.json`.
    """
    result_file = folder / "result.json"
    if result_file.is_file():
        callback.message(f"{name}: kept from before")
        return json.loads(result_file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    state = processes(policy.device)
    started = time.monotonic()
    hyperparameters = trial.hyperparameters
    with ExitStack() as stack:
        if config.full:
            trained = stack.enter_context(trainable_copy(policy))
        else:
            trained = attach_adapter(policy, config.lora, seed=config.seed)
            stack.callback(detach_adapter, trained)
        validation = _Validation(trial, rows)
        figures: dict[str, Any] = {}

        def validate() -> dict[str, float]:
            progress = counter(callback, f"{name}, validation", len(rows.examples), state.num_processes)
            trees = [e.tree for e in rows.examples]
            found = on_all_processes(
                policy.device, trees, lambda mine: trained.log_probs(mine, progress=progress)
            )
            figures.update(scores_of(rows.examples, found).figures(_beta(trial)))
            means = {key: value["mean"] for key, value in figures.items() if value}
            return {"loss": validation.figure(trained, found), **means}

        arguments = training_arguments(
            config,
            folder,
            trained,
            [each.tree for each in rows.train],
            learning_rate=hyperparameters.learning_rate,
            epochs=hyperparameters.epochs,
        )
        trainer = EditTrainer(
            policy=trained,
            trial=trial,
            config=config,
            arguments=arguments,
            train=rows.train,
            validate=validate,
            callbacks=[_ProgressOfSteps(name, callback)],
        )
        trainer.train_from(_last_whole_checkpoint(folder, state))
        final = validate()
        shown = list(rows.examples[: config.validation_samples]) if math.isfinite(final["loss"]) else []
        cost = get_cost(config.cost, tokenize=policy.encoder.tokenize)
        sampled = check_samples(
            trained,
            shown,
            cost,
            seed=config.seed,
            max_new_tokens=config.max_new_tokens,
            progress=counter(callback, f"{name}, samples", len(shown)),
        )
        result = {
            "hyperparameters": hyperparameters.model_dump(mode="json"),
            "settings": trial.method.report_line(hyperparameters),
            # The base sets the starting point, whether this process saw it or continued an earlier one.
            "initial_loss": validation.initial,
            "validation_loss": final["loss"],
            "validation_cost": sampled.cost.mean if sampled else None,
            "validation": figures,
            "sampled": sampled.to_json() if sampled else None,
            "steps": trainer.state.global_step,
            "best_step": trainer.state.best_global_step,
            "seconds": round(time.monotonic() - started, 1),
            "history": [_without_epoch(entry) for entry in trainer.state.log_history],
        }
        if state.is_main_process:
            with disk_errors(folder):
                trained.model.save_pretrained(str(folder / "policy"))
                if config.full:
                    policy.encoder.tokenizer.save_pretrained(str(folder / "policy"))
            write_text(result_file, json.dumps(result), RunError)
            for checkpoint in folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint, ignore_errors=True)
        state.wait_for_everyone()
        del trainer
    gc.collect()
    return result


class _Validation:
    """A method's validation figure on the validation part, as one batch in float64."""

    def __init__(self, trial: Trial, rows: TrialRows) -> None:
        self._trial, self._rows = trial, rows
        lengths = [len(tokens) for each in rows.held for tokens in each.tree.continuations]
        self._layout = Layout(rows.held, torch.tensor(lengths, dtype=torch.long))
        self._place = {id(example): i for i, example in enumerate(rows.examples)}

    @property
    def initial(self) -> float:
        """That of the reference itself, which needs no forward."""
        return self._figure(self._layout.known("reference"))

    def figure(self, policy: Policy, scored: Sequence[Sequence[float]]) -> float:
        """That of a policy whose log-probabilities of the examples' edits and responses are known.

        Completions beyond these, sampled ones say, are read by the policy here.
        """
        table: list[Sequence[float] | None] = []
        for example, each in zip(self._rows.held_examples, self._rows.held, strict=True):
            known = dict(zip(example.tree.continuations, scored[self._place[id(example)]], strict=True))
            wanted = each.tree.continuations
            table.append([known[c] for c in wanted] if all(c in known for c in wanted) else None)
        unknown = [i for i, found in enumerate(table) if found is None]
        trees = [self._rows.held[i].tree for i in unknown]
        if trees:
            for i, found in zip(
                unknown, on_all_processes(policy.device, trees, policy.log_probs), strict=True
            ):
                table[i] = found
        values = [value for found in table for value in found or ()]
        return self._figure(torch.tensor(values, dtype=torch.float64))

    def _figure(self, log_probs: torch.Tensor) -> float:
        method = self._trial.method
        batch = Batch(self._layout, log_probs, method.totals(self._layout))
        return float(method.validation_figure(batch, self._trial.hyperparameters))


def _beta(trial: Trial) -> float:
    """The β by which the preference loss of a policy is reported: its own, if it has one."""
    return float(getattr(trial.hyperparameters, "beta", DEFAULT_BETA))


def _without_epoch(entry: dict[str, float]) -> dict[str, float]:
    """The library takes the whole training for one epoch."""
    return {key: value for key, value in entry.items() if key != "epoch"}


def _last_whole_checkpoint(folder: Path, state: PartialState) -> str | None:
    """The last checkpoint whose writing was finished; what a kill cut short is removed.

    The trainer writes the state file last, but a machine that fails may lose what it wrote before it.
    """
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


class _ProgressOfSteps(TrainerCallback):  # type: ignore[misc]
    """Reports each step of a training."""

    def __init__(self, name: str, callback: ProgressCallback) -> None:
        self.name, self.callback, self.note = name, callback, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.callback.progress(self.name, state.global_step, state.max_steps, self.note)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        self.note = f"validation loss {metrics['eval_loss']:.4f}"
        self.callback.progress(self.name, state.global_step, state.max_steps, self.note)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.callback.progress(self.name, state.max_steps, state.max_steps, self.note)
