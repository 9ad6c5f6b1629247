"""Policies from people's edits by EditLoop and by TRL, side by side: quality, time and memory.

Four arms learn from the same rows of `real_rows` with the same base: `ours`, a `fit` with its defaults;
`ours tuned`, with the settings of `trl tuned`; `trl tuned`, with a sensible batch, LoRA and learning rate,
the reference precomputed and no gradient checkpointing; and `trl default`, as TRL's own commands come. Each
measurement is a process of its own (`real_trl_arms`), and is kept: an interrupted benchmark goes on.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import WORK
from benchmarks.processes import in_process
from benchmarks.real_rows import LANGUAGES, Fold, lamp_folds, mlqe
from benchmarks.real_trl_arms import RealSpec
from benchmarks.real_trl_page import page
from benchmarks.train_spec import Spec, make_rows, write_rows
from benchmarks.train_speed import METHODS, process, require_trl
from editloop.edits import Record
from editloop.errors import ConfigError
from editloop.io import write_json
from editloop.lab.folder import claim
from editloop.offline.scoring import Scores
from editloop.policy.bases import resolve_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import write_result

"""Where measurements are kept."""
GOALS = {"lamp": 1.8, "ro-en": 2.5, "et-en": 2.5}
"""How many times the processor time of `ours tuned` tuned TRL should take at least, for three policies."""
ARMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ours", METHODS),
    ("ours tuned", METHODS),
    *(("trl tuned", (method,)) for method in METHODS),
    *(("trl default", (method,)) for method in ("sft", "dpo")),
)
"""The measurements of each fold: an arm, and what it trains in one process."""
SPEED_ARMS, SPEED_METHODS = ("ours", "trl tuned", "trl default"), ("sft", "dpo")


@dataclass(frozen=True)
class Settings:
    """How large the comparison is; a try has fewer rows and steps.

    Attributes:
        sets: The data: `lamp`, `ro-en` and `et-en`.
        folds: Folds of LAMP, of at most three.
        rows: Limit on the train rows, and on the test rows.
        steps: Optimiser steps of the tuned arms, for a method that learns from every row.
        speed_steps: Timed steps of the speed of training.
        repeats: Turns of the speed of training, of which medians are taken.
    """

    sets: tuple[str, ...] = ("lamp", *LANGUAGES)
    folds: int = 1
    rows: int | None = None
    steps: int = 60
    speed_steps: int = 2
    repeats: int = 2


def run(
    out: str | Path,
    *,
    base: str = "smollm2",
    data: str | Path | None = None,
    work: str | Path = WORK / "real-trl",
    settings: Settings | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `real-trl.json` and `real-trl.md`.

    Args:
        out: The folder for the results.
        base: The base.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        work: Where measurements are kept, so that they are made once.
        settings: How large the comparison is.
        callback: Receives progress.

    Raises:
        ConfigError: TRL or a file of the data is missing, or a set is unknown.
        RunError: A measurement failed, or `work` holds those of another base or of other settings.
    """
    import torch

    require_trl()
    settings, callback, kept = settings or Settings(), callback or WarningCallback(), Path(work).resolve()
    folds = {name: _folds(name, data, settings.folds) for name in settings.sets}
    resolved = resolve_base(base)
    folder = str(resolved.place)
    about = {"base": Path(resolved.name).name, "threads": torch.get_num_threads(), **vars(settings)}
    claim(kept, "comparison", about)
    done = _count(folds, settings, callback)
    measured = {
        **about,
        "sets": [_measure_set(name, folds[name], folder, kept / name, settings, done) for name in folds],
    }
    write_result("real-trl", measured, page(measured), out)
    return measured


def _folds(name: str, data: str | Path | None, folds: int) -> list[Fold]:
    """Return the folds of a set."""
    if name not in GOALS:
        raise ConfigError("unknown data", seen=name, do=f"choose of {', '.join(GOALS)}")
    return lamp_folds(data)[:folds] if name == "lamp" else [mlqe(name, data)]


def _count(
    folds: dict[str, list[Fold]], settings: Settings, callback: ProgressCallback
) -> Callable[[], None]:
    """Return a function to call after each measurement, which reports the progress."""
    speeds = len(SPEED_METHODS) * len(SPEED_ARMS) * settings.repeats
    total = sum(len(of_set) * len(ARMS) + speeds for of_set in folds.values())
    made = itertools.count(1)
    return lambda: callback.progress("measurements", next(made), total)


def _measure_set(
    name: str, folds: Sequence[Fold], base: str, work: Path, settings: Settings, done: Callable[[], None]
) -> dict[str, Any]:
    """Return quality, cost and speed of all arms on one set."""
    parts = []
    limited = [Fold(fold.train[: settings.rows], fold.test[: settings.rows]) for fold in folds]
    for place, fold in enumerate(limited):
        folder = work / str(place)
        folder.mkdir(parents=True, exist_ok=True)
        train, test = (
            write_rows(part, folder / f"{kind}.jsonl") for kind, part in zip(Fold._fields, fold, strict=True)
        )
        of_fold = []
        for arm, methods in ARMS:
            spec = RealSpec(arm, methods, base, train, test, settings.steps, str(work / "reference"))
            of_fold.append(_kept(folder / f"{arm}-{'+'.join(methods)}.json".replace(" ", "-"), _whole(spec)))
            done()
        parts.append(of_fold)
    speed = _speed(base, folds[0].train, work / "speed", settings, done)
    rows = {kind: sum(len(getattr(fold, kind)) for fold in limited) for kind in Fold._fields}
    return {
        "name": name,
        "folds": len(folds),
        **rows,
        "policies": _policies(parts),
        "costs": _costs(parts, GOALS[name]),
        "speed": speed,
    }


def _kept(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a file keeps; if it is not there yet, measure and keep it."""
    if not file.is_file():
        write_json(file, measure())
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _whole(spec: RealSpec) -> Callable[[], dict[str, Any]]:
    """Return a function that trains and scores in a process of its own."""
    name = f"{spec.arm}, {'+'.join(spec.methods)},"
    return lambda: in_process(
        "benchmarks.real_trl_arms", lambda folder: replace(spec, folder=folder).to_json(), name
    )


def _policies(parts: Sequence[Sequence[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the figures of each policy, named `METHOD, ARM`, over the test rows of all folds.

    Args:
        parts: For each fold, the measurements in the order of `ARMS`.
    """
    found = {}
    for place, (arm, methods) in enumerate(ARMS):
        for method in methods:
            scores = pooled([part[place]["scores"][method] for part in parts])
            found["base"] = replace(scores, chosen=scores.ref_chosen, rejected=scores.ref_rejected).figures()
            found[f"{method}, {arm}"] = scores.figures()
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(name: str) -> tuple[int, int]:
    """The base first, then by method, then by arm."""
    method, _, arm = name.partition(", ")
    arms = list(dict.fromkeys(each for each, _ in ARMS))
    return (METHODS.index(method), arms.index(arm)) if arm else (-1, -1)


def pooled(parts: Sequence[dict[str, list[float]]]) -> Scores:
    """Return the scores of several folds as those of one set of rows."""
    starts = np.cumsum([0, *(len(part["chosen"]) for part in parts[:-1])])
    joined: dict[str, Any] = {
        field.name: np.concatenate([np.array(part[field.name], np.float64) for part in parts])
        for field in fields(Scores)
    }
    pairs = [np.array(part["pair"], np.int64) + start for part, start in zip(parts, starts, strict=True)]
    return Scores(**joined | {"pair": np.concatenate(pairs)})


def _costs(parts: Sequence[Sequence[dict[str, Any]]], goal: float) -> dict[str, Any]:
    """Return minutes and memory of each measurement, and what three policies cost end to end.

    Minutes are sums over folds, of the training alone; memory is the largest peak.
    """
    runs = [
        {
            "arm": arm,
            "methods": list(methods),
            "minutes": sum(part[place]["seconds"] for part in parts) / 60,
            "processor_minutes": sum(part[place]["processor_seconds"] for part in parts) / 60,
            "peak_mb": max(part[place]["peak_mb"] for part in parts),
        }
        for place, (arm, methods) in enumerate(ARMS)
    ]
    three = {
        arm: {
            key: combine(each[key] for each in runs if each["arm"] == arm)
            for key, combine in (("minutes", sum), ("processor_minutes", sum), ("peak_mb", max))
        }
        for arm in ("ours", "ours tuned", "trl tuned")
    }
    times = {
        key: three["trl tuned"][key] / three["ours tuned"][key] for key in ("minutes", "processor_minutes")
    }
    machines = sorted({each["machine"] for part in parts for each in part})
    return {"runs": runs, "three": three, "times": times, "goal": goal, "machines": machines}


def _speed(
    base: str, train: Sequence[Record], work: Path, settings: Settings, done: Callable[[], None]
) -> list[dict[str, Any]]:
    """Return tokens per second of processor time and peak memory: same LoRA, rows, batches and order."""
    work.mkdir(parents=True, exist_ok=True)
    log = write_rows(train, work / "train.jsonl")
    found = []
    for method in SPEED_METHODS:
        spec = Spec("", (method,), "", base, steps=settings.speed_steps, log=log)
        turns: dict[str, list[dict[str, Any]]] = {arm: [] for arm in SPEED_ARMS}
        for turn, arm in itertools.product(range(settings.repeats), SPEED_ARMS):
            file = work / f"{arm}-{method}-{turn}.json".replace(" ", "-")
            turns[arm].append(_kept(file, partial(process, replace(spec, arm=arm))))
            done()
        tokens = sum(_tokens(spec))
        seconds = {
            arm: statistics.median(turn["processor_seconds"] for turn in of_arm)
            for arm, of_arm in turns.items()
        }
        found.append(
            {
                "method": method,
                "tokens": tokens,
                "tokens_per_second": {arm: tokens / each for arm, each in seconds.items()},
                "times_as_fast_as": {arm: seconds[arm] / seconds["ours"] for arm in SPEED_ARMS[1:]},
                "peak_mb": {
                    arm: statistics.median(turn["peak_mb"] for turn in of_arm)
                    for arm, of_arm in turns.items()
                },
            }
        )
    return found


def _tokens(spec: Spec) -> Iterator[int]:
    """The tokens of the separate sequences of the timed rows, by the base's tokenizer and chat template."""
    from transformers import AutoTokenizer

    from editloop.policy import Encoder

    encoder = Encoder(AutoTokenizer.from_pretrained(spec.size), 4096)
    rows, batch = make_rows(spec)
    for row in rows[batch:]:
        for side in _sides(row, spec.methods[0]):
            yield len(encoder.prompt(row.context)) + len(encoder.continuation(side))


def _sides(row: Record, method: str) -> list[str]:
    assert row.edit is not None
    return [row.edit] if method == "sft" else [row.edit, row.response]
