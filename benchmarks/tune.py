"""The hyperparameters of each method in each domain, chosen on validation data of logs that no table reports.

For each domain, a log of the strong user and a log of the weak user are made with seed 0, and every trial is
trained on both. The trial is chosen whose sampled responses have the least cost against the edits of the
validation parts, on average over the two logs. The user of the online phase has no part in the choice. The
number of epochs and the adapter were set earlier, from the learning curves of the single methods
(docs/lab.md). The domains of `editloop.lab` hold the chosen values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import WORK
from benchmarks.cells import DOMAINS, TRAINED
from editloop.edits import read_log, write_log
from editloop.lab import base_path, fit_settings, get_domain, stream_log
from editloop.lab.folder import claim
from editloop.lab.settings import LOG_ROWS
from editloop.offline import fit
from editloop.parallel import in_parallel
from editloop.policy import load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, plus_minus, write_result
from editloop.users import get_user

SEED = 0
ROWS: Mapping[str, int] = {**dict.fromkeys(DOMAINS, LOG_ROWS), "code": 800}
"""The domains that are tuned, and the rows of a log of each. Functions are twice as long as texts."""

GRIDS: Sequence[tuple[str, dict[str, tuple[Any, ...]]]] = (
    ("sft", {"learning_rate": (5e-4, 1.5e-3)}),
    ("dpo", {"learning_rate": (2e-4, 5e-4, 1e-3), "beta": (1.0, 3.0)}),
    ("rl", {"learning_rate": (1e-3,), "beta": (0.05, 0.1), "kappa": (0.0, 2.0), "loss": ("pairwise",)}),
    ("rl", {"learning_rate": (1e-3,), "beta": (0.05, 0.1), "kappa": (0.0,), "loss": ("weighted",)}),
    ("early", {"learning_rate": (5e-4, 1.5e-3), "beta": (3.0,), "dpo_weight": (1.0, 3.0, 10.0)}),
    ("cost_gradient", {"learning_rate": (2e-4, 1e-3), "beta": (0.05, 0.3)}),
)
"""The grids that are tried; the trials of all grids of a method compete with each other."""

METHODS = tuple(dict.fromkeys(method for method, _ in GRIDS))
HYPERPARAMETERS = ("learning_rate", "beta", "dpo_weight", "kappa", "loss")


class Job(NamedTuple):
    """The training of one grid on one log; `grid` is its index in `GRIDS`."""

    domain: str
    user: str
    grid: int
    folder: Path
    rows: int
    changes: tuple[tuple[str, Any], ...]


def run(
    out: str | Path,
    *,
    work: Path = WORK,
    rows: Mapping[str, int] = ROWS,
    domains: Sequence[str] = tuple(ROWS),
    methods: Sequence[str] = METHODS,
    changes: Sequence[tuple[str, Any]] = (),
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Train and choose, and write `tune.json` and `tune.md`.

    Args:
        out: The folder for the results.
        work: Where logs and policies are kept; policies that are kept are not trained again.
        rows: Rows of a log, by domain.
        domains: The domains to tune.
        methods: The methods to tune. The results of all others are copied from `tune.json` in `out`.
        changes: Changes to the configuration of the fits, for a smaller experiment.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    # The longest first.
    grids = sorted((i for i, (method, _) in enumerate(GRIDS) if method in methods), reverse=True)
    jobs = [
        Job(domain, user, i, work / "tune" / domain, rows[domain], tuple(changes))
        for i in grids
        for user in TRAINED
        for domain in domains
    ]
    for domain in domains:
        for user in TRAINED:
            _log(domain, user, work / "tune" / domain, rows[domain])
    measured = dict(in_parallel(_train, jobs, "trials", callback))
    known = Path(out) / "tune.json"
    kept = json.loads(known.read_text(encoding="utf-8"))["results"] if known.is_file() else []
    results = []
    for domain in ROWS:
        for method in METHODS:
            if method not in methods or domain not in domains:
                results += [each for each in kept if (each["domain"], each["method"]) == (domain, method)]
                continue
            by_user: dict[str, list[dict[str, Any]]] = {user: [] for user in TRAINED}
            for i, (each, _) in enumerate(GRIDS):
                for job, found in measured.items():
                    if (job.domain, job.grid, each) == (domain, i, method):
                        by_user[job.user] += found
            about = {"domain": domain, "method": method, "rows": rows[domain]}
            results.append({**about, **_choose(by_user)})
    data = {"seed": SEED, "rows": dict(rows), "results": results}
    write_result("tune", data, _markdown(results), out)
    return data


def _log(domain: str, user: str, folder: Path, rows: int) -> Path:
    claim(folder, "tuning", {"rows": rows})
    path = folder / f"{domain}-{user}.jsonl"
    if not path.is_file():
        world = get_domain(domain)
        editor = get_user(user, world, seed=SEED)
        write_log(stream_log(world, editor, rows, SEED, policy=load_base(base_path(domain))), path)
    return path


def _train(job: Job) -> list[dict[str, Any]]:
    """Train the trials of a grid, and return each with its figures on the validation part."""
    method, grid = GRIDS[job.grid]
    config = fit_settings(job.domain, seed=SEED).changed(
        {
            "methods": (method,),
            "select": "cost",
            "validation_samples": 500,
            **{f"{method}.{name}": values for name, values in grid.items()},
            **dict(job.changes),
        }
    )
    log = read_log(_log(job.domain, job.user, job.folder, job.rows))
    out = job.folder / f"{job.domain}-{job.user}-{method}-{job.grid}"
    fitted = fit(log, load_base(base_path(job.domain)), out, config, report=False)
    return [
        {
            **{name: value for name, value in trial.hyperparameters.items() if name in grid},
            **trial.model_dump(include={"validation_loss", "validation_cost", "seconds"}),
            "cost_se": trial.sampled.cost.se if trial.sampled else None,
        }
        for trial in fitted.manifest().policies[method].trials
    ]


def _choose(by_user: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the trials with their mean validation cost over the logs, and the index of the best one."""
    trials = []
    for alike in zip(*(by_user[user] for user in TRAINED), strict=True):
        point = {key: alike[0][key] for key in HYPERPARAMETERS if key in alike[0]}
        costs = {user: found["validation_cost"] for user, found in zip(TRAINED, alike, strict=True)}
        errors = {user: found["cost_se"] for user, found in zip(TRAINED, alike, strict=True)}
        trials.append({**point, "cost": costs, "se": errors, "mean": sum(costs.values()) / len(costs)})
    best = min(range(len(trials)), key=lambda i: trials[i]["mean"])
    return {"chosen": best, "trials": trials}


def _markdown(results: Sequence[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        for i, point in enumerate(result["trials"]):
            given = [f"{point[key]:g}" if key in point else "" for key in HYPERPARAMETERS[:-1]]
            given.append(point.get("loss", ""))
            costs = [plus_minus(point["cost"][user], point["se"][user]) for user in TRAINED]
            mean = f"**{point['mean']:.3f}**" if i == result["chosen"] else f"{point['mean']:.3f}"
            rows.append([result["domain"], result["method"], *given, *costs, mean])
    headings = [
        "domain",
        "method",
        "learning rate",
        "β",
        "λ",
        "κ",
        "loss of RL",
        *(f"log of the {u} user" for u in TRAINED),
        "mean",
    ]
    return (
        "Cost between a sampled response and the row's edit on the validation part of a log, mean ± standard "
        f"error over rows, seed {SEED}. The trial with the least mean over both logs is chosen (bold); "
        "the user of the online phase has no part in it.\n\n" + markdown_table(headings, rows, left=2)
    )
