"""The cells of the paper's tables: the policies that were trained on one log, and their responses.

A cell is one domain, one user who edited the log, and one seed. It is made once and kept in a folder: the
log, the run folder with the trained policies, and each policy's responses to the contexts of the online
phase. Which user evaluates and which algorithm chooses is decided afterwards, on the costs of `cost_table`.
This gives the same result as the online phase itself, because a policy's response in a round does not depend
on the user or on the algorithm.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import WORK
from benchmarks.bandit_settings import ALGORITHM_1
from benchmarks.editors import get_editor
from benchmarks.filters import keep_rows
from editloop.edits import Cost, get_cost, read_log, write_log
from editloop.io import write_text
from editloop.lab import LabDomain, base_path, fit_settings, get_domain, stream_log
from editloop.lab.folder import claim
from editloop.lab.settings import LOG_ROWS
from editloop.offline import FitConfig, fit
from editloop.online import Bandit, BanditConfig
from editloop.parallel import in_parallel
from editloop.policy import load_base
from editloop.progress import ProgressCallback
from editloop.users import User, get_user

SEEDS = (1, 2, 3, 4, 5)
"""The seeds that are reported; hyperparameters were chosen on another (`make bench NAME=tune`)."""

DOMAINS = ("summary", "email")
TRAINED = ("strong", "weak")
ARMS: tuple[str, ...] = ("sft", "dpo", "rl", "early")
"""The policies that LateEnsemble chooses among."""

POLICIES = ("base", *ARMS, "mixture")
"""The policies of a cell that are compared, in the order of the columns of its cost table."""

ARM_COLUMNS = slice(1, 1 + len(ARMS))
"""The columns of `ARMS` in such a cost table."""

ROUNDS = 200
"""Rounds of the online phase, T."""

ORDERS = 20
"""Random orders in which the rounds of a seed are played.

The rounds are exchangeable, so any order is as good as another; the mean over many has a smaller error.
"""

EVALUATION = 1000
"""Added to a cell's seed for the user who evaluates it.

The evaluating user's random choices are thus independent of those of the user who edited the log.
"""


class Cell(NamedTuple):
    """A log and the policies that were trained on it.

    Attributes:
        domain: Name of the domain.
        trained: Name of the user who edited the log (`benchmarks.editors`).
        seed: Seed of the log, the training and the rounds.
        shifted: Whether that user has the shifted preferences of `Domain.shifted`.
        kept: The name of a filter of the log (`benchmarks.filters`), empty for none.
    """

    domain: str
    trained: str
    seed: int
    shifted: bool = False
    kept: str = ""

    @property
    def world(self) -> LabDomain:
        """The domain, with the preferences of the user who edited the log."""
        domain = get_domain(self.domain)
        return domain.shifted() if self.shifted else domain

    @property
    def editor(self) -> User:
        """The user who edited the log."""
        return get_editor(self.trained, self.world, seed=self.seed)

    @property
    def folder(self) -> Path:
        """The cell's folder, relative to the folder of all cells."""
        kept = f"-{self.kept}" if self.kept else ""
        return Path(f"{self.domain}-{self.trained}{'-shifted' * self.shifted}{kept}-{self.seed}")


@dataclass(frozen=True)
class CellResponses:
    """The responses of a cell's policies in the rounds of the online phase.

    Attributes:
        contexts: The context of each round [T].
        responses: The responses of each policy [T], by its name; `base` comes first. A method that the fit
            left out has none.
        seconds: How long the cell took in its process, counted from its last start.
    """

    contexts: list[str]
    responses: dict[str, list[str]]
    seconds: float


class TableSettings(NamedTuple):
    """How many cells there are, how large they are and where they are kept; tests make small ones.

    Attributes:
        folder: The folder of all cells.
        seeds: The seeds that are reported.
        rounds: Rounds of the online phase, T.
        rows: Rows of each log.
        changes: Changes to the configuration of the fit, as `FitConfig.changed` takes them.
    """

    folder: Path = WORK
    seeds: tuple[int, ...] = SEEDS
    rounds: int = ROUNDS
    rows: int = LOG_ROWS
    changes: tuple[tuple[str, Any], ...] = ()

    def config(self, cell: Cell) -> FitConfig:
        """The configuration of a cell's fit."""
        changes = {"methods": ARMS, **dict(self.changes)}
        return fit_settings(cell.domain, seed=cell.seed).changed(changes)

    def claim(self, cell: Cell) -> Path:
        """Return the cell's folder, after a check that its content was made with these settings.

        Raises:
            RunError: The folder holds a cell that was made with other settings.
        """
        editor, config = cell.editor, self.config(cell)
        settings = {
            "rounds": self.rounds,
            "rows": self.rows,
            "fit": config.model_dump(mode="json", exclude=config.added),
            "user": dict(editor.settings),
            "domain": cell.world.fingerprint,
            "base": _hash(base_path(cell.domain) / "model.safetensors"),
        } | ({"kept": cell.kept} if cell.kept else {})
        claim(self.folder / cell.folder, "cell", settings)
        return self.folder / cell.folder


def make_cells(
    cells: Sequence[Cell], settings: TableSettings, callback: ProgressCallback
) -> dict[Cell, CellResponses]:
    """Return the responses of each cell. Cells that are kept are read, and an interrupted one is resumed."""
    found: dict[Cell, CellResponses] = {}
    missing = []
    for cell in dict.fromkeys(cells):
        if (file := settings.claim(cell) / "responses.json").is_file():
            found[cell] = CellResponses(**json.loads(file.read_text(encoding="utf-8")))
        else:
            missing.append(cell)
    if missing:
        jobs = [(cell, settings) for cell in missing]
        for (cell, _), made in in_parallel(_make, jobs, "cells", callback):
            callback.message(f"{cell.folder}: {made.seconds:.0f} s")
            found[cell] = made
    return {cell: found[cell] for cell in cells}


class Column(NamedTuple):
    """A column of the paper's tables: a domain, and the user whose edits the policies were trained on."""

    domain: str
    trained: str

    @property
    def title(self) -> str:
        """The heading of the column."""
        domain = get_domain(self.domain)
        return f"{domain.plural or domain.name}, {self.trained}"


COLUMNS = tuple(Column(domain, trained) for domain in DOMAINS for trained in TRAINED)


class ColumnCosts(NamedTuple):
    """The costs of the rounds of all columns.

    Attributes:
        tables: By column, the cost of each round with each policy of `POLICIES` [seeds, T, policies]; NaN for
            one that the fit left out.
        contexts: By column, the context of each round of each seed [seeds][T].
        seconds: The sum of the times that the cells took.
    """

    tables: dict[Column, NDArray[np.float64]]
    contexts: dict[Column, list[list[str]]]
    seconds: float


def column_costs(
    settings: TableSettings,
    evaluator: str,
    callback: ProgressCallback,
    cost: Callable[[str], Cost] | None = None,
) -> ColumnCosts:
    """Return the costs of all columns' rounds to one user; cells that are missing are made.

    Args:
        settings: Where the cells are kept, and their size.
        evaluator: Name of the user of the online phase.
        callback: Receives progress.
        cost: Returns the cost of a domain, by its name; by default the domain's own.
    """
    cells = {(c, seed): Cell(c.domain, c.trained, seed) for seed in settings.seeds for c in COLUMNS}
    made = make_cells(list(cells.values()), settings, callback)
    tables = {
        column: np.stack(
            [
                cost_table(
                    made[cells[column, seed]],
                    get_user(evaluator, get_domain(column.domain), seed=EVALUATION + seed),
                    POLICIES,
                    cost(column.domain) if cost else get_cost(get_domain(column.domain).cost),
                )
                for seed in settings.seeds
            ]
        )
        for column in COLUMNS
    }
    contexts = {column: [made[cells[column, seed]].contexts for seed in settings.seeds] for column in COLUMNS}
    return ColumnCosts(tables, contexts, sum(each.seconds for each in made.values()))


def cost_table(cell: CellResponses, user: User, arms: Sequence[str], cost: Cost) -> NDArray[np.float64]:
    """Return what each round would cost with each arm [T, arms]; NaN for one that the fit left out."""
    columns = []
    for arm in arms:
        responses = cell.responses.get(arm)
        if responses is None:
            columns.append(np.full(len(cell.contexts), np.nan))
            continue
        rounds = enumerate(zip(cell.contexts, responses, strict=True))
        edits = [user.edit(context, response, round=t) for t, (context, response) in rounds]
        columns.append(cost(responses, edits))
    return np.stack(columns, axis=1).astype(np.float64)


def strong_costs(made: CellResponses, cell: Cell, arms: Sequence[str]) -> NDArray[np.float64]:
    """Return what each round costs the strong user of the cell's domain, float64 [T, arms]."""
    domain = get_domain(cell.domain)
    user = get_user("strong", domain, seed=EVALUATION + cell.seed)
    return cost_table(made, user, arms, get_cost(domain.cost))


def play(
    costs: NDArray[np.float64], config: BanditConfig | None = None, contexts: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Return the index of the arm that a bandit plays in each round [T].

    Args:
        costs: What each round costs with each arm [T, arms].
        config: The bandit's configuration; without one, that is Algorithm 1 to the letter.
        contexts: What is asked in each round [T], for a bandit with features.
    """
    config = config or BanditConfig(**ALGORITHM_1)
    bandit = Bandit([str(arm) for arm in range(costs.shape[1])], config)
    chosen = []
    for t, row in enumerate(costs):
        arm = int(bandit.decide(str(t), context=contexts[t] if contexts else None).arm)
        bandit.edited(str(t), float(row[arm]))
        chosen.append(arm)
    return np.array(chosen, np.int64)


class Late(NamedTuple):
    """What LateEnsemble does with the rounds of a column, in several orders of the rounds of each seed.

    Attributes:
        costs: The mean cost of the t-th round over the orders [seeds, T]; NaN for a seed without any arm.
        shares: How often each arm is played in the t-th round, over the orders [seeds, T, arms].
    """

    costs: NDArray[np.float64]
    shares: NDArray[np.float64]

    @classmethod
    def played(
        cls,
        tables: NDArray[np.float64],
        config: BanditConfig,
        contexts: Sequence[Sequence[str]] | None = None,
    ) -> Late:
        """Play `ORDERS` orders of the rounds of each seed.

        Args:
            tables: Costs [seeds, T, arms]; NaN for an arm that a seed does not have.
            config: The bandit's configuration.
            contexts: What is asked in each round [seeds][T], for a bandit with features.
        """
        costs, shares = np.zeros(tables.shape[:2]), np.zeros(tables.shape)
        for seed, table in enumerate(tables):
            rounds = np.arange(len(table))
            if np.isnan(table).any(axis=0).all():
                costs[seed] = np.nan
            asked = None if contexts is None else contexts[seed]
            for order, chosen in played_orders(table, config, seed, asked):
                costs[seed] += incurred_cost(table[order], chosen) / ORDERS
                shares[seed, rounds, chosen] += 1 / ORDERS
        return cls(costs, shares)


def played_orders(
    costs: NDArray[np.float64], config: BanditConfig, seed: int, contexts: Sequence[str] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield `ORDERS` orders of rounds, each with the arm that is played in its t-th round [T], [T].

    Args:
        costs: What each round costs with each arm [T, arms]; NaN for an arm that is not there. Without any,
            nothing is played.
        config: The bandit's configuration.
        seed: The seed of the orders.
        contexts: What is asked in each round [T], for a bandit with features.
    """
    generator, arms = np.random.default_rng(seed), np.flatnonzero(~np.isnan(costs).any(axis=0))
    for _ in range(ORDERS if len(arms) else 0):
        order = generator.permutation(len(costs))
        asked = None if contexts is None else [contexts[t] for t in order]
        yield order, arms[play(costs[order][:, arms], config, asked)]


def late_by_request(
    costs: NDArray[np.float64], values: NDArray[np.float64], config: BanditConfig, seed: int
) -> NDArray[np.float64]:
    """Return what the arm gives that is played for each request, mean over the orders [T, ...].

    Args:
        costs: What each request costs with each arm, by which arms are chosen [T, arms].
        values: What each arm gives for each request [T, arms, ...].
        config: The bandit's configuration.
        seed: The seed of the orders.

    Returns:
        NaN throughout if there is no arm.
    """
    total = np.full_like(values[:, 0], np.nan if np.isnan(costs).any(axis=0).all() else 0.0)
    for order, chosen in played_orders(costs, config, seed):
        total[order] += incurred_cost(values[order], chosen) / ORDERS
    return total


def known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values [n] without those that are NaN, which stand for a policy that the fit left out."""
    return values[~np.isnan(values)]


def incurred_cost(costs: NDArray[np.float64], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cost, or other values, of the chosen arm in each round [T, ...]."""
    return costs[np.arange(len(costs)), chosen]


def _make(job: tuple[Cell, TableSettings]) -> CellResponses:
    cell, settings = job
    folder, started = settings.claim(cell), time.monotonic()
    base = load_base(base_path(cell.domain))
    path = folder / "log.jsonl"
    if not path.is_file():
        write_log(stream_log(cell.world, cell.editor, settings.rows, cell.seed, policy=base), path)
    log = (
        keep_rows(cell.kept, list(read_log(path)), cell.trained, cell.world, base)
        if cell.kept
        else read_log(path)
    )
    run = fit(log, base, folder / "run", settings.config(cell), report=False)
    contexts = list(islice(cell.world.contexts(cell.seed, stream="online"), settings.rounds))
    responses = {}
    for name in run.arm_names():
        with run.policy(name, base) as policy:
            samples = policy.sample(contexts, seed=cell.seed, max_new_tokens=cell.world.max_new_tokens)
        responses[name] = [sample.text for sample in samples]
    made = CellResponses(contexts, responses, time.monotonic() - started)
    write_text(folder / "responses.json", json.dumps(vars(made)))
    return made


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
