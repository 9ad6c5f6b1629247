"""What it saves to draw several drafts and to give the one with the least predicted cost.

The runs are those of Table 1, whose cost models RL learned from. In each, the base and EarlyEnsemble write
eight drafts of each context; the cost of every draft to the user is known, so that two, four and eight drafts
are compared on the same texts, beside a choice that knows the costs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
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
from editloop.offline.rerank import BestOf, Reranked, choice, no_reranking
from editloop.parallel import in_parallel
from editloop.policy import RunFolder, Sample, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result
from editloop.users import get_user

__all__ = ["COUNTS", "HEADINGS", "cells_of", "compared_costs", "run", "savings"]

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
    if not kept.is_file():
        write_json(kept, _found(job))
    content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return content


def _found(job: Job) -> dict[str, Any]:
    world, run_folder = job.cell.world, RunFolder(job.folder / "run")
    base, cost = load_base(base_path(job.cell.domain)), get_cost(run_folder.manifest().config.cost)
    contexts = list(islice(world.contexts(job.cell.seed, stream="online"), job.rounds))
    user = get_user("strong", world, seed=EVALUATION + job.cell.seed)
    found: dict[str, Any] = {"arms": {}}
    if not run_folder.cost_model.is_dir():  # `fit` keeps none that predicts nothing
        return found | {"objection": no_reranking(run_folder)}

    def costs_of(t: int, drafts: Sequence[Sample]) -> Any:
        texts = [draft.text for draft in drafts]
        return cost(texts, [user.edit(contexts[t], text, round=t) for text in texts])

    for arm in ARMS:
        writer = BestOf(run_folder, base, [arm], max(COUNTS))
        found["objection"] = writer.objection
        found["arms"][arm] = compared_costs(writer, contexts, costs_of, MAX_NEW_TOKENS, job.cell.seed)
    return found


def compared_costs(
    writer: BestOf,
    contexts: Sequence[Any],
    costs_of: Callable[[int, Sequence[Sample]], Any],
    longest: int,
    seed: int,
) -> dict[str, Any]:
    """Return what the choice among the first n drafts of each context costs, whether or not it may choose.

    Args:
        writer: Writes the most drafts of `COUNTS`.
        contexts: The contexts [N].
        costs_of: Returns the costs of the drafts of the context in this place.
        longest: Limit of a draft in tokens.
        seed: The seed of the drafts.

    Returns:
        `chosen` and `best`, the costs by the cost model's choice and by one that knows them, for each n of
        `COUNTS` [N]; and `seconds` of one draft and of all.
    """

    def timed(n: int) -> tuple[float, list[Reranked]]:
        writer.n, writer.objection = n, None
        begun = time.perf_counter()
        written = writer.reranked(contexts, seed=seed, max_new_tokens=longest)
        return time.perf_counter() - begun, written

    one, (every, written) = timed(1)[0], timed(max(COUNTS))
    costs = np.array([costs_of(i, each.drafts) for i, each in enumerate(written)], np.float64)
    places = {n: [choice(each.drafts[:n], each.bounds[:n]) for each in written] for n in COUNTS}
    return {
        "seconds": {"one": one, "all": every},
        "chosen": {n: costs[np.arange(len(costs)), chosen].tolist() for n, chosen in places.items()},
        "best": {n: costs[:, :n].min(axis=1).tolist() for n in COUNTS},
    }


def _column(column: Column, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a column over its seeds."""
    known = [cell["arms"] for cell in cells if cell["arms"]]
    arms = {arm: savings([each[arm] for each in known]) for arm in ARMS} if known else {}
    return {"title": column.title, "arms": arms, "objections": [cell["objection"] for cell in cells]}


def savings(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what `compared_costs` found, pooled; differences are taken context by context."""
    one = _joined(parts, "chosen", 1)
    return {
        "one": float(one.mean()),
        "saved": {n: mean_and_error(one - _joined(parts, "chosen", n)) for n in COUNTS[1:]},
        "most": {n: float((one - _joined(parts, "best", n)).mean()) for n in COUNTS[1:]},
        "seconds": {key: float(np.mean([each["seconds"][key] for each in parts])) for key in ("one", "all")},
    }


def _joined(cells: Sequence[Mapping[str, Any]], kind: str, n: int) -> NDArray[np.float64]:
    return np.concatenate([np.array(each[kind][str(n)], np.float64) for each in cells])


HEADINGS = (
    "cost of one draft",
    *(f"saved with {n}" for n in COUNTS[1:]),
    f"saved with {max(COUNTS)} by a choice that knows the costs",
    f"time of {max(COUNTS)}",
)


def cells_of(found: Mapping[str, Any]) -> list[str]:
    """Return the cells of `HEADINGS` for what `savings` found."""
    return [
        f"{found['one']:.3f}",
        *(plus_minus(*found["saved"][n]) for n in COUNTS[1:]),
        f"{found['most'][max(COUNTS)]:.3f}",
        f"{found['seconds']['all'] / found['seconds']['one']:.1f}×",
    ]


def _page(data: Mapping[str, Any]) -> str:
    rows = []
    for column in data["columns"]:
        earned = sum(each is None for each in column["objections"])
        for arm, found in column["arms"].items():
            may = f"{earned} of {len(column['objections'])}"
            rows.append([column["title"], arm, may, *cells_of(found)])
    headings = ["log", "policy", "cost models that may choose", *HEADINGS]
    reasons = [
        f"- {column['title']}, seed {seed}: {reason}"
        for column in data["columns"]
        for seed, reason in zip(data["seeds"], column["objections"], strict=True)
        if reason is not None
    ]
    text = (
        f"{data['rounds']} contexts of each of {len(data['seeds'])} seeds, edited by the strong user; mean ± "
        "standard error over contexts, differences taken context by context. The savings are those of the "
        "cost model's choice, whether or not it may choose; where it may not, `BestOf` draws one draft and "
        "saves nothing. Runs whose cost model was not kept, because it predicts nothing, are left out."
    )
    return "\n\n".join([text, markdown_table(headings, rows, left=2), "\n".join(reasons)])
