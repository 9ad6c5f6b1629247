"""Logs in which some edits are wrong: what each method makes of them, and which filters help.

The user is the strong one, some of whose edits are worse than the draft. Policies are evaluated by a strong
user who makes no mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bandit_settings import ALGORITHM_1
from benchmarks.cells import ARM_COLUMNS, POLICIES, Cell, Late, TableSettings, known, make_cells, strong_costs
from benchmarks.filters import FILTERS, KEPT
from editloop.lab import get_domain
from editloop.offline.plots import colour_of, tidy
from editloop.online import BanditConfig
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, plus_minus, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOMAINS, SEEDS, ROWS, ROUNDS = ("email", "code"), (1, 2), 600, 200
PROBABILITIES = (0.0, 0.1, 0.2, 0.3, 0.5)
FILTERED = 0.3
"""The probability of a wrong edit at which filters are tried."""

NAMES = (*POLICIES, "late")


def run(
    out: str | Path,
    *,
    settings: TableSettings | None = None,
    domains: Sequence[str] = DOMAINS,
    probabilities: Sequence[float] = PROBABILITIES,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure and write `wrong-edits.json`, `wrong-edits.md` and `wrong-edits.png`.

    Args:
        out: The folder for the results.
        settings: Where the policies are kept, and the size of the experiment.
        domains: The domains.
        probabilities: How often an edit is wrong.
        callback: Receives progress.
    """
    settings = settings or TableSettings(rows=ROWS, rounds=ROUNDS, seeds=SEEDS)
    filters = {domain: [name for name in FILTERS if _applies(name, domain)] for domain in domains}
    columns = [(domain, p, "") for domain in domains for p in probabilities]
    columns += [(domain, FILTERED, name) for domain in domains for name in filters[domain]]
    cells = {(column, seed): _cell(column, seed) for column in columns for seed in settings.seeds}
    made = make_cells(list(cells.values()), settings, callback or WarningCallback())
    results: dict[str, Any] = {domain: {"wrong": {}, "filters": {}} for domain in domains}
    for column in columns:
        domain, p, name = column
        mine = [cells[column, seed] for seed in settings.seeds]
        table = np.stack([strong_costs(made[cell], cell, POLICIES) for cell in mine])
        config = BanditConfig(**ALGORITHM_1, cost=get_domain(domain).cost)
        late = Late.played(table[:, :, ARM_COLUMNS], config)
        means = {policy: table[:, :, i].mean(axis=1) for i, policy in enumerate(POLICIES)}
        means["late"] = late.costs.mean(axis=1)
        found = {policy: _mean(values) for policy, values in means.items()}
        if name:
            results[domain]["filters"][name] = found
        else:
            results[domain]["wrong"][f"{p:g}"] = found
    for domain in domains:
        results[domain]["break-even"] = {
            policy: _break_even(results[domain]["wrong"], policy) for policy in NAMES if policy != "base"
        }
    data = {
        "rows": settings.rows,
        "rounds": settings.rounds,
        "seeds": settings.seeds,
        "seconds": round(sum(each.seconds for each in made.values()), 1),
        "results": results,
    }
    write_result("wrong-edits", data, _markdown(data), out, _figure(results))
    return data


def _applies(name: str, domain: str) -> bool:
    """Whether a filter can be used in a domain: only some know whether an edit passes tests."""
    world = get_domain(domain)
    context = next(world.contexts(0))
    return name != "tests" or bool(world.outcomes(context, ""))


def _cell(column: tuple[str, float, str], seed: int) -> Cell:
    domain, p, name = column
    return Cell(domain, f"strong-wrong{f'{p:g}'.lstrip('0')}" if p else "strong", seed, kept=name)


def _mean(values: NDArray[np.float64]) -> list[float] | None:
    """The mean over seeds and its standard deviation, without seeds that lack the policy."""
    there = known(values)
    if not len(there):
        return None
    return [float(there.mean()), float(there.std(ddof=1)) if len(there) > 1 else 0.0]


def _break_even(by_probability: Mapping[str, Mapping[str, Any]], policy: str) -> float | None:
    """How often edits may be wrong until a policy costs as much as the base, by linear interpolation."""
    before: tuple[float, float] | None = None
    for key, found in by_probability.items():
        if found[policy] is None:
            continue
        p, gain = float(key), found["base"][0] - found[policy][0]
        if gain <= 0:
            return p if before is None else before[0] + (p - before[0]) * before[1] / (before[1] - gain)
        before = (p, gain)
    return None


def _show(found: Sequence[float] | None) -> str:
    return "–" if found is None else plus_minus(found[0], found[1])


def _markdown(data: Mapping[str, Any]) -> str:
    parts = [
        f"Mean cost of an edit by a strong user who makes no mistakes, over {data['rounds']} fresh drafts of "
        f"{len(data['seeds'])} seeds, ± sd over seeds. The logs of {data['rows']} rows are of a strong user, "
        "part of whose edits are worse than the draft: one right part is another one, three are, or a word "
        "is missing, a third each."
    ]
    for domain, found in data["results"].items():
        headings = ["policy", *(f"{float(p):.0%} wrong" for p in found["wrong"]), "break-even"]
        rows = []
        for policy in NAMES:
            even = found["break-even"].get(policy)
            measured = any(each[policy] for each in found["wrong"].values())
            last = "" if policy == "base" or not measured else "above all" if even is None else f"{even:.0%}"
            rows.append([policy, *(_show(each[policy]) for each in found["wrong"].values()), last])
        parts += [f"## {domain}", markdown_table(headings, rows)]
        if found["filters"]:
            unfiltered = found["wrong"].get(f"{FILTERED:g}")
            columns = ({"none": unfiltered} if unfiltered else {}) | found["filters"]
            rows = [[policy, *(_show(each[policy]) for each in columns.values())] for policy in NAMES]
            parts += [
                f"Filters, {FILTERED:.0%} of the edits wrong; `agreement` and `predicted` keep {KEPT:.0%} of "
                "the rows.",
                markdown_table(["policy", *columns], rows),
            ]
    return "\n\n".join(parts)


def _figure(results: Mapping[str, Any]) -> Figure:
    """The cost of each policy by how often edits are wrong, with a panel for each domain."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(results), 3), dpi=160, layout="constrained")
    for axes, (domain, found) in zip(
        np.atleast_1d(figure.subplots(1, len(results))), results.items(), strict=True
    ):
        for policy in NAMES:
            points = [(float(p), each[policy][0]) for p, each in found["wrong"].items() if each[policy]]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour_of(policy),
                    label=policy,
                    marker=".",
                    linewidth=1.2,
                )
        tidy(axes, domain, "share of wrong edits", "mean edit cost")
        axes.legend(fontsize=6, frameon=False)
    return figure
