"""The cells of the paper's tables: what the policies of one log answer in the rounds of the online phase.

A cell is one domain, one user who edited the log, and one seed. It is made once and kept in a folder: the
log, the run folder with the trained policies, and each policy's responses to the contexts of the rounds.
Who evaluates and which algorithm chooses is decided afterwards, on `cost_table`: as a policy's response in
a round is the same whoever asks, a bandit that plays on that table plays the online phase itself.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Cost, get_cost, read_log, write_log
from editloop.io import write_text
from editloop.lab import Domain, base_path, fit_settings, get_domain, stream_log
from editloop.lab.folder import claim
from editloop.lab.log import MAX_NEW_TOKENS
from editloop.lab.settings import LOG_ROWS
from editloop.offline import FitConfig, fit
from editloop.online import Bandit, BanditConfig
from editloop.parallel import in_parallel
from editloop.policy import load_base
from editloop.progress import ProgressCallback
from editloop.users import User, get_user

WORK = Path("benchmarks/work")
"""Where cells are kept."""

SEEDS = (1, 2, 3, 4, 5)
"""The seeds that are reported; hyperparameters were chosen on another (`make bench NAME=tune`)."""

DOMAINS = ("summary", "email")
TRAINED = ("strong", "weak")
ARMS: tuple[str, ...] = ("sft", "dpo", "rl", "early")
"""What LateEnsemble chooses among."""

COMPARED = ("base", *ARMS, "mixture")
"""All policies of a cell that are compared; the arms stand in `AMONG`."""

AMONG = slice(1, 1 + len(ARMS))

ROUNDS = 200
"""T of the online phase."""

EVALUATION = 1000
"""Added to a seed for the user of the online phase, who shares no draw with the one who edited the log."""


class Cell(NamedTuple):
    """A log and the policies that were trained on it.

    Attributes:
        domain: Name of the domain.
        trained: Name of the user who edited the log.
        seed: Of the log, the training and the rounds.
        shifted: Whether that user wants each kind of text as another kind (see `Domain.shifted`).
    """

    domain: str
    trained: str
    seed: int
    shifted: bool = False

    @property
    def world(self) -> Domain:
        """The domain, with what the log's user wants."""
        domain = get_domain(self.domain)
        return domain.shifted() if self.shifted else domain

    @property
    def folder(self) -> Path:
        """Where it lies, below the folder for all."""
        return Path(f"{self.domain}-{self.trained}{'-shifted' * self.shifted}-{self.seed}")


@dataclass(frozen=True)
class Answers:
    """What a cell's policies answered.

    Attributes:
        contexts: Of the rounds [T].
        responses: For each policy, `base` first, its responses [T].
        seconds: That the cell took to make, in one process, since it was last begun.
    """

    contexts: list[str]
    responses: dict[str, list[str]]
    seconds: float


class Workplace(NamedTuple):
    """Where cells are made, how many and how large; tests make small ones.

    Attributes:
        folder: Where cells are kept.
        seeds: The seeds that are reported.
        rounds: T of the online phase.
        rows: Of a log.
        changes: Changes of the fit's configuration, as of `FitConfig.changed`.
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
        """The cell's folder, if what it holds was made as it would be made now.

        Raises:
            RunError: It was not.
        """
        editor = get_user(cell.trained, cell.world, seed=cell.seed)
        settings = {
            "rounds": self.rounds,
            "rows": self.rows,
            "fit": self.config(cell).model_dump(mode="json"),
            "user": dict(editor.settings),
            "domain": cell.world.fingerprint,
            "base": _hash(base_path(cell.domain) / "model.safetensors"),
        }
        claim(self.folder / cell.folder, "cell", settings)
        return self.folder / cell.folder


def make_cells(cells: Sequence[Cell], place: Workplace, callback: ProgressCallback) -> dict[Cell, Answers]:
    """The cells' answers; what is in the folder already is read, and a cell that was cut short goes on."""
    found: dict[Cell, Answers] = {}
    missing = []
    for cell in dict.fromkeys(cells):
        if (file := place.claim(cell) / "answers.json").is_file():
            found[cell] = Answers(**json.loads(file.read_text(encoding="utf-8")))
        else:
            missing.append(cell)
    if missing:
        jobs = [(cell, place) for cell in missing]
        for (cell, _), answers in in_parallel(_make, jobs, "cells", callback):
            callback.message(f"{cell.folder}: {answers.seconds:.0f} s")
            found[cell] = answers
    return {cell: found[cell] for cell in cells}


class Column(NamedTuple):
    """A column of the paper's tables: a domain, and the user whose edits the policies were trained on."""

    domain: str
    trained: str

    @property
    def title(self) -> str:
        """Its heading."""
        return f"{'summaries' if self.domain == 'summary' else 'emails'}, {self.trained}"


COLUMNS = tuple(Column(domain, trained) for domain in DOMAINS for trained in TRAINED)


class Measured(NamedTuple):
    """What the rounds of all columns cost.

    Attributes:
        tables: By column, the cost of each round with each policy of `COMPARED` [seeds, T, policies].
        seconds: What the cells took to make, one after another.
    """

    tables: dict[Column, NDArray[np.float64]]
    seconds: float


def column_costs(
    place: Workplace, evaluator: str, callback: ProgressCallback, cost: Callable[[str], Cost] | None = None
) -> Measured:
    """What the rounds cost the user of that name; cells that are missing are made.

    Args:
        place: Where they are made, and at what size.
        evaluator: Name of the user of the online phase.
        callback: Receives progress.
        cost: Gives the cost for a domain; None for the default one.
    """
    cells = {(c, seed): Cell(c.domain, c.trained, seed) for seed in place.seeds for c in COLUMNS}
    made = make_cells(list(cells.values()), place, callback)
    tables = {
        column: np.stack(
            [
                cost_table(
                    made[cells[column, seed]],
                    get_user(evaluator, get_domain(column.domain), seed=EVALUATION + seed),
                    COMPARED,
                    cost and cost(column.domain),
                )
                for seed in place.seeds
            ]
        )
        for column in COLUMNS
    }
    return Measured(tables, sum(answers.seconds for answers in made.values()))


def cost_table(
    answers: Answers, user: User, arms: Sequence[str], cost: Cost | None = None
) -> NDArray[np.float64]:
    """What each round would cost with each arm, float64 [T, arms]."""
    cost = cost or get_cost()
    columns = []
    for arm in arms:
        responses = answers.responses[arm]
        asked = zip(answers.contexts, responses, strict=True)
        edits = [user.edit(context, text, round=t) for t, (context, text) in enumerate(asked)]
        columns.append(cost(responses, edits))
    return np.stack(columns, axis=1).astype(np.float64)


def strong_costs(answers: Answers, cell: Cell, arms: Sequence[str]) -> NDArray[np.float64]:
    """What each round costs the strong user of the cell's domain [T, arms]."""
    return cost_table(answers, get_user("strong", get_domain(cell.domain), seed=EVALUATION + cell.seed), arms)


def play(costs: NDArray[np.float64], config: BanditConfig | None = None) -> NDArray[np.int64]:
    """The arms that a bandit plays on a table of costs [T, arms]: an index for each round [T]."""
    bandit = Bandit([str(arm) for arm in range(costs.shape[1])], config)
    chosen = []
    for t, row in enumerate(costs):
        arm = int(bandit.decide(str(t)).arm)
        bandit.edited(str(t), float(row[arm]))
        chosen.append(arm)
    return np.array(chosen, np.int64)


def incurred_costs(costs: NDArray[np.float64], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the chosen arms cost, round by round [T]."""
    return costs[np.arange(len(costs)), chosen]


def _make(job: tuple[Cell, Workplace]) -> Answers:
    cell, place = job
    folder, started = place.claim(cell), time.monotonic()
    base = load_base(base_path(cell.domain))
    path = folder / "log.jsonl"
    if not path.is_file():
        editor = get_user(cell.trained, cell.world, seed=cell.seed)
        write_log(stream_log(cell.world, editor, place.rows, cell.seed, policy=base), path)
    run = fit(read_log(path), base, folder / "run", place.config(cell), report=False)
    contexts = list(islice(cell.world.contexts(cell.seed, stream="online"), place.rounds))
    responses = {}
    for name in run.arm_names():
        with run.policy(name, base) as policy:
            samples = policy.sample(contexts, seed=cell.seed, max_new_tokens=MAX_NEW_TOKENS)
        responses[name] = [sample.text for sample in samples]
    answers = Answers(contexts, responses, time.monotonic() - started)
    write_text(folder / "answers.json", json.dumps(vars(answers)))
    return answers


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
