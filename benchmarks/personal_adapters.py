"""From how many edits of their own is a user better served by an adapter of their own than by everybody's?

Users of a domain of the lab want different things: in two of six attributes each wants a value of their own,
whatever the kind of the text, and in the others what all want. A pooled adapter is fitted on a few edits of
each of many users. Then a user comes who was not among them, edits drafts of the pooled adapter, and gets an
adapter of their own after so many edits: one that begins at the pooled one, and one that begins at the base.

The hyperparameters are the domain's; nothing is chosen here. What is measured is kept, so the benchmark can
be interrupted; the page has what is there.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import WORK
from benchmarks.cells import EVALUATION
from benchmarks.domains import text_domain
from benchmarks.personal_adapters_page import personal_figure, personal_page
from editloop.edits import Record, read_log, write_log
from editloop.io import write_text
from editloop.lab import Domain, base_path, evaluate_on_users, fit_settings, stream_log
from editloop.lab.folder import claim
from editloop.lab.settings import COST
from editloop.offline import FitConfig, fit
from editloop.parallel import in_parallel
from editloop.policy import Policy, RunFolder, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import write_result
from editloop.users import get_user

__all__ = ["PersonalSettings", "run", "taste"]

OWN = 2
"""The attributes in which a user wants a value of their own."""
METHOD = "sft"
STARTS = ("pooled", "base")
"""Where a user's own adapter begins."""


class PersonalSettings(NamedTuple):
    """The size of the experiment, and where its work is kept; tests make small ones.

    Attributes:
        folder: The folder of all work.
        domain: The domain of the lab.
        kinds: How users edit: each kind has a pool and users of its own.
        seeds: The seeds.
        pool: The users whose edits the pooled adapter is fitted on.
        pool_rows: The edits of each of them.
        users: Who get an adapter of their own, for each seed.
        edits: The numbers of edits of their own.
        held: New contexts on which each policy is evaluated.
        steps: Optimiser steps of a user's own fit, whatever the rows.
        batch: Contexts in such a step.
        changes: Changes to the configuration of a fit, as `FitConfig.changed` takes them.
    """

    folder: Path = WORK / "personal-adapters"
    domain: str = "email"
    kinds: tuple[str, ...] = ("strong", "weak")
    seeds: tuple[int, ...] = (1, 2, 3)
    pool: int = 24
    pool_rows: int = 25
    users: int = 3
    edits: tuple[int, ...] = (5, 10, 20, 40, 80, 160)
    held: int = 100
    steps: int = 60
    batch: int = 8
    changes: tuple[tuple[str, Any], ...] = ()

    def config(self, seed: int, **more: Any) -> FitConfig:
        """The configuration of a fit."""
        # Of ten edits a tenth would be one row to validate on.
        changes = {"methods": (METHOD,), "mixture": "none", "validation": 0.2, "validation_samples": 0}
        changes |= {"lora": {"rank": 8, "alpha": 16}, "batch_size": 16, **more, **dict(self.changes)}
        return fit_settings(self.domain, seed=seed).changed(changes)


class Pool(NamedTuple):
    """The users of one kind and seed whose edits are pooled."""

    kind: str
    seed: int
    settings: PersonalSettings

    @property
    def folder(self) -> Path:
        """The folder of the pool and of the users who come later."""
        return self.settings.folder / f"{self.kind}-{self.seed}"


class Person(NamedTuple):
    """A user who was not in the pool."""

    pool: Pool
    number: int

    @property
    def folder(self) -> Path:
        """The folder of the user's edits and fits."""
        return self.pool.folder / f"user-{self.number}"

    @property
    def key(self) -> int:
        """What the user's taste, contexts and choices follow from: no member of any pool has it."""
        return 1000 * self.pool.seed + 500 + self.number


def taste(domain: Domain, key: int) -> Domain:
    """The domain as one user sees it, who wants values of their own in some attributes, whatever the kind."""
    generator = random.Random(repr(("taste", domain.name, key)))
    attributes = generator.sample(list(domain.attributes), OWN)
    own = {attribute: generator.choice(list(domain.attributes[attribute])) for attribute in attributes}
    return replace(domain, styles={kind: {**style, **own} for kind, style in domain.styles.items()})


def run(
    out: str | Path,
    *,
    settings: PersonalSettings | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `personal-adapters.json`, `.md` and `.png`, the page after each user.

    Args:
        out: The folder for the results.
        settings: The size of the experiment.
        callback: Receives progress.
    """
    settings, callback = settings or PersonalSettings(), callback or WarningCallback()
    pools = [Pool(kind, seed, settings) for kind in settings.kinds for seed in settings.seeds]
    for _ in in_parallel(_pooled, pools, "pools", callback):
        pass
    by_kind: dict[str, list[dict[str, Any]]] = {kind: [] for kind in settings.kinds}
    persons = [Person(pool, number) for pool in pools for number in range(settings.users)]
    data: dict[str, Any] = {}
    for person, found in in_parallel(_measured, persons, "users", callback):
        by_kind[person.pool.kind].append({"seed": person.pool.seed, "user": person.number, **found})
        data = _results(by_kind, settings)
        write_result("personal-adapters", data, personal_page(data), out, personal_figure(data))
    return data


def _pooled(pool: Pool) -> None:
    """Fit the pooled adapter on drafts of the base, unless it is there."""
    settings, seed = pool.settings, pool.seed
    claim(pool.folder, "pool", _about(pool))
    base, records = load_base(base_path(settings.domain)), list[Record]()
    log = pool.folder / "log.jsonl"
    if not log.is_file():
        for number in range(settings.pool):
            records += _edits(pool, 1000 * seed + number, settings.pool_rows, base, "base")
        write_log(records, log)
    config = settings.config(seed)
    fit(read_log(log, keep_duplicates=True), base, pool.folder / "run", config, report=False)


def _about(pool: Pool) -> dict[str, Any]:
    """What the work of a pool depends on."""
    settings = pool.settings
    sizes = [settings.pool, settings.pool_rows, settings.held, settings.steps, settings.batch, OWN]
    config = settings.config(pool.seed)
    domain = text_domain(settings.domain).fingerprint
    return {"config": config.model_dump(mode="json", exclude=config.added), "sizes": sizes, "domain": domain}


def _edits(pool: Pool, key: int, n: int, policy: Policy, name: str) -> list[Record]:
    """Rows of a user, by their key: contexts of their own, drafts of a policy, and the user's edits."""
    domain = taste(text_domain(pool.settings.domain), key)
    user = get_user(pool.kind, domain, seed=key)
    rows = stream_log(domain, user, n, key, policy=policy, policy_name=name, chunk=n)
    return [row.model_copy(update={"user": f"{pool.kind} {key}"}) for row in rows]


def _measured(person: Person) -> dict[str, Any]:
    """What the base, the pooled adapter and the user's own adapters cost the user."""
    pool, settings = person.pool, person.pool.settings
    base, shared = load_base(base_path(settings.domain)), RunFolder(pool.folder / "run")
    found: dict[str, Any] = {"base": _costs(person, "base", base)}
    log = person.folder / "log.jsonl"
    with shared.policy(METHOD, base) as policy:
        found["pooled"] = _costs(person, "pooled", policy)
        if not log.is_file():
            write_log(_edits(pool, person.key, max(settings.edits), policy, "pooled"), log)
    rows = read_log(log, keep_duplicates=True).records
    for n in settings.edits:
        for start in STARTS:
            name = f"{start}-{n}"
            if not (person.folder / f"{name}.json").is_file():
                own = _fitted(person, name, rows[:n], start, base)
                with own.policy(METHOD, base) as policy:
                    _costs(person, name, policy, own)
            found[name] = _kept(person.folder / f"{name}.json")
    return found


def _fitted(person: Person, name: str, rows: Sequence[Record], start: str, base: Policy) -> RunFolder:
    """An adapter of the user's own, from the first of their edits."""
    pool, settings = person.pool, person.pool.settings
    train = max(1, round(0.8 * len(rows)))
    config = settings.config(
        pool.seed,
        batch_size=settings.batch,
        epochs=settings.steps * min(settings.batch, train) / train,
        start=str(pool.folder / "run" / METHOD) if start == "pooled" else None,
    )
    return fit(rows, base, person.folder / name, config, report=False)


def _costs(person: Person, name: str, policy: Policy, own: RunFolder | None = None) -> dict[str, Any]:
    """What a policy costs the user on new contexts, and a strong one of the same taste; kept in a file."""
    kept, settings = person.folder / f"{name}.json", person.pool.settings
    if not kept.is_file():
        began = time.monotonic()
        domain, seed = taste(text_domain(settings.domain), person.key), EVALUATION + person.key
        judges = [get_user(kind, domain, seed=seed) for kind in (person.pool.kind, "strong")]
        judged = evaluate_on_users(policy, domain, judges, settings.held, seed)
        result: dict[str, Any] = {"cost": judged[0].mean, "strong_cost": judged[1].mean}
        if own is not None:
            record = own.manifest().policies[METHOD]
            improved = not any("never improved" in alarm for alarm in record.alarms)
            result |= {"improved": improved, "seconds": record.best.seconds}
        write_text(kept, json.dumps({**result, "sampling": round(time.monotonic() - began, 1)}))
    return _kept(kept)


def _kept(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _results(found: dict[str, list[dict[str, Any]]], settings: PersonalSettings) -> dict[str, Any]:
    """The costs of all users so far, by kind and by what was measured."""
    kinds: dict[str, Any] = {}
    for kind, users in found.items():
        if not users:
            continue
        users = sorted(users, key=lambda each: (each["seed"], each["user"]))
        names = ["base", "pooled", *(f"{start}-{n}" for start in STARTS for n in settings.edits)]
        kinds[kind] = {
            "users": [[each["seed"], each["user"]] for each in users],
            "improved": {str(n): [each[f"pooled-{n}"]["improved"] for each in users] for n in settings.edits},
            **{
                figure: {name: [each[name][figure] for each in users] for name in names}
                for figure in ("cost", "strong_cost")
            },
        }
    times = [each[name] for users in found.values() for each in users for name in each if "-" in name]
    sizes = ("domain", "pool", "pool_rows", "users", "edits", "held", "steps", "batch")
    return {
        "cost_name": COST,
        "settings": {name: getattr(settings, name) for name in sizes},
        "seeds": list(settings.seeds),
        "own": OWN,
        "kinds": kinds,
        "seconds_of_a_fit": float(np.mean([each["seconds"] for each in times])) if times else None,
    }
