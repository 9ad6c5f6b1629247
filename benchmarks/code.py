"""The code agent of the second write-up, in the lab: pass@1 and the cost of an edit by what is asked.

Policies are trained on what a strong and a weak user make of the base's functions, and answer fresh
requests. Every text is run in the sandbox, also one that is not of the lab's little language; what the
user's edit of it costs is in tokens of code. LateEnsemble chooses among the trained policies by the costs
alone, and never sees a verdict.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.bandit_settings import ALGORITHM_1
from benchmarks.cells import (
    ARM_COLUMNS,
    ORDERS,
    POLICIES,
    SEEDS,
    TRAINED,
    Cell,
    CellResponses,
    TableSettings,
    late_by_request,
    make_cells,
    strong_costs,
)
from benchmarks.tables import ROWS as ROWS_OF_TABLE
from editloop.io import write_text
from editloop.lab.code.behaviour import checks_of
from editloop.lab.code.tasks import STRATA
from editloop.lab.domains.code import CODE
from editloop.offline.plots import colour_of, tidy
from editloop.online import BanditConfig
from editloop.progress import ProgressCallback, WarningCallback, counter
from editloop.results import markdown_table, write_result
from editloop.sandbox import Limits, Program, Sandbox

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, ROUNDS = 800, 300
"""Rows of a log, and fresh requests of a seed: a hundred of each stratum."""

LATE = {"late": BanditConfig(**ALGORITHM_1, cost=CODE.cost), "default": BanditConfig(cost=CODE.cost)}
TITLES = ROWS_OF_TABLE
"""The policies in the order of the columns of the tables: those of a cell, then those of `LATE`."""

WRITE_UP = {"sft": 0.568, "dpo": 0.583, "rl": 0.561, "late": 0.612}
"""Pass@1 on mixed requests in the second write-up, where the third is cost-based learning, and the last an
ensemble."""

BOOTSTRAP = 2000


class Answers(NamedTuple):
    """What the policies of a column answered; NaN for a policy that a fit left out.

    Attributes:
        passed: Whether each answer passes its tests, float64 [seeds, T, policies].
        costs: What the strong user's edit of it costs, float64 [seeds, T, policies].
        strata: The stratum of each request [seeds, T].
        became: How many texts came to which end in the sandbox.
        unread: How many texts are not of the language, and how many of those pass.
    """

    passed: NDArray[np.float64]
    costs: NDArray[np.float64]
    strata: NDArray[np.str_]
    became: Counter[str]
    unread: tuple[int, int]


def run(
    out: str | Path,
    *,
    settings: TableSettings | None = None,
    limits: Limits | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure and write `code.json`, `code.md` and `code.png`.

    Args:
        out: The folder for the results.
        settings: Where the policies are kept, and the size of the experiment.
        limits: What an answer may use in the sandbox.
        callback: Receives progress.

    Raises:
        SandboxError: No sandbox can be made here.
    """
    settings = settings or TableSettings(rows=ROWS, rounds=ROUNDS, seeds=SEEDS)
    callback, sandbox = callback or WarningCallback(), Sandbox(limits)
    cells = [Cell(CODE.name, trained, seed) for trained in TRAINED for seed in settings.seeds]
    made = make_cells(cells, settings, callback)
    results: dict[str, Any] = {}
    found: dict[str, Answers] = {}
    for trained in TRAINED:
        mine = [cell for cell in cells if cell.trained == trained]
        found[trained] = _answers([(cell, made[cell]) for cell in mine], settings, sandbox, callback)
        results[trained] = _figures(found[trained])
    became = sum((each.became for each in found.values()), Counter[str]())
    data = {
        "rows": settings.rows,
        "rounds": settings.rounds,
        "seeds": settings.seeds,
        "seconds": round(sum(each.seconds for each in made.values()), 1),
        "sandbox": dict(became),
        "not of the language": [sum(each.unread[i] for each in found.values()) for i in (0, 1)],
        "results": results,
    }
    write_result("code", data, _markdown(data), out, _figure(results))
    return data


def passed(
    responses: Sequence[str], contexts: Sequence[str], sandbox: Sandbox, callback: ProgressCallback
) -> list[str]:
    """Return what came of each response in the sandbox: `passed`, `wrong`, or another status of an
    execution."""
    programs, expected = [], []
    for context, response in zip(contexts, responses, strict=True):
        wanted = CODE.wanted(context)
        tests = checks_of(wanted)
        programs.append(Program(response, wanted["name"], tuple(test.arguments for test in tests)))
        expected.append(tuple(test.expected for test in tests))
    found = sandbox.run(programs, progress=counter(callback, "programs", len(programs)))
    # On a busy machine the start of a sandbox takes time, too: what took too long is tried once more, alone.
    slow = [i for i, each in enumerate(found) if each.status in ("timeout", "crashed")]
    alone = Sandbox(sandbox.limits, workers=1).run([programs[i] for i in slow])
    for i, execution in zip(slow, alone, strict=True):
        found[i] = execution
    verdicts = list[str]()
    for execution, values in zip(found, expected, strict=True):
        verdicts.append(
            "passed" if execution.gives(values) else "wrong" if execution.done else execution.status
        )
    return verdicts


def _answers(
    cells: Sequence[tuple[Cell, CellResponses]],
    settings: TableSettings,
    sandbox: Sandbox,
    callback: ProgressCallback,
) -> Answers:
    """What the policies of some cells answered; verdicts are kept beside the answers."""
    verdicts, costs, strata, became, unread = [], [], [], Counter[str](), [0, 0]
    for cell, made in cells:
        file = settings.folder / cell.folder / "verdicts.json"
        if not file.is_file():
            run = {
                arm: passed(texts, made.contexts, sandbox, callback) for arm, texts in made.responses.items()
            }
            write_text(file, json.dumps(run))
        known: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))
        table = np.full((len(made.contexts), len(POLICIES)), np.nan)
        for column, arm in enumerate(POLICIES):
            if arm in known:
                table[:, column] = [verdict == "passed" for verdict in known[arm]]
                became.update(known[arm])
                for text, verdict in zip(made.responses[arm], known[arm], strict=True):
                    if CODE.parse(text) is None:
                        unread[0] += 1
                        unread[1] += verdict == "passed"
        verdicts.append(table)
        costs.append(strong_costs(made, cell, POLICIES))
        strata.append([CODE.read(context).stratum for context in made.contexts])
    return Answers(np.stack(verdicts), np.stack(costs), np.array(strata), became, (unread[0], unread[1]))


def _figures(answers: Answers) -> dict[str, Any]:
    """Mean pass@1 and cost with their intervals, by stratum and policy."""
    tables = {"pass": answers.passed, "cost": answers.costs}
    arms = np.stack([table[:, :, ARM_COLUMNS] for table in tables.values()], axis=3)
    for config in LATE.values():
        played = np.stack(
            [
                late_by_request(costs[:, ARM_COLUMNS], arms[seed], config, seed)
                for seed, costs in enumerate(answers.costs)
            ]
        )
        tables = {key: np.dstack([tables[key], played[:, :, i]]) for i, key in enumerate(tables)}
    found: dict[str, Any] = {}
    for stratum in (*STRATA, "all"):
        mask = np.ones_like(answers.strata, bool) if stratum == "all" else answers.strata == stratum
        found[stratum] = {
            policy: {key: _interval(table[:, :, i], mask) for key, table in tables.items()}
            for i, policy in enumerate(TITLES)
        }
    return found


def _interval(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> list[float] | None:
    """Mean and 95% interval by bootstrap over seeds and, within each, over requests; None without a value."""
    seeds = [
        row[kept]
        for row, kept in zip(values, mask, strict=True)
        if kept.any() and not np.isnan(row[kept]).any()
    ]
    if not seeds:
        return None
    generator = np.random.default_rng(0)
    drawn = np.empty((BOOTSTRAP, len(seeds)))
    for i, row in enumerate(seeds):
        drawn[:, i] = row[generator.integers(0, len(row), (BOOTSTRAP, len(row)))].mean(axis=1)
    picked = generator.integers(0, len(seeds), (BOOTSTRAP, len(seeds)))
    means = np.take_along_axis(drawn, picked, axis=1).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return [float(np.mean([row.mean() for row in seeds])), float(low), float(high)]


def _cell(found: list[float] | None) -> str:
    return "–" if found is None else f"{found[0]:.3f} [{found[1]:.3f}, {found[2]:.3f}]"


def _markdown(data: Mapping[str, Any]) -> str:
    count, passing = data["not of the language"]
    parts = [
        f"{len(data['seeds'])} seeds; logs of {data['rows']} rows by a strong and by a weak user, "
        f"{data['rounds']} fresh requests each. Pass@1 is the share of answers that pass all tests of their "
        "request in the sandbox, one answer for each request. The cost is that of the strong user's edit "
        f"(`{CODE.cost}`). In brackets 95% intervals by bootstrap over seeds and requests. LateEnsemble "
        f"chooses by costs among SFT, DPO, RL and EarlyEnsemble, over {ORDERS} orders of the requests, its "
        "exploration included.",
        f"Of all {sum(data['sandbox'].values()):,} texts: "
        + ", ".join(f"{number:,} {status}" for status, number in sorted(data["sandbox"].items()))
        + f". {count:,} are not of the lab's language, of which {passing:,} pass.",
    ]
    for key, title in (("pass", "Pass@1"), ("cost", "Cost of an edit")):
        for trained in data["results"]:
            strata = data["results"][trained]
            headings = ["policy", *strata] + (["write-up, mixed"] if key == "pass" else [])
            rows = []
            for policy, name in TITLES.items():
                cells = [_cell(strata[stratum][policy][key]) for stratum in strata]
                given = WRITE_UP.get(policy)
                more = ["" if given is None else f"{given:.3f}"] if key == "pass" else []
                rows.append([name, *cells, *more])
            parts += [f"## {title}, trained on the {trained} user's edits", markdown_table(headings, rows)]
    return "\n\n".join(parts)


def _figure(results: Mapping[str, Any]) -> Figure:
    """Pass@1 of each policy by stratum, with a panel for each user whose edits were learned from."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), dpi=160, layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True)
    policies = [policy for policy in TITLES if policy != "default"]
    for axes, (trained, strata) in zip(panels, results.items(), strict=True):
        for i, policy in enumerate(policies):
            for x, stratum in enumerate(STRATA):
                found = strata[stratum][policy]["pass"]
                if found is None:
                    continue
                mean, low, high = found
                place = x + (i - (len(policies) - 1) / 2) * 0.11
                label = TITLES[policy].split(",")[0] if x == 0 else None
                axes.bar(place, mean, 0.1, color=colour_of(policy), label=label)
                axes.errorbar(place, mean, [[mean - low], [high - mean]], color="#333", linewidth=0.7)
        tidy(axes, f"trained on the {trained} user's edits", "", "pass@1" if trained == TRAINED[0] else "")
        axes.set_xticks(range(len(STRATA)), list(STRATA))
    panels[-1].legend(fontsize=6, frameon=False, loc="lower right")
    return figure
