"""Losses that read the edit, beside those of the paper: the changed tokens, a floor, chains of revisions.

In the lab on emails and summaries, by a strong user, and by a weak one who visits every draft three times;
and on translators' corrections (MLQE-PE ro-en) with SmolLM2-135M. Each method is fitted alone with the
defaults of `fit`, on the same rows, and measured on rows that it has not seen. What is measured of a method
is kept, so the benchmark can be interrupted; the page has what is there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import WORK
from benchmarks.cells import EVALUATION
from benchmarks.edit_losses_logs import EditedLog, Size
from benchmarks.edit_losses_page import page
from benchmarks.real_rows import Fold
from benchmarks.row_figures import SEED, Figure, Rows, bootstrapped, measure_rows, resampled_rows
from editloop.edits import get_cost
from editloop.edits.cost import DEFAULT_COST, PAPER_COST
from editloop.io import write_json
from editloop.lab.folder import claim
from editloop.offline import FitConfig, fit
from editloop.offline.data import longest_edit
from editloop.offline.examples import make_examples
from editloop.offline.reference import reference_pass
from editloop.parallel import RelayedCallback, in_parallel
from editloop.policy import Policy, RunFolder
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import machine_name, write_result
from editloop.users import get_user

__all__ = ["LOGS", "METHODS", "PARENTS", "run"]

METHODS = ("sft", "edited_sft", "dpo", "edited_dpo", "dpop", "chain_dpo", "early")
PARENTS = {"edited_sft": "sft", "edited_dpo": "dpo", "dpop": "dpo", "chain_dpo": "dpo"}
"""For each loss that reads the edit, the loss of the paper that it changes, with which it is compared."""

CHAINED = "chain_dpo"
"""The method that is DPO to the letter where no edit has earlier revisions; it is not trained there."""

LOGS = (
    *(EditedLog(world, *user) for world in ("email", "summary") for user in (("strong", 1), ("weak", 3))),
    EditedLog("ro-en"),
)
SEEDS = (1, 2, 3)
BASE = "base"
TRAINING = ("trials", "chosen", "steps", "alarms")
"""What is kept of a fit, beside its figures."""

RATES = {
    **dict.fromkeys(("sft", "edited_sft", "early"), (5e-4, 2e-3, 8e-3)),
    **dict.fromkeys(("dpo", "edited_dpo", "dpop", "chain_dpo"), (5e-5, 2e-4, 8e-4, 3.2e-3)),
}
"""Learning rates that are tried for the lab, whose base is small: those of the default grids of SFT and DPO,
which were chosen on a real base, and greater ones."""

RATE_SEED = 0
RATE_WORLDS = ("email",)
"""The domains on whose logs they are tried, of a seed that is not measured, each to its end."""


class Job(NamedTuple):
    """A method, or the base, on a log; with several rates, the comparison of a method's learning rates alone.

    Without any, the learning rate is chosen from the method's default grid.
    """

    log: EditedLog
    seed: int
    method: str
    rates: tuple[float, ...]
    size: Size
    work: Path
    data: Path | None

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return self.work / f"{self.log.name}-{self.seed}" / (self.method + "-rates" * self.compares_rates)

    @property
    def is_kept(self) -> bool:
        """Whether it was measured before."""
        return (self.folder / "found.json").is_file()

    @property
    def compares_rates(self) -> bool:
        """Whether this compares learning rates."""
        return len(self.rates) > 1

    @property
    def config(self) -> FitConfig:
        """The configuration of the fit: the defaults, but for the learning rates."""
        # Samples of the validation part change no policy; only where all rates are compared, they are drawn.
        config = FitConfig(methods=(self.method,), mixture="none", validation_samples=0, seed=self.seed)
        if self.rates:
            config = config.changed({f"{self.method}.learning_rate": self.rates})
        if self.compares_rates:
            config = config.changed({"select": "cost", "validation_samples": self.size.rows})
        return config.changed(dict(self.size.changes))


def run(
    out: str | Path,
    *,
    data: Path | None = None,
    work: Path = WORK / "edit-losses",
    logs: Sequence[EditedLog] = LOGS,
    seeds: Sequence[int] = SEEDS,
    methods: Sequence[str] = METHODS,
    size: Size | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Fit and measure what is not kept yet, and write `edit-losses.json` and `edit-losses.md` after each.

    Args:
        out: The folder for the results.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        work: Where fits and figures are kept.
        logs: The logs.
        seeds: The seeds of the logs and fits in the lab; people's edits are fitted with the first.
        methods: The methods.
        size: The size of the logs.
        callback: Receives progress.
    """
    callback, size = callback or WarningCallback(), size or Size()
    worlds = [log for log in logs if log.world in RATE_WORLDS]
    larger = size._replace(rows=size.rate_rows)
    comparisons = [
        Job(log, RATE_SEED, method, RATES[method], larger, work, data)
        for method in methods
        for log in worlds
        if _differs(method, log)
    ]
    ended = dict(in_parallel(_measure, comparisons, "learning rates", callback))
    tried = {job: ended[job] for job in comparisons}
    chosen = {method: _best_rate(method, tried) for method in methods}
    jobs = [
        Job(log, seed, method, () if log.is_real else chosen.get(method, ()), size, work, data)
        for log in logs
        for seed in (seeds[:1] if log.is_real else seeds)
        for method in (BASE, *methods)
        if _differs(method, log)
    ]
    # What is kept is read at once, and the page is written before anything is fitted and after each fit.
    found = {job: _measure(job) for job in jobs if job.is_kept}
    summaries = {log: _summary(log, jobs, found) for log in logs}
    measured = _written(out, size, seeds, chosen, tried, found, summaries)
    missing = [job for job in jobs if job not in found]
    for job, result in in_parallel(_measure, missing, "fits", callback):
        found[job] = result
        summaries[job.log] = _summary(job.log, jobs, found)
        measured = _written(out, size, seeds, chosen, tried, found, summaries)
    return measured


def _written(
    out: str | Path,
    size: Size,
    seeds: Sequence[int],
    chosen: Mapping[str, tuple[float, ...]],
    tried: Mapping[Job, dict[str, Any]],
    found: Mapping[Job, dict[str, Any]],
    summaries: Mapping[EditedLog, dict[str, Any] | None],
) -> dict[str, Any]:
    """Write what there is, and return it."""
    measured = {
        **size._asdict(),
        "costs": {"test": PAPER_COST, "sampled": DEFAULT_COST},
        "seeds": list(seeds),
        "seed_of_samples": SEED,
        "machines": dict(Counter(each["machine"] for each in (*tried.values(), *found.values()))),
        "rates": [
            {"log": job.log.title, "method": job.method, "trials": made["trials"]}
            for job, made in tried.items()
        ],
        "chosen_rates": {method: list(rates) for method, rates in chosen.items()},
        "logs": {log.title: summary for log, summary in summaries.items() if summary},
    }
    write_result("edit-losses", measured, page(measured, PARENTS), out)
    return measured


def _best_rate(method: str, tried: Mapping[Job, dict[str, Any]]) -> tuple[float, ...]:
    """The rate with the lowest mean validation figure over the logs where it was tried; none without any."""
    by_log = [
        [trial["validation_loss"] for trial in found["trials"]]
        for job, found in tried.items()
        if job.method == method
    ]
    if not by_log:
        return ()
    return (RATES[method][int(np.argmin(np.mean(by_log, axis=0)))],)


def _differs(method: str, log: EditedLog) -> bool:
    """Whether a method is another one than DPO on this log."""
    return method != CHAINED or log.has_chains


def _measure(job: Job) -> dict[str, Any]:
    """Fit and measure, unless that is kept, and return what was measured."""
    config = None if job.method == BASE else job.config
    about = config and config.model_dump(mode="json", exclude=config.added)
    claim(job.folder, "fit", {"size": job.size.of(job.log), "fit": about})
    kept = job.folder / "found.json"
    if not kept.is_file():
        write_json(kept, _found(job))
    content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    if job.compares_rates or job.log.is_real:
        return content
    return content | {"rows": content["rows"] | _test_costs(job, content["rows"])}


def _found(job: Job) -> dict[str, Any]:
    callback = RelayedCallback(f"{job.log.name} {job.seed}, {job.method}, ")
    base = job.log.base(job.size)
    fold = job.log.fold(base, job.seed, job.size, job.work, job.data)
    revised = sum(bool(record.revisions) for record in fold.train)
    about = {"machine": machine_name(), "train": len(fold.train), "revised": revised}
    if job.method == BASE:
        return about | {"rows": _rows(job, base, fold, callback)}
    made = fit(fold.train, base, job.folder / "run", job.config, callback=callback, report=False)
    about |= _training(made, job.method)
    if job.compares_rates:
        return about
    with made.policy(job.method, base) as policy:
        return about | {"rows": _rows(job, policy, fold, callback)}


def _training(made: RunFolder, method: str) -> dict[str, Any]:
    """What a fit did: the trials, the one that was chosen, the step that was kept, and alarms."""
    record = made.manifest().policies[method]
    kept = {"settings", "validation_loss", "validation_cost", "seconds"}
    return {
        "trials": [trial.model_dump(include=kept) for trial in record.trials],
        "chosen": record.best.settings,
        "steps": [record.best.best_step, record.best.steps],
        "alarms": record.alarms,
    }


def _rows(job: Job, policy: Policy, fold: Fold, callback: ProgressCallback) -> Rows:
    """The figures of a policy on the test rows."""
    examples, _ = reference_pass(policy, make_examples(fold.test, policy.encoder).examples)
    longest = longest_edit(make_examples(fold.train, policy.encoder).examples)  # as in the fit
    return measure_rows(policy, examples, DEFAULT_COST, longest, job.method, callback)


def _test_costs(job: Job, rows: Rows) -> dict[str, list[float]]:
    """What the sampled responses cost the strong user, by the paper's cost, and by one that is bounded."""
    user = get_user("strong", job.log.domain, seed=EVALUATION + job.seed)
    asked = enumerate(zip(rows["context"], rows["sample"], strict=True))
    edits = [user.edit(context, sample, round=t) for t, (context, sample) in asked]
    return {
        name: [float(each) for each in get_cost(cost)(rows["sample"], edits)]
        for name, cost in (("test_cost", PAPER_COST), ("bounded_test_cost", DEFAULT_COST))
    }


def _summary(
    log: EditedLog, jobs: Sequence[Job], found: Mapping[Job, dict[str, Any]]
) -> dict[str, Any] | None:
    """The figures of a log over its seeds, of the methods that are measured on the seeds of the base."""
    mine: dict[str, dict[int, dict[str, Any]]] = {}
    for job in jobs:
        if job.log == log and job in found:
            mine.setdefault(job.method, {})[job.seed] = found[job]
    if BASE not in mine:
        return None
    seeds = list(mine[BASE])
    mine = {method: by_seed for method, by_seed in mine.items() if list(by_seed) == seeds}
    pooled = {
        method: {
            key: list(chain.from_iterable(found["rows"][key] for found in by_seed.values()))
            for key in next(iter(by_seed.values()))["rows"]
        }
        for method, by_seed in mine.items()
    }
    draws = resampled_rows(pooled[BASE]["context"])
    first = next(iter(mine[BASE].values()))
    return {
        "rows": len(pooled[BASE]["context"]),
        "seeds": seeds,
        "train": first["train"],
        "revised": [found["revised"] for found in mine[BASE].values()],
        "policies": {
            method: bootstrapped(_figures(rows, pooled[BASE], pooled.get(PARENTS.get(method, ""))), draws)
            for method, rows in pooled.items()
        },
        "by_seed": {
            method: [float(np.mean(found["rows"][_compared(found["rows"])[0]])) for found in by_seed.values()]
            for method, by_seed in mine.items()
        },
        "fits": [
            {"method": method, "seed": seed} | {key: found[key] for key in TRAINING}
            for method, by_seed in mine.items()
            for seed, found in by_seed.items()
            if method != BASE
        ],
    }


def _compared(rows: Rows) -> tuple[str, ...]:
    """The costs by which methods are compared: to the strong user, or on people's edits to the edit."""
    return ("test_cost", "bounded_test_cost") if "test_cost" in rows else ("cost",)


def _figures(rows: Rows, base: Rows, parent: Rows | None) -> dict[str, Figure]:
    """The figures of a policy, given those rows of the base and of the method that it is compared with."""
    costs = _compared(rows)
    means = {key: np.array(rows[key], np.float64) for key in dict.fromkeys((*costs, "cost", "finished"))}
    if parent:
        means |= {f"saved_{key}": np.array(parent[key], np.float64) - means[key] for key in costs}
    log_prob, tokens = (np.array(rows[key], np.float64) for key in ("log_prob", "tokens"))
    gain = log_prob - np.array(base["log_prob"], np.float64)
    margin = np.array([np.nan if each is None else each for each in rows["margin"]], np.float64)
    means["fallen"] = np.where(gain < 0, 1.0, 0.0)
    means["reference_accuracy"] = np.where(np.isnan(margin), np.nan, (np.sign(margin) + 1) / 2)

    def mean_of(values: NDArray[np.float64]) -> Figure:
        return lambda i: float(np.nanmean(values[i]))

    return {name: mean_of(values) for name, values in means.items()} | {
        "log_prob_per_token": lambda i: float(log_prob[i].sum() / tokens[i].sum()),
        "gain_per_token": lambda i: float(gain[i].sum() / tokens[i].sum()),
    }
