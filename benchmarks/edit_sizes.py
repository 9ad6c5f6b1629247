"""Users whose edits vary much in size, where the second write-up says that learning from costs shines.

Three logs of the same base: a user who mostly repairs next to nothing and rewrites one draft in ten, and
the two users of whom that one is made. From each, the methods that read costs (RL by pairwise regression at
several κ, the cost gradient) are trained beside those that read edits, and all are evaluated by the strong
user.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import WORK
from benchmarks.cells import Cell, CellResponses, TableSettings, make_cells, strong_costs
from editloop.edits import get_cost, read_log
from editloop.lab import get_domain
from editloop.offline import mix_by_cost
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, plus_minus, write_result

DOMAIN, SEEDS, ROWS, ROUNDS = "email", (1, 2, 3), 600, 200
USERS = ("weak", "uneven.1", "strong")
KAPPAS = (0.0, 0.5, 1.0, 2.0)
METHODS = ("sft", "dpo", "early", "cost_gradient")
"""The methods beside RL, trained in one run; RL has a run for each κ, so that all of them can be compared."""

ROWS_OF_TABLE = (
    "base",
    *METHODS,
    *(f"rl, κ {kappa:g}" for kappa in KAPPAS),
    "mixture by likelihood",
    "mixture by cost",
)


class Fit(NamedTuple):
    """A fit of a part of the methods."""

    label: str
    changes: tuple[tuple[str, Any], ...]


FITS = (
    Fit("edits", (("methods", METHODS),)),
    *(
        Fit(
            f"rl-{kappa:g}",
            (("methods", ("rl",)), ("rl.kappa", (kappa,)), ("rl.loss", ("pairwise",)), ("rl.beta", (0.1,))),
        )
        for kappa in KAPPAS
    ),
)


def run(
    out: str | Path,
    *,
    settings: TableSettings | None = None,
    fits: tuple[Fit, ...] = FITS,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure and write `edit-sizes.json` and `edit-sizes.md`.

    Args:
        out: The folder for the results.
        settings: Where the policies are kept, and the size of the experiment.
        fits: What is trained.
        callback: Receives progress.
    """
    settings = settings or TableSettings(WORK / "edit-sizes", rows=ROWS, rounds=ROUNDS, seeds=SEEDS)
    callback, seconds = callback or WarningCallback(), 0.0
    costs: dict[str, list[dict[str, NDArray[np.float64]]]] = {
        user: [{} for _ in settings.seeds] for user in USERS
    }
    for part in fits:
        own = settings._replace(
            folder=settings.folder / part.label, changes=(*settings.changes, *part.changes)
        )
        cells = {(user, seed): Cell(DOMAIN, user, seed) for user in USERS for seed in own.seeds}
        made = make_cells(list(cells.values()), own, callback)
        seconds += sum(each.seconds for each in made.values())
        for user in USERS:
            for known, seed in zip(costs[user], own.seeds, strict=True):
                known |= _named(made[cells[user, seed]], cells[user, seed], part)
    results = {user: _results(costs[user]) for user in USERS}
    sizes = {user: _sizes(settings, fits[0], user) for user in USERS}
    data = {
        "rows": settings.rows,
        "rounds": settings.rounds,
        "seeds": settings.seeds,
        "seconds": round(seconds, 1),
        "sizes": sizes,
        "results": results,
    }
    write_result("edit-sizes", data, _markdown(data), out)
    return data


def _named(made: CellResponses, cell: Cell, part: Fit) -> dict[str, NDArray[np.float64]]:
    """What the rounds of a fit's policies cost, by the names of the table."""
    names = list(made.responses)
    table = strong_costs(made, cell, names)
    kappa = dict(part.changes).get("rl.kappa")
    shown = {"mixture": "mixture by likelihood", **({"rl": f"rl, κ {kappa[0]:g}"} if kappa else {})}
    return {shown.get(name, name): table[:, i] for i, name in enumerate(names)}


def _results(seeds: list[dict[str, NDArray[np.float64]]]) -> dict[str, list[float] | None]:
    """Mean cost over seeds with its standard deviation.

    The mixture by cost gives all weight to the policy that is cheapest on one half of the rounds, and is
    measured on the other; either half is measured once.
    """
    means: dict[str, list[float]] = {name: [] for name in ROWS_OF_TABLE}
    for found in seeds:
        half = len(next(iter(found.values()))) // 2
        choices = {
            name: values for name, values in found.items() if name not in ("base", "mixture by likelihood")
        }
        mixed = []
        for own, other in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
            costs = {name: values[own].tolist() for name, values in choices.items()}
            weights = mix_by_cost(costs).weights
            mixed.append(sum(weight * choices[name][other] for name, weight in weights.items()))
        for name, values in {**found, "mixture by cost": np.concatenate(mixed)}.items():
            means[name].append(float(values.mean()))
    return {
        name: [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]
        if values
        else None
        for name, values in means.items()
    }


def _sizes(settings: TableSettings, part: Fit, user: str) -> dict[str, float]:
    """How the costs of a user's edits are spread in the log of the first seed."""
    log = read_log(settings.folder / part.label / Cell(DOMAIN, user, settings.seeds[0]).folder / "log.jsonl")
    rows = list(log)
    costs = get_cost(get_domain(DOMAIN).cost)(
        [row.response for row in rows], [row.edit or "" for row in rows]
    )
    median, high = np.quantile(costs, (0.5, 0.95))
    return {
        "mean": float(costs.mean()),
        "variation": float(costs.std() / costs.mean()),
        "median": median,
        "q95": high,
    }


def _markdown(data: Mapping[str, Any]) -> str:
    sizes = "; ".join(
        f"{user}: mean {each['mean']:.2f}, median {each['median']:.2f}, 95% below {each['q95']:.2f}, "
        f"coefficient of variation {each['variation']:.2f}"
        for user, each in data["sizes"].items()
    )
    rows = []
    for name in ROWS_OF_TABLE:
        cells = [data["results"][user][name] for user in USERS]
        rows.append([name, *("–" if cell is None else plus_minus(*cell) for cell in cells)])
    return "\n\n".join(
        [
            f"Mean cost of an edit by the strong user over {data['rounds']} fresh drafts of "
            f"{len(data['seeds'])} seeds, ± sd over seeds, after training on {data['rows']} rows by each of "
            f"three users of the domain `{DOMAIN}`. The mixture by cost is chosen on one half of the "
            "rounds and measured on the other, both ways; the mixture by likelihood is of the methods that "
            "read edits and the cost gradient.",
            f"What the edits cost in the logs: {sizes}.",
            markdown_table(["policy", *(f"log of the {user} user" for user in USERS)], rows),
        ]
    )
