"""How SubOpt falls with the size of the log, for strong and weak users, compared to the theory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from editloop.offline.plots import colour_of, tidy
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.theory import bounds
from editloop.theory.distributions import Floats, kl
from editloop.theory.draws import tasteful_world
from editloop.theory.learners import LEARNERS, limit, rl, seen
from editloop.theory.world import World

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USERS = {"strong": 0.9, "medium": 0.5, "weak": 0.1}
"""γ by the name of the user."""

CONCENTRABILITY = 10.0
SIZES = tuple(int(n) for n in np.geomspace(100, 100_000, 7))
RESAMPLES = 1_000

EXACT: Mapping[str, Callable[..., Floats]] = {**LEARNERS, "rl": partial(rl, kappa=0.0)}
"""The learners for which terms are derived."""

TERMS = {"sft": bounds.sft_term, "dpo": bounds.dpo_term, "rl": bounds.rl_term}


def run(
    out: str | Path, *, seed: int = 0, logs: int = 100, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Learn from logs of growing size, and write `rates`.

    Args:
        out: The folder.
        seed: The seed of the worlds and the logs.
        logs: The number of logs for each user; each is learned from at every size.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    found: dict[str, dict[str, Any]] = {}
    rng = np.random.default_rng(seed)
    for user, gamma in USERS.items():
        taste = np.random.default_rng(seed)  # the same for all users
        world = tasteful_world(taste, gamma=gamma, concentrability=CONCENTRABILITY)
        limits = {name: limit(world, name) for name in EXACT}
        subopt, chance = (np.empty((len(EXACT), logs, len(SIZES))) for _ in range(2))
        for log in range(logs):
            # Smaller logs are beginnings of the largest one, so that sizes are compared on the same draws.
            rows = world.sample(SIZES[-1], np.random.default_rng([seed, log]))
            for k, n in enumerate(SIZES):
                shown = seen(world, rows.first(n))
                for i, (name, learner) in enumerate(EXACT.items()):
                    policy = learner(world, shown)
                    subopt[i, log, k] = world.suboptimality(policy)
                    chance[i, log, k] = world.beta * world.mean(kl(policy, limits[name]))
            callback.progress("logs", len(found) * logs + log + 1, len(USERS) * logs, user)
        found[user] = {"gamma": gamma, "gamma_min": world.gamma_min, "beta": world.beta}
        found[user]["bias_bounds"] = {"sft": bounds.sft_bias(world), "dpo": bounds.dpo_bias(world)}
        found[user]["methods"] = {
            name: _method(world, name, world.suboptimality(limits[name]), subopt[i], chance[i], rng)
            for i, name in enumerate(EXACT)
        }
    data = {
        "seed": seed,
        "logs": logs,
        "concentrability": CONCENTRABILITY,
        "sizes": list(SIZES),
        "users": found,
    }
    write_result("rates", data, _page(data), out, _figure(found), command="editloop theory ")
    return data


def _method(
    world: World, name: str, bias: float, subopt: Floats, chance: Floats, rng: np.random.Generator
) -> dict[str, Any]:
    """Return a method's means over logs [logs, sizes], and the exponent of what sampling adds to SubOpt.

    What it adds is β KL(learned ‖ limit). For DPO and RL, whose limit is the optimum, that is SubOpt itself;
    for SFT it is the excess of SubOpt over its limit, without a part whose mean is 0.
    """
    logs = len(subopt)
    draws = rng.integers(logs, size=(RESAMPLES, logs))
    low, high = np.percentile([_slope(chance[some].mean(axis=0)) for some in draws], [2.5, 97.5])
    term = TERMS.get(name)
    return {
        "bias": bias,
        "mean": subopt.mean(axis=0).tolist(),
        "error": (subopt.std(axis=0, ddof=1) / np.sqrt(logs)).tolist(),
        "chance": chance.mean(axis=0).tolist(),
        "exponent": _slope(chance.mean(axis=0)),
        "exponent_95": [float(low), float(high)],
        "term": None if term is None else [term(world, n) for n in SIZES],
    }


def _slope(chance: Floats) -> float:
    """Return the exponent of n, by least squares on logarithms."""
    return float(np.polyfit(np.log(SIZES), np.log(chance), 1)[0])


def _page(data: dict[str, Any]) -> str:
    rows = []
    for user, each in data["users"].items():
        for name, method in each["methods"].items():
            low, high = method["exponent_95"]
            ratio = None
            if method["term"]:
                ratio = method["chance"][-1] / method["term"][-1]
            bound = each["bias_bounds"].get(name, 0.0 if name == "rl" else None)
            rows.append(
                [
                    f"{user} (γ_min {each['gamma_min']:.2f}, β {each['beta']:.2f})",
                    name,
                    f"{method['bias']:.5f}",
                    "-" if bound is None else f"{bound:.5f}",
                    f"{method['mean'][0]:.4f}",
                    f"{method['mean'][-1]:.5f}",
                    f"{method['exponent']:.2f} ({low:.2f} to {high:.2f})",
                    "-" if ratio is None else f"{ratio:.2f}",
                ]
            )
    table = markdown_table(
        [
            "user",
            "method",
            "limit",
            "its bound",
            f"n = {SIZES[0]}",
            f"n = {SIZES[-1]:,}",
            "exponent",
            "/ theory",
        ],
        rows,
        left=2,
    )
    sizes = f"{SIZES[0]} to {SIZES[-1]:,}"
    return f"""SubOpt of the tabular learners (14 strings, the same optimum for all users, `max π*/π_ref`
= {data["concentrability"]:g} by the choice of β), means over {data["logs"]} logs. `limit` is the SubOpt
that remains for an infinite log, with its bound from docs/theory.md. `exponent` is the power of n by which
the part that sampling adds, β KL(learned ‖ limit), falls over {sizes} rows, with a 95% interval by bootstrap
over logs. In theory it tends to -1, because SubOpt is quadratic in the error; the general bounds of Theorems
1-3 promise -1/2. `/ theory` is the ratio of that part to the derived one at the last n. None is derived for
Early.

{table}"""


def _figure(found: dict[str, dict[str, Any]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    for axes, (user, each) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        for name, method in each["methods"].items():
            axes.errorbar(
                SIZES,
                method["mean"],
                method["error"],
                color=colour_of(name),
                label=name,
                marker="o",
                markersize=3,
            )
            if method["term"]:
                theory = np.array(method["term"]) + method["bias"]
                axes.plot(SIZES, theory, color=colour_of(name), linestyle=":", linewidth=1)
        axes.set(xscale="log", yscale="log")
        first = axes.get_subplotspec().is_first_col()
        tidy(axes, f"{user}: γ_min {each['gamma_min']:.2f}", "rows of the log", "SubOpt" if first else "")
        if first:
            axes.legend(fontsize=8, frameon=False)
    return figure
