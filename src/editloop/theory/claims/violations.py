"""How the methods do when users violate Assumption 1, and the bounds that hold nevertheless."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from editloop.offline.plots import colour_of, tidy
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.theory.bounds import dpo_bias, lemma_1, sft_bias
from editloop.theory.draws import simplex, tasteful_world, violated_world
from editloop.theory.learners import LEARNERS, METHODS, limit, seen
from editloop.theory.violations import VIOLATIONS, violated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
GAMMA, CONCENTRABILITY, ROWS = 0.5, 10.0, 1_000


def run(
    out: str | Path,
    *,
    seed: int = 0,
    worlds: int = 20,
    checked: int = 2_000,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Let users violate the assumption more and more, check the bounds, and write `violations`.

    Args:
        out: The folder.
        seed: The seed of worlds and logs.
        worlds: The number of random optima for each kind and size of violation.
        checked: The number of random worlds in which the bounds are checked.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    kinds: dict[str, list[dict[str, Any]]] = {}
    for kind in VIOLATIONS:
        kinds[kind] = []
        for share in SHARES:
            kinds[kind].append(_measure(kind, share, seed, worlds))
            done = (len(kinds) - 1) * len(SHARES) + len(kinds[kind])
            callback.progress("violations", done, len(VIOLATIONS) * len(SHARES), kind)
    bounds = _check(seed, checked, callback)
    data: dict[str, Any] = {
        "seed": seed,
        "worlds": worlds,
        "gamma": GAMMA,
        "concentrability": CONCENTRABILITY,
        "rows": ROWS,
    }
    data |= {"kinds": kinds, "bounds": bounds}
    write_result("violations", data, _page(data), out, _figure(kinds), command="editloop theory ")
    return data


def _measure(kind: str, share: float, seed: int, worlds: int) -> dict[str, Any]:
    """Means over random optima of the violation, and of SubOpt in the limit and with a log."""
    measures = np.empty((worlds, 3))
    limits, learned = np.empty((worlds, len(METHODS))), np.empty((worlds, len(METHODS)))
    for number in range(worlds):
        rng = np.random.default_rng([seed, number])
        kept = tasteful_world(rng, gamma=GAMMA, concentrability=CONCENTRABILITY)
        world = violated(kept, kind, share)
        measures[number] = world.imbalance, world.drift, world.gamma_min
        limits[number] = [world.suboptimality(limit(world, name)) / world.beta for name in METHODS]
        data = seen(world, world.sample(ROWS, rng))
        policies = [learner(world, data) for learner in LEARNERS.values()]
        learned[number] = [world.suboptimality(policy) / world.beta for policy in policies]
    imbalance, drift, gamma_min = measures.mean(axis=0)
    return {
        "share": share,
        "imbalance": float(imbalance),
        "drift": float(drift),
        "gamma_min": float(gamma_min),
        "limit": dict(zip(METHODS, limits.mean(axis=0).tolist(), strict=True)),
        "learned": dict(zip(METHODS, learned.mean(axis=0).tolist(), strict=True)),
        "error": dict(zip(METHODS, (learned.std(axis=0, ddof=1) / math.sqrt(worlds)).tolist(), strict=True)),
    }


def _check(seed: int, checked: int, callback: ProgressCallback) -> dict[str, dict[str, Any]]:
    """The number of exceptions to each bound in random worlds, and the share of it that was reached."""
    rng = np.random.default_rng([seed, checked])
    shares: dict[str, list[float]] = {"Lemma 1 with δ": [], "SFT's limit": [], "DPO's limit": []}
    for number in range(checked):
        world = violated_world(rng)
        left, right = lemma_1(world, simplex(rng, *world.reference.shape))
        shares["Lemma 1 with δ"].append(float((left / right).max()))
        shares["SFT's limit"].append(world.suboptimality(limit(world, "sft")) / sft_bias(world))
        # Without a violation the bound and what it bounds are both 0; it is infinite if pairs are missing.
        bound = dpo_bias(world)
        if 1e-9 < bound < math.inf:
            shares["DPO's limit"].append(world.suboptimality(limit(world, "dpo")) / bound)
        if number % 100 == 0:
            callback.progress("bounds", number, checked)
    return {
        name: {
            "worlds": len(each),
            "exceptions": int((np.array(each) > 1 + 1e-9).sum()),
            "median_share": float(np.median(each)),
            "largest_share": float(np.max(each)),
        }
        for name, each in shares.items()
    }


def _page(data: dict[str, Any]) -> str:
    rows = []
    for kind, several in data["kinds"].items():
        for each in several:
            cells = [f"{each['limit'][name]:.3f} · {each['learned'][name]:.3f}" for name in METHODS]
            measured = [f"{each[key]:.3f}" for key in ("imbalance", "drift", "gamma_min")]
            rows.append([kind, f"{each['share']:g}", *measured, *cells])
    table = markdown_table(["violation", "share", "imbalance", "δ", "γ_min", *METHODS], rows)
    checks = markdown_table(
        ["bound", "worlds", "exceptions", "share of it that is reached, median", "at most"],
        [
            [
                name,
                f"{c['worlds']:,}",
                str(c["exceptions"]),
                f"{c['median_share']:.3f}",
                f"{c['largest_share']:.3f}",
            ]
            for name, c in data["bounds"].items()
        ],
    )
    parts = f"14 strings, γ = {data['gamma']:g}, `max π*/π_ref` = {data['concentrability']:g} at share 0"
    return f"""SubOpt/β, which is `KL(π ‖ π*)`, of the tabular learners when a share of the edits violates
Assumption 1 ({parts}; means over {data["worlds"]} random optima): in the limit of an infinite log · with
{data["rows"]:,} rows (RL with κ = 1). The optimum is that of the violating user's own costs.
`imbalance` is half the sum of `|π*(y) q(y'|y) - π*(y') q(y|y')|`, δ the part of it that moves the
optimum.

{table}

The bounds of docs/theory.md for users who violate it, in random worlds:

{checks}"""


def _figure(kinds: dict[str, list[dict[str, Any]]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, (kind, several) in zip(figure.subplots(1, len(kinds), sharey=True), kinds.items(), strict=True):
        for name in METHODS:
            axes.plot(SHARES, [each["limit"][name] for each in several], color=colour_of(name), label=name)
            axes.errorbar(
                SHARES,
                [each["learned"][name] for each in several],
                [each["error"][name] for each in several],
                color=colour_of(name),
                linestyle=":",
            )
        first = axes.get_subplotspec().is_first_col()
        tidy(axes, kind, "share of edits", "SubOpt/β: limit —, 1,000 rows ···" if first else "")
        if first:
            axes.legend(fontsize=8, frameon=False)
    return figure
