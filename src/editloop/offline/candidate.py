"""One training: a candidate of a method's grid, from the base to its figures, however often it is killed."""

from __future__ import annotations

import gc
import json
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from editloop.edits import get_cost
from editloop.errors import RunError
from editloop.io import write_text
from editloop.offline.alarms import check_samples
from editloop.offline.config import Candidate, FitConfig, Method
from editloop.offline.examples import Example
from editloop.offline.reference import on_all_processes
from editloop.offline.score import Scores, score
from editloop.offline.trainer import EditTrainer, choice_loss, disk_errors, training_arguments
from editloop.policy import (
    Policy,
    attach_adapter,
    detach_adapter,
    processes,
    trainable_copy,
)
from editloop.progress import ProgressCallback, counter

__all__ = ["train_candidate"]


def train_candidate(
    folder: Path,
    policy: Policy,
    method: Method,
    candidate: Candidate,
    config: FitConfig,
    rows: Sequence[Example],
    held: Sequence[Example],
    name: str,
    callback: ProgressCallback,
) -> dict[str, Any]:
    """Train one candidate, or take up where an earlier process stopped.

    Args:
        folder: Where its checkpoints, its policy and `result.json` go.
        policy: The base.
        method: The method.
        candidate: The point of the grid.
        config: The fit's configuration.
        rows: What it is trained on.
        held: What it is validated on.
        name: How it is called before the callback.
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
    with ExitStack() as stack:
        if config.full:
            trained = stack.enter_context(trainable_copy(policy))
        else:
            trained = attach_adapter(policy, config.lora, seed=config.seed)
            stack.callback(detach_adapter, trained)
        figures: dict[str, Any] = {}

        def validate() -> dict[str, float]:
            task = f"{name}, validation"
            scores = score(trained, held, progress=counter(callback, task, len(held), state.num_processes))
            figures.update(scores.figures(candidate.beta or config.beta["dpo"][0]))
            means = {key: value["mean"] for key, value in figures.items() if value}
            rl = 0.0
            if candidate.kappa is not None:
                trees = [e.alternatives.tree for e in held if e.alternatives]
                found = on_all_processes(policy.device, trees, trained.log_probs)
                rl = _rl_loss(candidate, held, found)
            loss = _validation_loss(method, candidate, config, scores, rl)
            return {"loss": loss, **means}

        arguments = training_arguments(config, candidate, folder, trained, rows)
        trainer = EditTrainer(
            policy=trained,
            method=method,
            candidate=candidate,
            config=config,
            arguments=arguments,
            train=rows,
            validate=validate,
            callbacks=[_Told(name, callback)],
        )
        trainer.train_from(_last_whole_checkpoint(folder, state))
        # The base sets the starting point, whether this process saw it or continued an earlier one.
        rl = 0.0
        if candidate.kappa is not None:
            rl = _rl_loss(candidate, held, [e.alternatives.reference for e in held if e.alternatives])
        initial = _validation_loss(method, candidate, config, _untrained(held), rl)
        final = validate()
        shown = list(held[: config.samples]) if math.isfinite(final["loss"]) else []
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
            **candidate.model_dump(exclude_none=True),
            "initial_loss": initial,
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


def _without_epoch(entry: dict[str, float]) -> dict[str, float]:
    """The library takes the whole training for one epoch."""
    return {key: value for key, value in entry.items() if key != "epoch"}


def _untrained(examples: Sequence[Example]) -> Scores:
    """The scores of the reference itself, from the reference pass."""
    pair = np.array([i for i, e in enumerate(examples) if e.is_pair], np.int64)
    reference = np.array([e.reference for e in examples], np.float64).reshape(-1, 2)
    lengths = np.array([len(e.tree.continuations[0]) for e in examples], np.float64)
    rejected = reference[pair, 1]
    return Scores(reference[:, 0], lengths, reference[:, 0], pair, rejected, rejected)


def _validation_loss(
    method: Method, candidate: Candidate, config: FitConfig, scores: Scores, rl: float
) -> float:
    """The method's loss (Eq. 3, 4, 6 or 7) on the validation part, of which the RL loss is given."""
    if method == "rl":
        return rl
    figures = scores.figures(candidate.beta or 1.0)
    sft = figures["edit_nll_per_token" if config.sft_reduction == "token" else "edit_nll_per_edit"]
    dpo = figures["preference_nll"]
    if method == "sft":
        assert sft is not None
        return float(sft["mean"])
    assert sft is not None and dpo is not None
    if method == "dpo":
        return float(dpo["mean"])
    preference = float(dpo["mean"])
    return float(sft["mean"]) + (candidate.dpo_weight or 0.0) * preference + (candidate.rl_weight or 0.0) * rl


def _rl_loss(candidate: Candidate, held: Sequence[Example], log_probs: Sequence[Sequence[float]]) -> float:
    """The RL loss on the validation rows; log π of the alternatives of each are given."""
    alternatives = [e.alternatives for e in held if e.alternatives is not None]

    def flat(values: Sequence[Sequence[float]]) -> torch.Tensor:
        return torch.tensor([each for row in values for each in row], dtype=torch.float64)

    bounds = [each.bound(candidate.kappa or 0.0) for each in alternatives]
    group = torch.repeat_interleave(torch.tensor([len(each.cost) for each in alternatives]))
    reference = flat([each.reference for each in alternatives])
    return float(choice_loss(flat(log_probs), reference, flat(bounds), group, candidate))


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


class _Told(TrainerCallback):  # type: ignore[misc]
    """Tells the callback of each step."""

    def __init__(self, name: str, callback: ProgressCallback) -> None:
        self.name, self.callback, self.note = name, callback, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.callback.progress(self.name, state.global_step, state.max_steps, self.note)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        self.note = f"validation loss {metrics['eval_loss']:.4f}"
        self.callback.progress(self.name, state.global_step, state.max_steps, self.note)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.callback.progress(self.name, state.max_steps, state.max_steps, self.note)
