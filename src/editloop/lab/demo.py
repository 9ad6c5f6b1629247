"""The whole loop on the embedded world: logs, a check of them, policies, and what they cost two users.

A base is deployed to a strong and to a weak user. From each log SFT, DPO and EarlyEnsemble are trained,
and every policy then answers fresh contexts of both users. At last LateEnsemble chooses among them, round
by round, while the strong user edits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from editloop.edits import LogSummary, plot_costs, read_log, summarize, write_log
from editloop.io import write_bytes, write_text
from editloop.lab.domains import base_path, get_domain
from editloop.lab.evaluation import Evaluation, evaluate_on_user
from editloop.lab.folder import claim
from editloop.lab.log import stream_log
from editloop.lab.settings import LOG_ROWS, fit_settings
from editloop.lab.simulation import Simulation, plot_rounds, simulate
from editloop.offline import FitConfig, fit
from editloop.offline.report import COLOURS, Section, figure_png, run_sections, tidy, write_report
from editloop.policy import RunFolder, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.users import get_user

__all__ = ["DemoResult", "run_demo"]

USERS = ("strong", "weak")


@dataclass(frozen=True)
class DemoResult:
    """What a demo came to.

    Attributes:
        report: The HTML report.
        costs: For each log's user and policy, the evaluation by each user.
        online: For each log's user, the rounds of LateEnsemble with the strong user.
        seconds: How long it took.
    """

    report: Path
    costs: Mapping[str, Mapping[str, Mapping[str, Evaluation]]]
    online: Mapping[str, Simulation]
    seconds: float

    def table(self) -> list[list[str]]:
        """Mean cost ± standard error, a row for each log and policy, a column for each user."""
        rows = [
            ["trained on edits of", "policy", *(f"cost to the {user} user" for user in USERS), "well-formed"]
        ]
        for trained, policies in self.costs.items():
            for name, by_user in policies.items():
                cells = [f"{by_user[u].mean:.3f} ± {by_user[u].standard_error:.3f}" for u in USERS]
                rows.append([trained, name, *cells, f"{by_user[USERS[0]].share_well_formed:.0%}"])
            if trained in self.online:
                rows.append([trained, "late", f"{self.online[trained].mean:.3f} by round", "", ""])
        return rows


def run_demo(
    out: Path,
    *,
    rows: int = LOG_ROWS,
    responses: int = 200,
    seed: int = 0,
    config: FitConfig | None = None,
    callback: ProgressCallback | None = None,
) -> DemoResult:
    """Run the demo.

    Args:
        out: Folder for the logs, the run folders and the report; an interrupted demo in it goes on.
        rows: Rows of each log.
        responses: Fresh contexts that each policy answers.
        seed: Of the logs and the evaluation.
        config: How the policies are trained; by default as `fit_settings` says.
        callback: Receives decisions and progress.

    Raises:
        RunError: The folder holds another demo.
    """
    callback, started = callback or WarningCallback(), time.monotonic()
    config = config or fit_settings("email")
    claim(out, "demo", {"rows": rows, "seed": seed})
    domain, base = get_domain("email"), load_base(base_path("email"))
    sections: list[Section] = []
    costs: dict[str, dict[str, dict[str, Evaluation]]] = {}
    online: dict[str, Simulation] = {}
    for user in USERS:
        callback.message(f"\n1. The base writes {rows} emails; the {user} user edits them.")
        path = out / f"{user}.jsonl"
        if not path.is_file():
            editor = get_user(user, domain, seed=seed)
            made = stream_log(domain, editor, rows, seed, policy=base)
            write_log(_counted(made, rows, callback), path)
        callback.message("2. The log is checked.")
        log = read_log(path)
        summary = summarize(log)
        callback.message("   " + log_line(summary))
        callback.message("3. Policies are trained from it.")
        run = fit(log, base, out / user, config, report=False, callback=callback)
        callback.message("4. Every policy answers fresh contexts of both users.")
        costs[user] = _evaluate(run, domain, base, responses, seed, callback, with_base=not costs)
        callback.message(f"5. LateEnsemble chooses among them for {responses} rounds, the strong user edits.")
        contexts = list(islice(domain.contexts(seed + 1, stream="online"), responses))
        rounds = out / f"{user}-{responses}-rounds"
        editor = get_user("strong", domain, seed=seed + 1)
        online[user] = simulate(run, base, contexts, editor, rounds, seed=seed + 1, callback=callback)
        plots = plot_costs(summary, out / user)
        sections.append(Section(f"The log of the {user} user", [log_line(summary)], images=plots))
        sections += [_titled(section, user) for section in run_sections(run)]
    base_costs = {"none": {"base": costs[USERS[0]].pop("base")}}
    result_costs = {**base_costs, **costs}
    seconds = time.monotonic() - started
    result = DemoResult(out / "report.html", result_costs, online, seconds)
    figure = figure_png(_bars(result_costs))
    write_bytes(out / "costs.png", figure)
    summary_sections = [
        Section(
            "What the policies cost",
            [
                f"Mean edit cost (levenshtein:word/response) ± standard error over {responses} fresh "
                "contexts, lower is better. A strong user repairs nearly every wrong part of an email, "
                "a weak one few.",
            ],
            table=result.table(),
            images=[figure],
        ),
        *(_online(trained, simulation) for trained, simulation in online.items()),
        _before_and_after(result_costs),
    ]
    write_report(
        result.report,
        "EditLoop: the demo",
        f"From {rows} edited emails of each of two users to three policies each, in {seconds:.0f} s.",
        summary_sections + sections,
    )
    write_text(out / "demo.json", json.dumps(_numbers(result), indent=2) + "\n")
    return result


def log_line(summary: LogSummary) -> str:
    """A log in a line."""
    cost = summary.all.mean_cost
    return (
        f"{summary.rows} rows, {summary.all.share_edited or 0:.0%} edited, "
        f"mean cost {cost:.3f}, {summary.shared or 0:.0%} of a pair's words shared"
        if cost is not None
        else f"{summary.rows} rows, none observed"
    )


def _counted(records: Any, rows: int, callback: ProgressCallback) -> Any:
    for done, record in enumerate(records, 1):
        callback.progress("log", done, rows)
        yield record


def _evaluate(
    run: RunFolder,
    domain: Any,
    base: Any,
    responses: int,
    seed: int,
    callback: ProgressCallback,
    *,
    with_base: bool,
) -> dict[str, dict[str, Evaluation]]:
    names = [*(["base"] if with_base else []), *run.policy_names()]
    found: dict[str, dict[str, Evaluation]] = {}
    for done, name in enumerate(names):
        callback.progress("evaluation", done, len(names), name)
        with run.policy(name, base) as policy:
            found[name] = {
                user: evaluate_on_user(
                    policy, domain, get_user(user, domain, seed=seed + 1), responses, seed + 1
                )
                for user in USERS
            }
    callback.progress("evaluation", len(names), len(names))
    return found


def _online(trained: str, simulation: Simulation) -> Section:
    """The rounds of LateEnsemble."""
    shares = ", ".join(f"{arm} {simulation.share(arm):.0%}" for arm in simulation.bandit.arms)
    return Section(
        f"LateEnsemble online (policies of the {trained} user's log)",
        [
            f"{len(simulation.rounds)} rounds with the strong user: mean cost {simulation.mean:.3f}; "
            f"rounds by policy: {shares}."
        ],
        images=[figure_png(plot_rounds(simulation))],
    )


def _titled(section: Section, user: str) -> Section:
    return Section(**{**vars(section), "title": f"{section.title} ({user} user's log)"})


def _bars(costs: Mapping[str, Mapping[str, Mapping[str, Evaluation]]]) -> Any:
    """Mean cost of each policy, a panel for each evaluating user."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 2.9), dpi=160, layout="constrained")
    bars = [(trained, name) for trained, policies in costs.items() for name in policies]
    first = figure.add_subplot(1, len(USERS), 1)
    for i, user in enumerate(USERS):
        axes = first if i == 0 else figure.add_subplot(1, len(USERS), i + 1, sharey=first)
        for x, (trained, name) in enumerate(bars):
            evaluation = costs[trained][name][user]
            axes.bar(
                x, evaluation.mean, 0.72, color=COLOURS[name], yerr=evaluation.standard_error, ecolor="#333"
            )
        tidy(axes, f"evaluated by the {user} user", "", "" if i else "mean edit cost")
        labels = [name if trained == "none" else f"{name}\n{trained}" for trained, name in bars]
        axes.set_xticks(range(len(bars)), labels, fontsize=7)
    return figure


def _before_and_after(costs: Mapping[str, Mapping[str, Mapping[str, Evaluation]]]) -> Section:
    """The same contexts answered by the base and by the policies of the strong user's log."""
    base, trained = costs["none"]["base"]["strong"], costs["strong"]
    texts = []
    for i in range(2):
        shown = {"notes": base.contexts[i], "base": base.responses[i]}
        shown |= {name: by_user["strong"].responses[i] for name, by_user in trained.items()}
        shown["edit of the base's"] = base.edits[i]
        texts.append(shown)
    return Section("Before and after", ["Policies trained on the strong user's edits."], texts=texts)


def _numbers(result: DemoResult) -> dict[str, Any]:
    return {
        "seconds": round(result.seconds, 1),
        "costs": {
            trained: {
                name: {
                    user: {"mean": e.mean, "se": e.standard_error, "well_formed": e.share_well_formed}
                    for user, e in by_user.items()
                }
                for name, by_user in policies.items()
            }
            for trained, policies in result.costs.items()
        },
        "online": {
            trained: {
                "mean": simulation.mean,
                "shares": {arm: simulation.share(arm) for arm in simulation.bandit.arms},
            }
            for trained, simulation in result.online.items()
        },
    }
