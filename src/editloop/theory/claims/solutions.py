"""How many balanced users fit one description, given that cost, user and optimum depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from editloop.offline.plots import colour_of, tidy
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.theory.balance import Description
from editloop.theory.distributions import total_variation
from editloop.theory.fixed_points import Solutions, balanced
from editloop.theory.responses import edit_distances, neighbours, strings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETAS = (0.1, 0.25, 0.5, 1.0, 2.0)
GAMMA = 0.9


def run(
    out: str | Path,
    *,
    seed: int = 0,
    worlds: int = 50,
    starts: int = 12,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Solve random descriptions on the 14 strings over {a, b} of length 1 to 3, and write `solutions`.

    Args:
        out: The folder.
        seed: The seed of references and starts.
        worlds: The number of random references.
        starts: The number of random starts for each, by damped iteration and by Newton's method.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    distance = edit_distances(strings("ab", 3))
    proposal = neighbours(distance)
    rows: list[dict[str, Any]] = []
    for beta in BETAS:
        found = []
        for number in range(worlds):
            # The same references for every β, so that β alone makes the difference.
            rng = np.random.default_rng([seed, number])
            reference = rng.dirichlet(np.ones(len(distance)))
            description = Description(reference, distance, beta, GAMMA, proposal)
            found.append(balanced(description, starts=starts, rng=rng))
            callback.progress(
                "descriptions", len(rows) * worlds + number + 1, len(BETAS) * worlds, f"β {beta}"
            )
        rows.append(_row(beta, found))
    page = _page(rows, worlds, starts)
    data = {"seed": seed, "gamma": GAMMA, "worlds": worlds, "starts": starts, "betas": rows}
    write_result("solutions", data, page, out, _figure(rows, worlds), command="editloop theory ")
    return data


def _row(beta: float, found: Sequence[Solutions]) -> dict[str, Any]:
    """Return the figures of all descriptions with one β."""
    attracting = [sum(each.attracts for each in one.found) for one in found]
    return {
        "beta": beta,
        "lipschitz": found[0].lipschitz,
        "unique_proved": found[0].unique,
        "several": sum(len(one.found) > 1 for one in found),
        "several_attracting": sum(count > 1 for count in attracting),
        "solutions": [len(one.found) for one in found],
        "attracting": attracting,
        "followed_without_jump": sum(one.jump < 0.1 for one in found),
        "apart": float(np.mean([_apart(one) for one in found])),
        "worst_residual": max(each.residual for one in found for each in one.found),
    }


def _page(rows: Sequence[dict[str, Any]], worlds: int, starts: int) -> str:
    """Return the figures as a page."""
    table = markdown_table(
        ["β", "L", "with several", "with several that attract", "most", "furthest apart", "residual"],
        [
            [
                f"{row['beta']:g}",
                f"{row['lipschitz']:.2f}",
                f"{row['several']} of {worlds}",
                f"{row['several_attracting']} of {worlds}",
                str(max(row["solutions"])),
                f"{row['apart']:.2f}",
                f"{row['worst_residual']:.0e}",
            ]
            for row in rows
        ],
    )
    return f"""The 14 strings over {{a, b}} of length 1 to 3 with their edit distances, γ = {GAMMA:g}, local
edits to neighbours, {worlds} random references, {starts} random starts for each by damped iteration and by
Newton's method. Where L < 1 the user is proved to be unique; `furthest apart` is the mean over references of
the largest total variation between two solutions' optima.

{table}"""


def _apart(found: Any) -> float:
    optima = [np.exp(each.log_optimum) for each in found.found]
    return max((float(total_variation(p, q)) for p in optima for q in optima), default=0.0)


def _figure(rows: list[dict[str, Any]], worlds: int) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    for shift, key, label, colour in (
        (-0.2, "several", "several solutions", colour_of("sft")),
        (0.2, "several_attracting", "several that attract", colour_of("dpo")),
    ):
        axes.bar(places + shift, [row[key] / worlds for row in rows], 0.38, label=label, color=colour)
    axes.set_xticks(
        places, [f"{row['beta']:g}" + ("\nunique" if row["unique_proved"] else "") for row in rows]
    )
    axes.legend(fontsize=8, frameon=False)
    tidy(axes, "Descriptions that several users fit", "β", "share of references")
    return figure
