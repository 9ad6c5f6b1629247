"""Learning from one's own deployment: generations of a policy, each fitted on the edits of all before it.

In generation g the policy of generation g − 1 writes drafts (that of generation 0 is the base), a user edits
them, and the next policy is fitted on all rows so far, from the base. The log is thus written by policies
that the learner itself has made. The ways to learn differ in the method, and in whose log-probabilities are
the reference of a row: the base's, or those of the policy that wrote it. One user only repairs what is wrong;
the other keeps the paper's Assumption 1, under which theory says where each way ends.

The same is done where every quantity is known (`own_log_exact`), in a minute for each seed.

A way that cannot be fitted on a log, as KTO where no draft was left as it was, takes the policy of SFT in
that generation. What is made is kept, so that the benchmark can be interrupted; the page has what is there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import WORK
from benchmarks.balanced_user import BALANCED, get_editor
from benchmarks.cells import EVALUATION
from benchmarks.domains import text_domain
from benchmarks.own_log_exact import STEPS as EXACT_STEPS
from benchmarks.own_log_exact import exact_generations
from benchmarks.own_log_page import own_log_figure, own_log_page
from editloop.edits import Record, read_log, write_log
from editloop.errors import EmptyViewError
from editloop.io import write_text
from editloop.lab import base_path, evaluate_on_users, fit_settings, stream_log
from editloop.lab.folder import claim
from editloop.lab.settings import COST
from editloop.offline import FitConfig, fit
from editloop.offline.examples import make_examples
from editloop.offline.logging_policies import LoggedPolicy
from editloop.offline.methods import METHODS
from editloop.parallel import in_parallel
from editloop.policy import Policy, RunFolder, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import write_result

__all__ = ["WAYS", "LogSettings", "Way", "run"]


class Way(NamedTuple):
    """A way to learn from one's own log.

    Attributes:
        method: The method.
        reference: As of `FitConfig`.
        values: Its hyperparameters, in place of the domain's.
    """

    method: str
    reference: str = "base"
    values: tuple[tuple[str, Any], ...] = ()


STEP = (("learning_rate", 1e-3), ("beta", 1.0))
"""β = 1 is the one at which DPO has the optimum of the paper. `tune` chose the learning rate 2e-4 on emails,
for 340 steps; here there are fewer, with which a policy comes about as far."""

WAYS: dict[str, Way] = {
    "SFT": Way("sft"),
    "DPO, base": Way("dpo", "base", STEP),
    "DPO, logged": Way("dpo", "logged", STEP),
    "WPO, base": Way("wpo", "base", STEP),
    "EarlyEnsemble, base": Way("early"),
    "EarlyEnsemble, logged": Way("early", "logged"),
    "KTO, base": Way("kto", "base", (("learning_rate", 1e-3), ("beta", 0.1))),
}
"""The ways by name: the method, and whose log-probabilities are the reference."""

USERS: dict[str, tuple[str, ...]] = {
    "medium": tuple(WAYS),
    BALANCED: ("SFT", "DPO, base", "DPO, logged"),
}
"""The users who edit, and the ways that learn from each."""


Found = dict[str, dict[str, dict[int, list[dict[str, Any]]]]]
"""What each generation gave, by user, way and seed."""


class LogSettings(NamedTuple):
    """The size of the experiment, and where its work is kept; tests make small ones.

    Attributes:
        folder: The folder of all chains.
        domain: The domain of the lab.
        users: Who edits the logs.
        seeds: The seeds.
        generations: How often a policy is fitted.
        rows: Rows that each policy writes.
        held: Contexts on which each policy is evaluated.
        steps: Optimiser steps of a fit, whatever the rows.
        batch: Contexts in a step.
        changes: Changes to the configuration of a fit, as `FitConfig.changed` takes them.
        exact_seeds: The seeds where every quantity is known.
        exact_rows: The rows that each policy writes there.
    """

    folder: Path = WORK / "own-log"
    domain: str = "email"
    users: tuple[str, ...] = tuple(USERS)
    seeds: tuple[int, ...] = (1, 2, 3)
    generations: int = 10
    rows: int = 100
    held: int = 100
    steps: int = 80
    batch: int = 8
    changes: tuple[tuple[str, Any], ...] = ()
    exact_seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    exact_rows: int = 300

    def config(self, method: str, way: Way, seed: int, rows: int) -> FitConfig:
        """The configuration of a fit.

        Args:
            method: The method, which may be another than the way's.
            way: The way.
            seed: The seed.
            rows: The rows of the train part that the method learns from.
        """
        values = {f"{method}.{name}": (value,) for name, value in way.values if method == way.method}
        return fit_settings(self.domain, seed=seed).changed(
            {
                "methods": (method,),
                "reference": way.reference,
                "batch_size": self.batch,
                "epochs": self.steps * self.batch / max(1, rows),
                "lora": {"rank": 8, "alpha": 16},
                "evaluations": 2,
                "validation_rows": 50,
                "validation_samples": 0,
                "mixture": "none",
                **values,
                **dict(self.changes),
            }
        )


class Chain(NamedTuple):
    """One way, through all generations of one seed."""

    user: str
    name: str
    way: Way
    seed: int
    settings: LogSettings

    @property
    def folder(self) -> Path:
        """The folder of its generations."""
        return self.settings.folder / self.user / f"{self.way.method}-{self.way.reference}-{self.seed}"


def run(
    out: str | Path,
    *,
    settings: LogSettings | None = None,
    ways: Mapping[str, Way] = WAYS,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Run every chain, and write `own-log.json`, `own-log.md` and `own-log.png`.

    Args:
        out: The folder for the results.
        settings: The size of the experiment.
        ways: The ways to compare.
        callback: Receives progress.
    """
    settings, callback = settings or LogSettings(), callback or WarningCallback()
    # A seed with all ways before the next one, so that what an interruption leaves can be compared.
    chains = [
        Chain(user, name, way, seed, settings)
        for seed in settings.seeds
        for user in settings.users
        for name, way in ways.items()
        if name in USERS.get(user, ways)
    ]
    found: Found = {user: {name: {} for name in ways} for user in settings.users}
    exact = _exact(settings, callback)
    data: dict[str, Any] = {}
    for chain, generations in in_parallel(_follow, chains, "chains", callback):
        found[chain.user][chain.name][chain.seed] = generations
        data = {**_results(found, settings), "exact": exact}
        write_result("own-log", data, own_log_page(data), out, own_log_figure(data))
    return data


class ExactJob(NamedTuple):
    """A user and a seed where every quantity is known, and where the figures are kept."""

    user: str
    seed: int
    generations: int
    rows: int
    folder: Path


def _exact(settings: LogSettings, callback: ProgressCallback) -> dict[str, Any]:
    """The figures of all ways where every quantity is known, by user, way and generation [seeds]."""
    jobs = [
        ExactJob(user, seed, settings.generations, settings.exact_rows, settings.folder / "exact")
        for user in settings.users
        for seed in settings.exact_seeds
    ]
    made = dict(in_parallel(_exact_of, jobs, "exact", callback))
    users: dict[str, Any] = {}
    for user in settings.users:
        mine = [made[job] for job in jobs if job.user == user]
        users[user] = {
            name: {
                figure: [[each[name][g][figure] for each in mine] for g in range(settings.generations + 1)]
                for figure in ("wrong", "kl")
            }
            for name in mine[0]
        }
    about = {"seeds": settings.exact_seeds, "rows": settings.exact_rows, "steps": EXACT_STEPS}
    return {**about, "users": users}


def _exact_of(job: ExactJob) -> dict[str, Any]:
    kept = job.folder / f"{job.user}-{job.seed}-{job.generations}-{job.rows}.json"
    if not kept.is_file():
        found = exact_generations(job.user, job.seed, generations=job.generations, rows=job.rows)
        write_text(kept, json.dumps(found))
    content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return content


def _follow(chain: Chain) -> list[dict[str, Any]]:
    """All generations of a chain, the base first: what each costs, and the log that it was fitted on."""
    settings, way = chain.settings, chain.way
    claim(
        chain.folder,
        "chain",
        {
            "way": way._asdict(),
            "user": chain.user,
            "domain": text_domain(settings.domain).fingerprint,
            # Without `start`, which work of earlier versions does not have.
            "config": settings.config(way.method, way, chain.seed, 1).model_dump(
                mode="json", exclude={"start"}
            ),
            "sizes": [settings.rows, settings.held, settings.steps],
        },
    )
    base = load_base(base_path(settings.domain))
    records: list[Record] = []
    places: dict[str, LoggedPolicy] = {}
    found = [_generation(chain, 0, base, records, places)]
    for number in range(1, settings.generations + 1):
        found.append(_generation(chain, number, base, records, places))
    return found


def _generation(
    chain: Chain, number: int, base: Policy, records: list[Record], places: dict[str, LoggedPolicy]
) -> dict[str, Any]:
    """One generation: fit a policy on the records so far, evaluate it, and let it write the next rows.

    What is kept is read. The records and the place of the policy are added to `records` and `places`.
    """
    # What the base writes is the same for all ways.
    folder = (chain.folder if number else chain.folder.with_name(f"base-{chain.seed}")) / str(number)
    name, kept, log = f"generation-{number}", folder / "result.json", folder / "log.jsonl"
    if not kept.is_file():
        started = time.monotonic()
        run, method = (None, "base") if number == 0 else _fitted(chain, folder, base, records, places)
        if run is None:
            result = _written(chain, number, base, log, name)
        else:
            with run.policy(method, base) as policy:
                result = _written(chain, number, policy, log, name)
        instead = method not in ("base", chain.way.method)
        result |= {"method": method, "instead": instead, "seconds": round(time.monotonic() - started, 1)}
        write_text(kept, json.dumps(result))
    result = json.loads(kept.read_text(encoding="utf-8"))
    if number:
        places[name] = LoggedPolicy(folder / "run", result["method"])
    records += read_log(log, keep_duplicates=True)
    return dict(result)


def _fitted(
    chain: Chain,
    folder: Path,
    base: Policy,
    records: Sequence[Record],
    places: Mapping[str, LoggedPolicy],
) -> tuple[RunFolder, str]:
    """The run of a generation, and the method of its policy: SFT where the way's own has no rows."""
    encoded = make_examples(records, base.encoder).examples
    for method in dict.fromkeys((chain.way.method, "sft")):
        # The share of the rows that a fit keeps for validation is a tenth.
        rows = round(0.9 * sum(map(METHODS.get(method).rows, encoded)))
        config = chain.settings.config(method, chain.way, chain.seed, rows)
        named = [
            r.model_copy(update={"policy": "base"}) if r.policy == "generation-0" else r for r in records
        ]
        try:
            return fit(named, base, folder / "run", config, policies=places, report=False), method
        except EmptyViewError:
            if method == "sft":
                raise
    raise AssertionError("SFT learns from every edited row")


def _written(chain: Chain, number: int, policy: Policy, log: Path, name: str) -> dict[str, Any]:
    """What a policy costs on held-out contexts, after it has written its rows of the log."""
    settings, seed = chain.settings, chain.seed
    domain = text_domain(settings.domain)
    # Contexts of their own for every generation, the same for all ways.
    rows = list(
        stream_log(
            domain,
            get_editor(chain.user, domain, seed=seed),
            settings.rows,
            1000 * seed + number,
            policy=policy,
            policy_name=name,
        )
    )
    write_log(rows, log)
    judges = [get_editor(each, domain, seed=EVALUATION + seed) for each in (chain.user, "strong")]
    judged = evaluate_on_users(policy, domain, judges, settings.held, EVALUATION + seed)
    return {
        "cost": judged[0].mean,
        "strong_cost": judged[1].mean,
        "unchanged": float(
            np.mean([a == b for a, b in zip(judged[0].responses, judged[0].edits, strict=True)])
        ),
        "well_formed": judged[0].share_well_formed,
        "words": float(np.mean([len(text.split()) for text in judged[0].responses])),
        "log_unchanged": float(np.mean([row.edit == row.response for row in rows])),
    }


def _results(found: Found, settings: LogSettings) -> dict[str, Any]:
    """The figures of all ways, by user and generation."""
    figures, generations = ("cost", "strong_cost", "unchanged", "well_formed", "words"), settings.generations
    users: dict[str, Any] = {}
    for user, ways in found.items():
        for name, by_seed in ways.items():
            if not by_seed:
                continue
            chains = list(by_seed.values())
            users.setdefault(user, {})[name] = {
                "seeds": list(by_seed),
                "by_sft": [sum(each[g]["instead"] for each in chains) for g in range(generations + 1)],
                **{
                    figure: [[each[g][figure] for each in chains] for g in range(generations + 1)]
                    for figure in figures
                },
            }
    everything = [each for ways in found.values() for by_seed in ways.values() for each in by_seed.values()]
    sizes = ("domain", "rows", "held", "steps", "batch", "generations")
    return {
        "cost_name": COST,
        "settings": {name: getattr(settings, name) for name in sizes},
        "users": users,
        "seconds": round(sum(each["seconds"] for chain in everything for each in chain), 1),
    }
