"""Lemma 1: an edit brings a policy nearer to the optimum, by the factor 1 - γ_min or better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from editloop.offline.plots import colour_of, tidy
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.theory.bounds import lemma_1
from editloop.theory.distributions import Floats, total_variation
from editloop.theory.draws import balanced_world, simplex

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {"as it was": 1.0, "a local edit or as it was": 0.5, "a local edit": 0.0}
"""The laziness of the kernel by what a user does who does not write a response of the optimum."""


def run(
    out: str | Path, *, seed: int = 0, worlds: int = 10_000, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure the contraction in random worlds, and write `contraction`.

    Args:
        out: The folder.
        seed: The seed of the worlds.
        worlds: The number of worlds, over all kinds of users.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    rng = np.random.default_rng(seed)
    each = -(-worlds // len(KINDS))
    found: dict[str, Any] = {}
    points: dict[str, Floats] = {}
    for done, (kind, laziness) in enumerate(KINDS.items()):
        rows = np.empty((each, 4))
        for i in range(each):
            world = balanced_world(rng, laziness=laziness)
            policy = simplex(rng, *world.reference.shape)
            left, right = lemma_1(world, policy)
            before = total_variation(policy, world.optimum)
            rows[i] = left[0] / before[0], 1 - world.gamma_min, world.dobrushin, (right - left).min()
            if i % 500 == 0:
                callback.progress("worlds", done * each + i, len(KINDS) * each, kind)
        factor, bound, dobrushin, slack = rows.T
        points[kind] = rows
        found[kind] = {
            "worlds": each,
            "violations": int((slack < -1e-12).sum()),
            "tight": float((np.abs(factor - bound) < 1e-9).mean()),
            "median_factor": float(np.median(factor)),
            "median_dobrushin": float(np.median(dobrushin)),
            "median_bound": float(np.median(bound)),
        }
    table = markdown_table(
        ["otherwise the user leaves", "worlds", "violations", "tight", "factor", "Dobrushin", "1 - γ_min"],
        [
            [
                kind,
                f"{row['worlds']:,}",
                str(row["violations"]),
                f"{row['tight']:.0%}",
                f"{row['median_factor']:.3f}",
                f"{row['median_dobrushin']:.3f}",
                f"{row['median_bound']:.3f}",
            ]
            for kind, row in found.items()
        ],
    )
    page = f"""The factor by which one edit brings a random policy nearer to the optimum,
`TV(q∘π, π*)` divided by `TV(π, π*)`, in random balanced worlds; medians. Lemma 1 bounds it by 1 - γ_min;
Dobrushin's coefficient is the best bound that holds for all policies. `tight` is the share of worlds in
which it equals 1 - γ_min.

{table}"""
    data = {"seed": seed, "kinds": found}
    write_result("contraction", data, page, out, _figure(points), command="editloop theory ")
    return data


def _figure(points: dict[str, Floats]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, (kind, rows) in zip(figure.subplots(1, len(points), sharey=True), points.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="#444444", linewidth=0.8)
        axes.scatter(rows[:, 1], rows[:, 0], s=3, alpha=0.25, color=colour_of("sft"), linewidths=0)
        tidy(
            axes,
            f"else: {kind}",
            "1 - γ_min",
            "measured factor" if axes.get_subplotspec().is_first_col() else "",
        )
    return figure
