"""The evidence for the defaults of `fit`: hyperparameters tried on SmolLM2-135M and edits that people made.

Two logs, of short and of long edits, which no table of results uses: post-edits of translations (rows
of MLQE-PE ro-en from the 2,000th on, and its dev rows to hold out), and the paragraphs that two writers of
LAMP edited, held out by context. A trial is one training; trials are kept, so that the benchmark can be
interrupted; the page has what is there.

For each trial the page shows the figures on the trial's own validation part, by which a fit could choose, and
the likelihood, the reference accuracy and the cost of sampled responses on rows that were held out. From
these come the rank correlations of each validation figure with the cost on the held-out rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import spearmanr

from benchmarks import WORK
from benchmarks.real_edits import READ, real_files, real_folder
from benchmarks.real_rows import asked_translation
from editloop.edits import Record, get_cost, read_log, split
from editloop.edits.cost import DEFAULT_COST
from editloop.errors import EmptyViewError
from editloop.io import write_text
from editloop.offline import FitConfig, fit
from editloop.offline.alarms import check_samples
from editloop.offline.data import longest_edit
from editloop.offline.examples import make_examples
from editloop.offline.reference import reference_pass
from editloop.offline.scoring import score
from editloop.parallel import in_parallel
from editloop.policy import Policy, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import machine_name, markdown_table, write_result

__all__ = ["TRIALS", "run"]

COST = DEFAULT_COST
BASE = "smollm2"


class Trial(NamedTuple):
    """One training: a method, its hyperparameters, and the passes over the rows (None: the default)."""

    method: str
    hyperparameters: tuple[tuple[str, Any], ...]
    epochs: float | None = None

    @property
    def name(self) -> str:
        """A name that is unique among the trials and safe in a path."""
        values = self.hyperparameters
        shown = [f"{key}{value:g}" if isinstance(value, float) else value for key, value in values]
        passes = [] if self.epochs is None else [f"epochs{self.epochs:g}"]
        return "-".join([self.method, *shown, *passes])


def _trial(method: str, lr: float, epochs: float | None = None, **more: Any) -> Trial:
    return Trial(method, (("learning_rate", lr), *more.items()), epochs)


RATES = {
    "sft": (1e-4, 3e-4, 1e-3, 3e-3),
    "early": (1e-4, 3e-4, 1e-3, 3e-3),
    "dpo": (3e-5, 1e-4, 3e-4, 1e-3),
    "rl": (3e-5, 1e-4, 3e-4, 1e-3),
    "kto": (3e-5, 1e-4, 3e-4, 1e-3),
}
PASSES = (1.0, 2.0, 4.0)
TRIALS = (
    *(_trial(method, rate) for method, rates in RATES.items() for rate in rates),
    *(_trial("sft", rate, epochs) for rate in (3e-4, 1e-3) for epochs in PASSES),
    *(_trial("early", 3e-4, epochs) for epochs in PASSES),
    *(_trial("dpo", rate, epochs) for rate in (1e-4, 3e-4) for epochs in PASSES),
    _trial("early", 3e-4, dpo_weight=1.0, reduction="token"),
    _trial("early", 3e-4, dpo_weight=1.0),
    _trial("early", 3e-4, dpo_weight=30.0),
    _trial("early", 3e-4, beta=0.3),
    _trial("dpo", 3e-4, beta=0.3),
    _trial("dpo", 3e-4, beta=0.03),
    *(_trial("kto", rate, desirable_weight=1.0, undesirable_weight=1.0) for rate in RATES["kto"]),
)
"""The trials, the most telling first: learning rates, then passes, then what joins the two losses."""

LOGS = ("mlqe", "lamp")
VALIDATION = ("validation_loss", "edit_nll_per_token", "preference_nll", "reference_accuracy", "sampled_cost")
"""Figures on the validation part by which a fit could choose among trials."""


class Job(NamedTuple):
    """A trial on one log; `rows` limits the rows to train on and those that are held out."""

    log: str
    trial: Trial | None
    folder: Path
    data: Path
    rows: tuple[int, int]


def run(
    out: str | Path,
    *,
    data: str | Path | None = None,
    work: Path = WORK / "defaults",
    trials: Sequence[Trial] = TRIALS,
    logs: Sequence[str] = LOGS,
    rows: tuple[int, int] = (360, 200),
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Train every trial on both logs, and write `defaults.json` and `defaults.md`.

    Args:
        out: The folder for the results.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        work: Where trials are kept; those that are kept are not trained again.
        trials: The trials.
        logs: Those of `LOGS` to try them on, all trials on one before the next.
        rows: The most rows to train on (validation part included), and the most to hold out.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    real_files(data, ("ro-en.train", "ro-en.dev"))
    jobs = [Job(log, trial, work, real_folder(data), rows) for log in logs for trial in (None, *trials)]
    found: dict[Job, dict[str, Any]] = {}
    measured: dict[str, Any] = {}
    for ended, result in in_parallel(_measure, jobs, "trials", callback):
        found[ended] = result
        results = [
            {"log": job.log, "trial": job.trial.name if job.trial else "base", **found[job]}
            for job in jobs
            if job in found
        ]
        measured = {"base": BASE, "cost": COST, "rows": rows, "results": results}
        write_result("defaults", measured, _page(results), out)
    return measured


def rows_of(log: str, data: Path, most: tuple[int, int]) -> tuple[list[Record], list[Record]]:
    """The rows to train on, and those that are held out."""
    if log == "mlqe":
        train, dev = (
            [
                each.model_copy(update={"context": asked_translation("ro-en", each)})
                for each in read_log(file, **READ)
            ]
            for file in real_files(data, ("ro-en.train", "ro-en.dev"))
        )
        return train[2000 : 2000 + most[0]], dev[: most[1]]
    columns = "context=instruction,response=preedit,edit=postedit"
    both = [
        record.model_copy(update={"id": f"{writer}-{record.id}"})
        for writer in ("w12", "w16")
        for record in read_log(data / f"lamp.{writer}.jsonl", map=columns)
    ]
    parts = split(both, by="context", validation=0.2, seed=0)
    return list(parts.train[: most[0]]), list(parts.validation[: most[1]])


def _measure(job: Job) -> dict[str, Any]:
    """Train a trial, unless it is kept, and return its figures on the validation part and held-out rows."""
    name = job.trial.name if job.trial else "base"
    kept = job.folder / job.log / f"{name}.json"
    if kept.is_file():
        content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return content
    train, held = rows_of(job.log, job.data, job.rows)
    base = load_base(BASE, dtype="float32")  # the same on a GPU as on a CPU, so that trials can be compared
    found: dict[str, Any] = {"machine": machine_name()}
    if job.trial is None:
        found["held"] = _figures(base, held)
    else:
        config = FitConfig(
            methods=(job.trial.method,),
            hyperparameters={job.trial.method: {key: (value,) for key, value in job.trial.hyperparameters}},
            epochs=job.trial.epochs,
            validation=0.15,
            validation_samples=40,
            cost=COST,
            mixture="none",
        )
        try:
            made = fit(train, base, job.folder / job.log / name, config, report=False)
        except EmptyViewError as error:  # no rows of the kind that the method needs, or no cost model
            return found | {"left_out": str(error)}
        best = made.manifest().policies[job.trial.method].best
        found["seconds"] = best.seconds
        found["steps"], found["best_step"] = best.steps, best.best_step
        found["validation"] = {
            "validation_loss": best.validation_loss,
            "sampled_cost": best.validation_cost,
            **{key: value.mean for key, value in best.validation.items() if value},
        }
        with made.policy(job.trial.method, base) as policy:
            found["held"] = _figures(policy, held)
    write_text(kept, json.dumps(found))
    return found


def _figures(policy: Policy, held: Sequence[Record]) -> dict[str, Any]:
    """Figures of a policy on held-out rows, with the cost and the shape of one sampled response for each."""
    examples, _ = reference_pass(policy, make_examples(held, policy.encoder).examples)
    figures = score(policy, examples).figures()
    means = {key: value["mean"] for key, value in figures.items() if value}
    sampled = check_samples(
        policy,
        list(examples),
        get_cost(COST),
        seed=1,
        max_new_tokens=longest_edit(examples),
    )
    assert sampled is not None
    return {
        "edit_nll_per_token": means["edit_nll_per_token"],
        "reference_accuracy": means["reference_accuracy"],
        "chosen_shift": means["chosen_shift"],
        "cost": sampled.cost.mean,
        "cost_se": sampled.cost.se,
        "finished": 1 - sampled.unfinished,
        "length_ratio": sampled.length_ratio,
        "example": sampled.examples[0]["sample"],
    }


def _page(results: Sequence[dict[str, Any]]) -> str:
    made = [each for each in results if "held" in each]
    rows = []
    for result in made:
        held, own = result["held"], result.get("validation", {})
        rows.append(
            [
                result["log"],
                result["trial"],
                *(f"{own[key]:.3f}" if key in own else "" for key in VALIDATION),
                f"{held['edit_nll_per_token']:.3f}",
                f"{held['chosen_shift']:+.1f}",
                f"{held['reference_accuracy']:.2f}",
                f"{held['cost']:.3f} ± {held['cost_se']:.3f}",
                f"{held['finished']:.0%}",
                f"{held['length_ratio']:.2f}",
            ]
        )
    headings = [
        "log",
        "trial",
        *(key.replace("_", " ") for key in VALIDATION),
        "held: −log-likelihood per token",
        "shift of the edit",
        "reference accuracy",
        "cost",
        "finished",
        "length ratio",
    ]
    machines = Counter(each["machine"] for each in results)
    about = [
        f"{BASE} in float32, cost `{COST}`. Measurements by machine: "
        + ", ".join(f"{machine} {count}" for machine, count in machines.items())
        + ".",
        *(f"{each['log']}, {each['trial']}: {each['left_out']}" for each in results if "left_out" in each),
    ]
    return "\n\n".join([*about, markdown_table(headings, rows, left=2), _correlations(made)])


def _correlations(results: Sequence[dict[str, Any]]) -> str:
    """Rank correlations over the trials of one method, because the losses of two cannot be compared."""
    methods = list(dict.fromkeys(each["trial"].split("-")[0] for each in results if each["trial"] != "base"))
    rows = []
    for log, key in product(dict.fromkeys(each["log"] for each in results), VALIDATION):
        cells = [log, key.replace("_", " ")]
        for method in methods:
            points = [
                (each["validation"][key], each["held"]["cost"])
                for each in results
                if each["log"] == log
                and each["trial"].split("-")[0] == method
                and each["validation"].get(key) is not None
            ]
            cells.append(_rank_correlation(points))
        rows.append(cells)
    heading = (
        "Rank correlation of a validation figure with the cost on held-out rows, over a method's trials:\n\n"
    )
    return heading + markdown_table(["log", "figure", *methods], rows, left=2)


def _rank_correlation(points: Sequence[tuple[float, float]]) -> str:
    """Spearman's ρ; nothing for fewer than three points, or where one of the figures is the same in all."""
    if len(points) < 3 or any(len(set(figures)) == 1 for figures in zip(*points, strict=True)):
        return ""
    return f"{spearmanr(*zip(*points, strict=True)).statistic:+.2f}"
