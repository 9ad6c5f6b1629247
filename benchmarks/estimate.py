"""How good off-policy estimates are: what other rules would have cost, on logs whose truth is known.

A log is 400 rounds of an algorithm in the world of `bandits` with kinds of requests. `editloop
estimate` reads its decisions, propensities, contexts and costs; the truth is the mean cost of the rule in the
rounds of the log. Intervals that are stated with 95% should hold it in 95% of the logs, and be narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.bandit_settings import ARMS, KIND_MEANS, Setting, world
from editloop.edits import Record, register_cost
from editloop.errors import BanditError
from editloop.online import Bandit, BanditConfig
from editloop.online.counterfactual import estimate_rules
from editloop.online.off_policy import ESTIMATORS
from editloop.parallel import in_parallel
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result

__all__ = ["LOGS", "ROUNDS", "logged", "run"]

LOGS, ROUNDS = 1000, 400
LOGGERS = ("uniform", "square-cb", "rand-ucb")
"""The algorithms that made the logs; the last one is the default."""
TOGETHER = 25
"""Logs in a job."""

COST = "stated"
"""A cost that is the edit's own text: here costs are drawn, and no text is edited."""

NAMES = [f"arm {place}" for place in range(ARMS)]
BEST = int(KIND_MEANS.mean(axis=0).argmin())
RULES = {f"fixed:{NAMES[BEST]}": BEST, f"fixed:{NAMES[0]}": 0, "uniform": None}
"""The rules that are estimated, and the arm that each plays: the best one on average, one that is best for a
quarter of the requests, and each as often as the others."""


class Found(NamedTuple):
    """An estimate: its error, its interval as distances from the truth, and whether the bounds hold it."""

    error: float
    low: float
    high: float
    bounded: bool | None


def run(
    out: str | Path, *, logs: int = LOGS, rounds: int = ROUNDS, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure, and write `estimate.json` and `estimate.md`.

    Args:
        out: The folder for the results.
        logs: The number of logs.
        rounds: The rounds of each.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    jobs = [
        Job(logger, tuple(range(start, min(start + TOGETHER, logs))), rounds)
        for logger in LOGGERS
        for start in range(0, logs, TOGETHER)
    ]
    made = dict(in_parallel(_job, jobs, "logs", callback))
    by_logger = {
        logger: [each for job in jobs if job.logger == logger for each in made[job]] for logger in LOGGERS
    }
    loggers = {
        logger: {rule: _figures([each[rule] for each in found]) for rule in RULES}
        for logger, found in by_logger.items()
    }
    data = {"logs": logs, "rounds": rounds, "loggers": loggers}
    write_result("estimate", data, _page(data), out)
    return data


def logged(logger: str, seed: int, rounds: int) -> tuple[list[Record], dict[str, float]]:
    """Return the log that an algorithm makes, and what each rule of `RULES` costs in its rounds."""
    made = world(Setting("context", rounds), seed)
    bandit, records = Bandit(NAMES, BanditConfig(algorithm=logger, seed=seed)), []
    for t, context in enumerate(made.contexts):
        decision = bandit.decide(str(t), context=context)
        cost = float(made.costs[t, NAMES.index(decision.arm)])
        bandit.edited(str(t), cost)
        records.append(
            Record(
                id=str(t),
                context=context,
                response="–",
                edit=repr(cost),
                policy=decision.arm,
                propensity=decision.propensity,
            )
        )
    means = made.mean.mean(axis=0)
    return records, {rule: float(means.mean() if arm is None else means[arm]) for rule, arm in RULES.items()}


class Job(NamedTuple):
    """Logs of one algorithm: their seeds and their rounds."""

    logger: str
    seeds: tuple[int, ...]
    rounds: int


def _job(job: Job) -> list[dict[str, dict[str, Found] | str]]:
    register_cost(COST, _stated)
    return [_estimates(job.logger, seed, job.rounds) for seed in job.seeds]


def _stated(responses: Sequence[str], edits: Sequence[str]) -> list[float]:
    return [float(edit) for edit in edits]


def _estimates(logger: str, seed: int, rounds: int) -> dict[str, dict[str, Found] | str]:
    """Return what is estimated for each rule, or why it is not."""
    records, truth = logged(logger, seed, rounds)
    config = BanditConfig(cost=COST, scale=1.0, seed=seed)
    try:
        found = estimate_rules(records, list(RULES), config=config, seed=seed)
    except BanditError as error:
        return dict.fromkeys(RULES, str(error))
    made: dict[str, dict[str, Found] | str] = dict(found.refused)
    for rule, by_name in found.rules.items():
        true = truth[rule]
        made[rule] = {
            name: Found(
                each.value - true,
                each.interval[0] - true,
                each.interval[1] - true,
                None if each.bounds is None else each.bounds[0] <= true <= each.bounds[1],
            )
            for name, each in by_name.items()
        }
    return made


def _figures(made: Sequence[Mapping[str, Found] | str]) -> dict[str, Any]:
    """Return, of a rule, the logs without an estimate, and the figures of each estimator over the others."""
    known = [each for each in made if not isinstance(each, str)]
    figures: dict[str, Any] = {"refused": len(made) - len(known), "estimators": {}}
    widths = {name: np.array([each[name].high - each[name].low for each in known]) for name in ESTIMATORS}
    for name in ESTIMATORS if known else ():
        mine = [each[name] for each in known]
        bounded = [each.bounded for each in mine if each.bounded is not None]
        figures["estimators"][name] = {
            "bias": float(np.mean([each.error for each in mine])),
            "rmse": float(np.sqrt(np.mean([each.error**2 for each in mine]))),
            "covered": float(np.mean([each.low <= 0 <= each.high for each in mine])),
            "width": float(widths[name].mean()),
            "narrower_than_ips": float(widths["ips"].mean() / widths[name].mean()),
            "bounded": float(np.mean(bounded)) if bounded else None,
        }
    return figures


def _page(data: Mapping[str, Any]) -> str:
    headings = [
        "log by",
        "rule",
        "estimator",
        "logs without an estimate",
        "bias",
        "root mean square error",
        "truth in the 95% interval",
        "mean width",
        "narrower than IPS",
        "truth in the Bernstein bounds",
    ]
    rows = [
        [
            logger,
            rule,
            name,
            str(found["refused"]),
            f"{each['bias']:+.4f}",
            f"{each['rmse']:.4f}",
            f"{each['covered']:.1%}",
            f"{each['width']:.3f}",
            f"{each['narrower_than_ips']:.2f}×",
            "–" if each["bounded"] is None else f"{each['bounded']:.1%}",
        ]
        for logger, rules in data["loggers"].items()
        for rule, found in rules.items()
        for name, each in found["estimators"].items()
    ]
    none = [
        f"- log by {logger}, {rule}: no estimate of any log, for want of overlap"
        for logger, rules in data["loggers"].items()
        for rule, found in rules.items()
        if not found["estimators"]
    ]
    text = (
        f"{data['logs']:,} logs of {data['rounds']} rounds by each algorithm; five arms, four kinds of "
        f"requests. {NAMES[BEST]} is best on average, {NAMES[0]} for a quarter of the requests."
    )
    return "\n\n".join([text, markdown_table(headings, rows, left=3), "\n".join(none)]).rstrip()
