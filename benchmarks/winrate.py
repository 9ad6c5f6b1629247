"""The writing assistant of the second write-up: how often a policy's draft wins over the reference's.

A draft wins if its user edits it less than the reference's draft for the same context, a tie being half a
win. In the lab, light, medium and heavy editors edit the logs, and the same kind of user judges. With LAMP,
the judged writers are unknown to the policies, and what decides is the cost of turning each draft into the
writer's text, the prediction of a cost model, or the likelihood of the writer's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import WORK
from benchmarks.bandit_settings import ALGORITHM_1
from benchmarks.cells import (
    ARM_COLUMNS,
    EVALUATION,
    ORDERS,
    POLICIES,
    Cell,
    CellResponses,
    TableSettings,
    cost_table,
    late_by_request,
    make_cells,
)
from benchmarks.editors import get_editor
from benchmarks.real import BASE, DTYPE, Job, fit_and_measure
from benchmarks.real_rows import lamp_folds
from editloop.edits import get_cost
from editloop.lab import get_domain
from editloop.offline import fit_cost_model, make_examples
from editloop.offline.cost_model.estimates import cross_validated
from editloop.offline.examples import RESPONSE
from editloop.offline.reference import feature_pass
from editloop.offline.wins import cost_wins, win_rate
from editloop.online import BanditConfig
from editloop.parallel import in_parallel
from editloop.policy import Policy, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result

DOMAINS, SEEDS, ROWS, ROUNDS = ("email", "summary"), (1, 2), 600, 200
USERS = ("light", "medium", "heavy")
NAMES = (*POLICIES[1:], "late")
LAMP_METHODS = ("sft", "dpo", "early")
WRITE_UP = {"sft": 0.485, "dpo": 0.516, "rl": 0.521, "late": 0.545}
"""Win rates over all editors in the second write-up: supervision, preference, cost-based, ensemble."""

JUDGES = {
    "cost": "the cost of turning the draft into the writer's text",
    "model": "the cost that a model predicts",
    "likelihood": "the likelihood of the writer's text",
}


def run(
    out: str | Path,
    *,
    data: str | Path | None = None,
    settings: TableSettings | None = None,
    work: Path = WORK / "winrate",
    base: str = BASE,
    limit: int | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure and write `winrate.json` and `winrate.md`.

    Args:
        out: The folder for the results.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        settings: Where the policies of the lab are kept, and the size of that part.
        work: Where the fit on LAMP is kept.
        base: The base of the fit on LAMP, as `load_base` takes it.
        limit: The most rows of each part of LAMP, for a smaller experiment.
        callback: Receives progress.

    Raises:
        ConfigError: LAMP's file does not exist.
    """
    callback = callback or WarningCallback()
    settings = settings or TableSettings(rows=ROWS, rounds=ROUNDS, seeds=SEEDS)
    (fold, *_) = lamp_folds(data)
    fold = fold._replace(train=fold.train[:limit], test=fold.test[:limit])
    lab = _lab(settings, callback)
    job = Job("lamp", 0, fold, base, DTYPE, LAMP_METHODS, work / "lamp")
    ((_, made),) = in_parallel(fit_and_measure, [job], "fit on LAMP", callback)
    lamp = _lamp(job, made["rows"])
    measured = {
        "rows": settings.rows,
        "rounds": settings.rounds,
        "seeds": settings.seeds,
        "lab": lab,
        "lamp": {"base": base, "train": len(fold.train), "test": len(fold.test), **lamp},
    }
    write_result("winrate", measured, _markdown(measured), out)
    return measured


def _lab(settings: TableSettings, callback: ProgressCallback) -> dict[str, Any]:
    """Win rates by domain, user and policy."""
    cells = {
        (domain, user): [Cell(domain, user, seed) for seed in settings.seeds]
        for domain in DOMAINS
        for user in USERS
    }
    made = make_cells([cell for each in cells.values() for cell in each], settings, callback)
    found: dict[str, Any] = {domain: {} for domain in DOMAINS}
    pooled: dict[str, list[NDArray[np.float64]]] = {name: [] for name in NAMES}
    for (domain, user), each in cells.items():
        wins = _wins([(cell, made[cell]) for cell in each])
        found[domain][user] = {name: win_rate(values) for name, values in wins.items()}
        for name, values in wins.items():
            pooled[name].append(values)
    everything = {name: win_rate(np.concatenate(each)) for name, each in pooled.items()}
    return {"by domain": found, "all": everything}


def _wins(cells: Sequence[tuple[Cell, CellResponses]]) -> dict[str, NDArray[np.float64]]:
    """The wins of each policy over the base in all rounds of some seeds; those of LateEnsemble are means."""
    wins: dict[str, list[NDArray[np.float64]]] = {name: [] for name in NAMES}
    for cell, made in cells:
        domain = get_domain(cell.domain)
        judge = get_editor(cell.trained, domain, seed=EVALUATION + cell.seed)
        costs = cost_table(made, judge, POLICIES, get_cost(domain.cost))
        table = np.where(np.isnan(costs), np.nan, cost_wins(costs, costs[:, :1]))
        for i, name in enumerate(POLICIES[1:], 1):
            wins[name].append(table[:, i])
        late = BanditConfig(**ALGORITHM_1, cost=domain.cost)
        wins["late"].append(late_by_request(costs[:, ARM_COLUMNS], table[:, ARM_COLUMNS], late, 0))
    return {name: np.concatenate(each) for name, each in wins.items()}


def _lamp(job: Job, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Win rates on the writers that the policies do not know, by each judge."""
    base = load_base(job.base, dtype=job.dtype)
    predicted, fidelity = _predicted(job, base, rows)
    found: dict[str, Any] = {}
    for name, own in rows.items():
        if name == "base":
            continue
        values = {
            "cost": cost_wins(np.array(own["cost"]), np.array(rows["base"]["cost"])),
            "model": cost_wins(predicted[name], predicted["base"]),
            "likelihood": cost_wins(-np.array(own["log_prob"]), -np.array(rows["base"]["log_prob"])),
        }
        found[name] = {judge: win_rate(each) for judge, each in values.items()}
    return {"policies": found, "cost model": fidelity}


def _predicted(
    job: Job, base: Policy, rows: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
    """What a cost model of the train rows predicts for each policy's drafts, and how good it is."""
    examples = make_examples(job.fold.train, base.encoder).examples
    scored, _ = feature_pass(base, [e.tree for e in examples])
    features = np.stack(
        [one.features[e.completions.of(RESPONSE)] for e, one in zip(examples, scored, strict=True)]
    )
    costs = get_cost()([e.response for e in examples], [e.edit for e in examples])
    model = fit_cost_model(features, costs)
    crossed = cross_validated(features, costs, examples, seed=0)
    found = {}
    for name, own in rows.items():
        # An empty draft has no features, and is predicted to cost what the others do on average.
        values = np.full(len(own["sample"]), np.nan)
        pairs = zip(own["context"], own["sample"], strict=True)
        trees = {i: base.encoder.tree(context, [text]) for i, (context, text) in enumerate(pairs)}
        known = {i: tree for i, tree in trees.items() if tree is not None}
        for i, one in zip(known, feature_pass(base, list(known.values()))[0], strict=True):
            values[i] = model.predict(one.features)[0][0]
        found[name] = np.where(np.isnan(values), np.nanmean(values), values)
    return found, crossed._asdict() if crossed else {}


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    low, high = found["interval"]
    return f"{found['mean']:.3f} [{low:.3f}, {high:.3f}]"


def _markdown(measured: Mapping[str, Any]) -> str:
    lab, lamp = measured["lab"], measured["lamp"]
    parts = [
        "How often a policy's draft wins over the base's for the same context, a tie being half a win; in "
        "brackets Wilson's 95% interval.",
        "## The lab",
        f"Logs of {measured['rows']} rows by each kind of user, {len(measured['seeds'])} seeds, "
        f"{measured['rounds']} fresh contexts each; the same kind of user edits both drafts, and the one "
        f"that costs less wins. LateEnsemble is the mean over {ORDERS} orders of the rounds, its exploration "
        "included.",
    ]
    columns = [(domain, user) for domain in DOMAINS for user in USERS]
    rows = []
    for name in NAMES:
        cells = [_cell(lab["by domain"][domain][user][name]) for domain, user in columns]
        given = WRITE_UP.get(name)
        rows.append([name, *cells, _cell(lab["all"][name]), "" if given is None else f"{given:.3f}"])
    headings = ["policy", *(f"{domain}, {user}" for domain, user in columns), "all", "write-up, all"]
    parts.append(markdown_table(headings, rows))
    crossed = lamp["cost model"]
    predicts = "not known"
    if crossed:
        predicts = f"{crossed['value']:.3f} [{crossed['low']:.2f}, {crossed['high']:.2f}]"
    parts += [
        "## LAMP",
        f"{lamp['base']}, `fit` with its defaults on {lamp['train']} edits; {lamp['test']} edits by writers "
        f"who are not among them. The cost model's cross-validated R² on the train rows is {predicts}.",
        markdown_table(
            ["policy", *JUDGES.values()],
            [[name, *(_cell(each[judge]) for judge in JUDGES)] for name, each in lamp["policies"].items()],
        ),
    ]
    return "\n\n".join(parts)
