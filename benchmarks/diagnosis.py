"""Whether `diagnose` recommends the right method, in the lab, where every method is trained and evaluated.

A setting is a domain, a user who edited the log, and the log's size. The strong user evaluates, as in the
tables. A recommendation is scored by how much more its method costs than the best method of the setting. The
thresholds of the rule were set on the emails alone, so that the summaries test it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import WORK
from benchmarks.cells import ARMS, DOMAINS, Cell, TableSettings, make_cells, strong_costs
from benchmarks.rl import SIZES, USERS
from editloop.diagnosis import Diagnosis, diagnose
from editloop.edits import read_log
from editloop.lab import base_path
from editloop.policy import load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result

NEAR = 0.03
"""How much more than the best method a good recommendation may cost."""

ALWAYS = ("sft", "dpo", "early")


def run(
    out: str | Path,
    *,
    folder: Path = WORK / "rl",
    seeds: Sequence[int] = (1,),
    rounds: int = 200,
    log_sizes: Sequence[int] = SIZES,
    changes: Sequence[tuple[str, Any]] = (),
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `diagnosis.json` and `diagnosis.md`.

    Args:
        out: The folder for the results.
        folder: Where the policies are trained and kept; those of `make bench NAME=rl` are reused.
        seeds: Seeds of the logs, the trainings and the rounds.
        rounds: Rounds of the evaluation.
        log_sizes: Rows of the logs.
        changes: Changes to the configuration of all fits, for a smaller experiment.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    cells = [Cell(domain, user, seed) for domain in DOMAINS for user in USERS for seed in seeds]
    common = TableSettings(seeds=tuple(seeds), rounds=rounds, changes=tuple(changes))
    bases = {domain: load_base(base_path(domain)) for domain in DOMAINS}
    settings: dict[tuple[str, str, int], dict[str, Any]] = {}
    for rows in sorted(log_sizes):
        callback.message(f"logs of {rows} rows")
        common = common._replace(folder=folder / str(rows), rows=rows)
        for cell, made in make_cells(cells, common, callback).items():
            # Who is advised to take a method that `fit` leaves out keeps the base.
            base, *own = strong_costs(made, cell, ("base", *ARMS)).mean(axis=0)
            costs = [base if np.isnan(each) else each for each in own]
            log = tuple(read_log(common.folder / cell.folder / "log.jsonl"))
            found = diagnose(log, base=bases[cell.domain], seed=cell.seed, callback=callback)
            each = settings.setdefault((cell.domain, cell.trained, rows), {"costs": [], "found": []})
            each["costs"].append(costs)
            each["found"].append(found)
    results = [_result(*key, each["costs"], each["found"]) for key, each in settings.items()]
    data = {"seeds": list(seeds), "rounds": rounds, "near": NEAR, "settings": results}
    data["scores"] = _scores(results)
    for domain in DOMAINS:
        data[f"scores, {domain}"] = _scores([each for each in results if each["domain"] == domain])
    write_result("diagnosis", data, _page(data), out)
    return data


def _result(
    domain: str, user: str, rows: int, costs: Sequence[Any], found: Sequence[Diagnosis]
) -> dict[str, Any]:
    """Return the methods' mean costs over seeds in a setting, and the advice for the log of each seed."""
    means = dict(zip(ARMS, np.mean(costs, axis=0).tolist(), strict=True))
    return {
        "domain": domain,
        "user": user,
        "rows": rows,
        "costs": means,
        "best": min(means, key=means.__getitem__),
        "advised": [each.advice.method for each in found],
        "confidence": [each.advice.confidence for each in found],
        "findings": [each.to_json()["findings"] for each in found],
    }


def _scores(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return how often the advice, and always taking one method, is near the best, and its cost above it."""
    scores = {}
    for name in ("diagnose", *(f"always {method}" for method in ALWAYS)):
        above = []
        for each in results:
            taken = each["advised"] if name == "diagnose" else [name.split()[1]] * len(each["advised"])
            least = min(each["costs"].values())
            above += [each["costs"][method] - least for method in taken]
        scores[name] = {
            "near": float(np.mean(np.array(above) <= NEAR)),
            "mean_above": float(np.mean(above)),
            "worst_above": float(np.max(above)),
        }
    return scores


def _page(data: dict[str, Any]) -> str:
    score = markdown_table(
        ["", f"within {NEAR:g} of the best", *DOMAINS, "above the best, mean", "worst"],
        [
            [
                name,
                f"{each['near']:.0%}",
                *(f"{data[f'scores, {domain}'][name]['near']:.0%}" for domain in DOMAINS),
                f"{each['mean_above']:.3f}",
                f"{each['worst_above']:.3f}",
            ]
            for name, each in data["scores"].items()
        ],
    )
    rows = []
    for each in data["settings"]:
        least = min(each["costs"].values())
        advised = [
            f"{method} (+{each['costs'][method] - least:.3f}, {sure})"
            for method, sure in zip(each["advised"], each["confidence"], strict=True)
        ]
        setting = [each["domain"], each["user"], f"{each['rows']:,}"]
        rows.append([*setting, *(f"{each['costs'][name]:.3f}" for name in ARMS), "; ".join(advised)])
    table = markdown_table(["domain", "user", "rows", *ARMS, "advised, by seed"], rows, left=2)
    seeds = ", ".join(map(str, data["seeds"]))
    return f"""Mean cost of a round to the strong user with the policies trained on a log, and the method that
`diagnose` recommends for that log (in brackets how much more it costs than the best one, and the confidence
of the advice), for {len(data["settings"])} settings, seeds {seeds}; costs are means over seeds. The
thresholds of the rule were set on the emails alone.

{score}

{table}"""
