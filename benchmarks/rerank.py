"""What it saves to draw several drafts and to give the one with the least predicted cost.

The runs are those of Table 1, whose cost models RL learned from. In each, the base and EarlyEnsemble write
eight drafts of each context; the cost of every draft to the user is known, so that two, four and eight drafts
are compared on the same texts, beside a choice that knows the costs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.cells import COLUMNS, EVALUATION, Cell, Column, TableSettings, make_cells
from editloop.edits import get_cost
from editloop.io import write_json
from editloop.lab import base_path
from editloop.lab.grammar import MAX_NEW_TOKENS
from editloop.offline.rerank import BestOf, choice
from editloop.parallel import in_parallel
from editloop.policy import RunFolder, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result
from editloop.users import get_user

__all__ = ["run"]

ARMS = ("base", "early")
COUNTS = (1, 2, 4, 8)


class Job(NamedTuple):
    """A cell whose policies write, and its folder."""

    cell: Cell
    folder: Path
    rounds: int


def run(
    out: str | Path, *, settings: TableSettings | None = None, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure, and write `rerank.json` and `rerank.md`.

    Args:
        out: The folder for the results.
        settings: Where the policies are kept, and the size of the experiment.
        callback: Receives progress.
    """
    settings, callback = settings or TableSettings(), callback or WarningCallback()
    cells = {(column, seed): Cell(*column, seed) for column in COLUMNS for seed in settings.seeds}
    make_cells(list(cells.values()), settings, callback)
    jobs = [Job(cell, settings.claim(cell), settings.rounds) for cell in cells.values()]
    made = {job.cell: found for job, found in in_parallel(_measure, jobs, "cells", callback)}
    columns = [_column(column, [made[cells[column, seed]] for seed in settings.seeds]) for column in COLUMNS]
    data = {"seeds": settings.seeds, "rounds": settings.rounds, "counts": COUNTS, "columns": columns}
    write_result("rerank", data, _page(data), out)
    return data


def _measure(job: Job) -> dict[str, Any]:
    """Return what each of the first n drafts would cost, and why the cost model may not choose; kept."""
    kept = job.folder / "rerank.json"
    if kept.is_file():
        content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return content
    world, run_folder = job.cell.world, RunFolder(job.folder / "run")
    base, cost = load_base(base_path(job.cell.domain)), get_cost(run_folder.manifest().config.cost)
    contexts = list(islice(world.contexts(job.cell.seed, stream="online"), job.rounds))
    user = get_user("strong", world, seed=EVALUATION + job.cell.seed)
    found: dict[str, Any] = {"arms": {}}
    for arm in ARMS:
        writer = BestOf(run_folder, base, [arm], max(COUNTS))
        found["objection"] = writer.objection
        seconds = {}
        writer.n, writer.objection = 1, None  # to see what it would do in any case
        seconds["one"] = _timed(writer, contexts, job.cell.seed)[0]
        writer.n = max(COUNTS)
        seconds["all"], written = _timed(writer, contexts, job.cell.seed)
        costs = np.array(
            [
                cost(
                    [draft.text for draft in each.drafts],
                    [user.edit(context, draft.text, round=t) for draft in each.drafts],
                )
                for t, (context, each) in enumerate(zip(contexts, written, strict=True))
            ]
        )
        found["arms"][arm] = {
            "seconds": seconds,
            "chosen": {
                n: [
                    float(own[choice(each.drafts[:n], each.bounds[:n])])
                    for own, each in zip(costs, written, strict=True)
                ]
                for n in COUNTS
            },
            "best": {n: costs[:, :n].min(axis=1).tolist() for n in COUNTS},
        }
    write_json(kept, found)
    return json.loads(kept.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _timed(writer: BestOf, contexts: Sequence[Any], seed: int) -> tuple[float, list[Any]]:
    begun = time.perf_counter()
    written = writer.reranked(contexts, seed=seed, max_new_tokens=MAX_NEW_TOKENS)
    return time.perf_counter() - begun, written


def _column(column: Column, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a column over its seeds; differences are taken context by context."""
    objections = [cell["objection"] for cell in cells]
    arms = {}
    for arm in ARMS:
        mine = [cell["arms"][arm] for cell in cells]
        one = _joined(mine, "chosen", 1)
        arms[arm] = {
            "one": float(one.mean()),
            "saved": {n: mean_and_error(one - _joined(mine, "chosen", n)) for n in COUNTS[1:]},
            "most": {n: float((one - _joined(mine, "best", n)).mean()) for n in COUNTS[1:]},
            "seconds": {
                key: float(np.mean([each["seconds"][key] for each in mine])) for key in ("one", "all")
            },
        }
    return {"title": column.title, "arms": arms, "objections": objections}


def _joined(cells: Sequence[Mapping[str, Any]], kind: str, n: int) -> NDArray[np.float64]:
    return np.concatenate([np.array(each[kind][str(n)], np.float64) for each in cells])


def _page(data: Mapping[str, Any]) -> str:
    rows = []
    for column in data["columns"]:
        earned = sum(each is None for each in column["objections"])
        for arm, found in column["arms"].items():
            saved = [plus_minus(*found["saved"][n]) for n in COUNTS[1:]]
            times = found["seconds"]["all"] / found["seconds"]["one"]
            rows.append(
                [
                    column["title"],
                    arm,
                    f"{earned} of {len(column['objections'])}",
                    f"{found['one']:.3f}",
                    *saved,
                    f"{found['most'][max(COUNTS)]:.3f}",
                    f"{times:.1f}×",
                ]
            )
    headings = [
        "log",
        "policy",
        "cost models that may choose",
        "cost of one draft",
        *(f"saved with {n}" for n in COUNTS[1:]),
        f"saved with {max(COUNTS)} by a choice that knows the costs",
        f"time of {max(COUNTS)}",
    ]
    reasons = [
        f"- {column['title']}, seed {seed}: {reason}"
        for column in data["columns"]
        for seed, reason in zip(data["seeds"], column["objections"], strict=True)
        if reason is not None
    ]
    text = (
        f"{data['rounds']} contexts and {len(data['seeds'])} seeds in each row, edited by the strong user; "
        "mean ± standard error over contexts, differences taken context by context. The savings are those of "
        "the cost model's choice, whether or not it may choose; where it may not, `BestOf` draws one draft "
        "and saves nothing."
    )
    return "\n\n".join([text, markdown_table(headings, rows, left=2), "\n".join(reasons)])
