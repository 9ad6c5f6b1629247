"""Table 1 of the paper on a real base: emails by SmolLM2-135M, and users who edit free text by rules.

A cell is the user who edited the log (strong or weak) and a seed: 300 logged rows, one fit with its defaults,
and each policy's drafts for 200 contexts, which the strong user edits. Drafts are kept as they are drawn and
are shared: both users edit the same logged drafts, and the base answers the contexts once. An interrupted
benchmark goes on where it stopped. As many seeds run at a time as there are cores.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import WORK
from benchmarks.cells import EVALUATION, TRAINED, incurred_cost, play
from benchmarks.real import DTYPE
from benchmarks.tables import METHODS, PAPER, spread
from editloop.edits import get_cost, read_log, write_log
from editloop.edits.cost import DEFAULT_COST, PAPER_COST
from editloop.io import write_json
from editloop.lab import free_texts, stream_log
from editloop.lab.drafts import KeptDrafts
from editloop.lab.folder import claim
from editloop.offline import FitConfig, fit
from editloop.parallel import RelayedCallback, in_parallel
from editloop.policy import Policy, Sample, load_base
from editloop.progress import ProgressCallback, WarningCallback, counter
from editloop.results import machine_name, markdown_table, plus_minus, write_result
from editloop.users import User, get_user

__all__ = ["TableOnRealBase", "run"]

TRAINABLE = ("sft", "dpo", "rl", "early")
PAPER_COLUMNS = {"strong": 2, "weak": 3}
"""The columns of `PAPER` for emails, by the user who edited the log."""


@dataclass(frozen=True)
class TableOnRealBase:
    """The size of the benchmark; tests make it small.

    Attributes:
        base: The base, as `load_base` takes it.
        dtype: The precision of its weights.
        seeds: The seeds.
        rows: Rows of a log.
        rounds: Rounds of the online phase, T.
        changes: Changes to the defaults of `fit`.
    """

    base: str = "smollm2"
    dtype: str = DTYPE
    seeds: tuple[int, ...] = (1, 2)
    rows: int = 300
    rounds: int = 200
    changes: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class CellCosts:
    """The costs of the rounds of a cell.

    Attributes:
        costs: By the name of a cost, what each round costs the strong user with each policy [T].
        unfinished: By policy, the share of drafts that were cut.
        late: Those of LateEnsemble, by the name of the cost that it learns from [T].
        shares: By that name, the share of the rounds of each of its arms.
        declined: The methods that were not trained, with the reason.
        minutes: Minutes that the fit and the drafts took in this process.
        machine: What it ran on.
    """

    costs: dict[str, dict[str, NDArray[np.float64]]]
    unfinished: dict[str, float]
    late: dict[str, NDArray[np.float64]]
    shares: dict[str, dict[str, float]]
    declined: dict[str, str]
    minutes: float
    machine: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        costs = {
            name: {arm: each.tolist() for arm, each in mine.items()} for name, mine in self.costs.items()
        }
        late = {name: each.tolist() for name, each in self.late.items()}
        return vars(self) | {"costs": costs, "late": late}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CellCosts:
        """Return what `to_json` has written."""
        costs = {
            name: {arm: np.array(each, np.float64) for arm, each in mine.items()}
            for name, mine in content["costs"].items()
        }
        late = {name: np.array(each, np.float64) for name, each in content["late"].items()}
        return cls(**{**content, "costs": costs, "late": late})


def run(
    out: str | Path,
    *,
    work: Path = WORK / "real-table",
    settings: TableOnRealBase | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Make the cells that are not kept yet, and write `real-table.json` and `real-table.md` after each.

    Args:
        out: The folder for the results.
        work: Where logs, fits and drafts are kept.
        settings: The size of the benchmark.
        callback: Receives progress.
    """
    callback, settings = callback or WarningCallback(), settings or TableOnRealBase()
    jobs = [Job(seed, work, settings) for seed in settings.seeds]
    found: dict[int, dict[str, CellCosts]] = {}
    measured: dict[str, Any] = {}
    for job, cells in in_parallel(_cells, jobs, "seeds", callback):
        found[job.seed] = cells
        measured = _measured({seed: found[seed] for seed in settings.seeds if seed in found}, settings)
        write_result("real-table", measured, _page(measured), out)
    return measured


class Job(NamedTuple):
    """The cells of a seed, of which the second shares drafts of the first."""

    seed: int
    work: Path
    settings: TableOnRealBase


def _cells(job: Job) -> dict[str, CellCosts]:
    base = load_base(job.settings.base, dtype=job.settings.dtype)  # one precision on every device
    return {
        trained: _cell(
            trained, job.seed, base, job.work, job.settings, RelayedCallback(f"{trained} {job.seed}, ")
        )
        for trained in TRAINED
    }


def _cell(
    trained: str,
    seed: int,
    base: Policy,
    work: Path,
    settings: TableOnRealBase,
    callback: ProgressCallback,
) -> CellCosts:
    started = time.monotonic()
    world, folder = free_texts("email"), work / f"{trained}-{seed}"
    config = FitConfig(methods=TRAINABLE).changed(dict(settings.changes))
    claim(
        folder,
        "cell",
        {
            "base": base.fingerprint,
            "rows": settings.rows,
            "rounds": settings.rounds,
            "world": world.fingerprint,
            "changes": config.model_dump(mode="json", exclude=config.added),
        },
    )
    kept = folder / "cell.json"
    if kept.is_file():
        return CellCosts.from_json(json.loads(kept.read_text(encoding="utf-8")))
    drafts, log = work / f"drafts-{seed}.jsonl", folder / "log.jsonl"
    if not log.is_file():
        writer = KeptDrafts(base, drafts, base.fingerprint)
        rows = stream_log(world, get_user(trained, world, seed=seed), settings.rows, seed, policy=writer)
        write_log(rows, log)
    made = fit(read_log(log), base, folder / "run", config, callback=callback)
    contexts = list(islice(world.contexts(seed, stream="online"), settings.rounds))
    written = {}
    for arm in made.arm_names():
        key = base.fingerprint if arm == "base" else f"{made.manifest().identity} {arm}"
        with made.policy(arm, base) as policy:
            written[arm] = KeptDrafts(policy, drafts, key).sample(
                contexts,
                seed=seed,
                max_new_tokens=world.max_new_tokens,
                progress=counter(callback, f"drafts of {arm}", len(contexts)),
            )
    costs, unfinished = _charged(written, contexts, get_user("strong", world, seed=EVALUATION + seed))
    late, shares = _chosen_online(costs)
    minutes = (time.monotonic() - started) / 60
    cell = CellCosts(costs, unfinished, late, shares, made.manifest().declined, minutes, machine_name())
    write_json(kept, cell.to_json())
    return cell


def _charged(
    written: Mapping[str, Sequence[Sample]], contexts: Sequence[str], editor: User
) -> tuple[dict[str, dict[str, NDArray[np.float64]]], dict[str, float]]:
    """Return what a user's edits of each policy's drafts cost, by cost and policy, and the shares cut."""
    measures = {name: get_cost(name) for name in (PAPER_COST, DEFAULT_COST)}
    costs: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in measures}
    for arm, samples in written.items():
        texts = [sample.text for sample in samples]
        edits = [
            editor.edit(context, text, round=t)
            for t, (context, text) in enumerate(zip(contexts, texts, strict=True))
        ]
        for name, cost in measures.items():
            costs[name][arm] = np.asarray(cost(texts, edits), np.float64)
    return costs, {
        arm: float(np.mean([not each.finished for each in samples])) for arm, samples in written.items()
    }


def _chosen_online(
    costs: Mapping[str, Mapping[str, NDArray[np.float64]]],
) -> tuple[dict[str, NDArray[np.float64]], dict[str, dict[str, float]]]:
    """Return what LateEnsemble's rounds cost by each cost, and the share of the rounds of each arm."""
    late, shares = {}, {}
    for name, by_arm in costs.items():
        arms = [arm for arm in TRAINABLE if arm in by_arm]
        table = np.stack([by_arm[arm] for arm in arms], axis=1)
        chosen = play(table)
        late[name] = incurred_cost(table, chosen)
        shares[name] = {arm: float((chosen == i).mean()) for i, arm in enumerate(arms)}
    return late, shares


def _measured(found: Mapping[int, Mapping[str, CellCosts]], settings: TableOnRealBase) -> dict[str, Any]:
    cells = [
        {
            "trained": trained,
            "seed": seed,
            "costs": {
                name: {
                    **{arm: float(each.mean()) for arm, each in by_arm.items()},
                    "late": float(cell.late[name].mean()),
                }
                for name, by_arm in cell.costs.items()
            },
            "unfinished": cell.unfinished,
            "shares": cell.shares,
            "declined": cell.declined,
            "minutes": cell.minutes,
            "machine": cell.machine,
        }
        for seed, by_trained in found.items()
        for trained, cell in by_trained.items()
    ]
    size = {name: getattr(settings, name) for name in ("base", "dtype", "rows", "rounds")}
    return {**size, "cells": cells}


def _page(measured: Mapping[str, Any]) -> str:
    cells = measured["cells"]
    parts = [
        f"{measured['base']} in {measured['dtype']}, emails. {measured['rows']} logged rows edited by a "
        f"strong or a weak user, `fit` with its defaults, {measured['rounds']} rounds with the strong user; "
        "mean cost of a round ± sd over seeds, lower is better. LateEnsemble chooses among the trained "
        "policies."
    ]
    for name in (PAPER_COST, DEFAULT_COST):
        rows = []
        for method, label in METHODS.items():
            row = [label]
            for trained in TRAINED:
                values = [
                    cell["costs"][name][method]
                    for cell in cells
                    if cell["trained"] == trained and method in cell["costs"][name]
                ]
                row.append(_mean_and_spread(values))
                if name == PAPER_COST:
                    row.append(f"{PAPER[method][PAPER_COLUMNS[trained]]:.3f}" if method in PAPER else "")
            rows.append(row)
        paper = name == PAPER_COST
        headings = [
            heading
            for trained in TRAINED
            for heading in (_heading(trained, cells), *(["the paper's"] if paper else []))
        ]
        parts.append(f"## {name}\n\n" + markdown_table(["method", *headings], rows))
    lines = []
    for cell in cells:
        cut = ", ".join(f"{arm} {share:.0%}" for arm, share in cell["unfinished"].items())
        played = ", ".join(f"{arm} {share:.0%}" for arm, share in cell["shares"][DEFAULT_COST].items())
        lines.append(
            f"- log of the {cell['trained']} user, seed {cell['seed']}: unfinished drafts {cut}; rounds "
            f"{played}; {cell['minutes']:.0f} min since its last start, on {cell['machine']}"
        )
        lines += [f"- not trained: {method}, {reason}" for method, reason in cell["declined"].items()]
    return "\n\n".join([*parts, "\n".join(lines)])


def _heading(trained: str, cells: Sequence[Mapping[str, Any]]) -> str:
    seeds = sum(cell["trained"] == trained for cell in cells)
    return f"log of the {trained} user, {seeds} seed{'s' * (seeds > 1)}"


def _mean_and_spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    found = spread(np.array(values))
    return plus_minus(found["mean"], found["sd"])
