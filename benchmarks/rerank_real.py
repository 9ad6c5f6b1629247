"""What several drafts save on a real base and people's edits: the runs of `real`, on their test rows.

The cost model of a run learned from the costs of the logged responses, which another system wrote. Here it
chooses among drafts of the run's own policies, and each draft is charged by its distance from the person's
edit of the logged response.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import WORK
from benchmarks.real import BASE, DTYPE, METHODS, claim_fit, possible
from benchmarks.real_rows import LANGUAGES, Fold, mlqe
from benchmarks.rerank import COUNTS, HEADINGS, cells_of, compared_costs, savings
from benchmarks.row_figures import SEED
from editloop.edits import get_cost
from editloop.edits.cost import charge_unfinished
from editloop.io import write_json
from editloop.offline import BestOf, FitConfig, fit, no_reranking
from editloop.policy import Sample, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import machine_name, markdown_table, write_result

__all__ = ["run"]

ARMS = ("base", "sft", "early")
ROWS = 150
"""The most test rows of a data set."""


def run(
    out: str | Path,
    *,
    data: str | Path | None = None,
    work: Path = WORK / "real",
    base: str = BASE,
    dtype: str = DTYPE,
    data_sets: Sequence[str] = tuple(LANGUAGES),
    methods: Sequence[str] = METHODS,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `rerank-real.json` and `rerank-real.md`; fits that `real` has not made are made.

    Args:
        out: The folder for the results.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        work: Where `real` keeps its fits; what is measured is kept beside them.
        base: The base, as `load_base` takes it.
        dtype: The precision of its weights.
        data_sets: Translations, of `LANGUAGES`.
        methods: The methods of the fit.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    measured: dict[str, Any] = {"base": base, "dtype": dtype, "seed": SEED, "data_sets": {}}
    for name in data_sets:
        fold, folder = mlqe(name, data), work / f"{name}-0"
        claim_fit(folder, fold, base, dtype, methods)
        kept = folder / "rerank.json"
        if not kept.is_file():
            write_json(kept, _measure(fold, base, dtype, methods, folder, callback))
        found = json.loads(kept.read_text(encoding="utf-8"))
        about = {key: found[key] for key in ("objection", "r2", "rows", "machine")}
        arms = {arm: savings([each]) for arm, each in found["arms"].items()}
        measured["data_sets"][name] = about | {"arms": arms}
    write_result("rerank-real", measured, _page(measured), out)
    return measured


def _measure(
    fold: Fold, base: str, dtype: str, methods: Sequence[str], folder: Path, callback: ProgressCallback
) -> dict[str, Any]:
    policy = load_base(base, dtype=dtype)
    config = FitConfig(methods=possible(methods, fold, policy))
    made = fit(fold.train, policy, folder / "run", config, callback=callback)
    manifest, rows = made.manifest(), fold.test[:ROWS]
    cost, edits = get_cost(manifest.config.cost), [str(row.edit) for row in rows]

    def costs_of(i: int, drafts: Sequence[Sample]) -> Any:
        texts, same = [draft.text for draft in drafts], [edits[i]] * len(drafts)
        found = np.asarray(cost(texts, same), np.float64)
        return charge_unfinished(cost, found, [draft.finished for draft in drafts], same)

    arms, objection = {}, no_reranking(made)
    for arm in ARMS if made.cost_model.is_dir() else ():
        callback.message(f"{max(COUNTS)} drafts of {arm} for {len(rows)} contexts")
        writer = BestOf(made, policy, [arm], max(COUNTS))
        contexts = [row.context for row in rows]
        arms[arm] = compared_costs(writer, contexts, costs_of, manifest.config.max_new_tokens, SEED)
    crossed = manifest.cost_model and manifest.cost_model.cross_validated
    return {
        "objection": objection,
        "r2": crossed and [crossed.r2, crossed.low, crossed.high],
        "rows": len(rows),
        "machine": machine_name(),
        "arms": arms,
    }


def _page(measured: Mapping[str, Any]) -> str:
    rows = [
        [name, "may choose" if found["objection"] is None else "may not", arm, *cells_of(figures)]
        for name, found in measured["data_sets"].items()
        for arm, figures in found["arms"].items()
    ]
    about = [
        f"- {name}: {found['rows']} contexts, R² of the cost model on new contexts "
        + "{:.3f} [{:.2f}, {:.2f}]".format(*found["r2"])
        + f", drafts on {found['machine']}"
        + (f"; {found['objection']}" if found["objection"] else "")
        for name, found in measured["data_sets"].items()
        if found["r2"]
    ]
    text = (
        f"{measured['base']} in {measured['dtype']}, the fits of `real`. Mean ± standard error over "
        "contexts, differences taken context by context."
    )
    table = markdown_table(["data", "cost model", "policy", *HEADINGS], rows, left=3)
    return "\n\n".join([text, table, "\n".join(about)])
