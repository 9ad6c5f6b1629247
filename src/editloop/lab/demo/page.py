"""The page of a demo: the verdict, what the policies cost, drafts before and after, and both runs in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from editloop.edits.cost import describe_cost
from editloop.io import write_bytes
from editloop.lab.demo.result import EVALUATOR, USERS, DemoResult
from editloop.lab.demo.settings import DemoSettings
from editloop.lab.domains import get_domain
from editloop.lab.simulation import Simulation, plot_rounds
from editloop.offline.methods import METHODS
from editloop.offline.page import Comparison, Draft, Section, write_report
from editloop.offline.plots import colour_of, figure_png, tidy
from editloop.offline.report import run_sections
from editloop.policy import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_demo_page"]

SHOWN = 2
"""The number of contexts whose drafts are shown."""


def write_demo_page(result: DemoResult, settings: DemoSettings) -> None:
    """Write the report of a demo, and beside it the plot of the costs as a file of its own.

    Raises:
        RunError: It cannot be written.
    """
    out, domain = result.report.parent, get_domain(settings.domain)
    figure = figure_png(_bars(result))
    write_bytes(out / "costs.png", figure)
    sections = [
        Section(
            "What the policies cost",
            [
                f"Mean cost of an edit ({describe_cost(domain.cost).label}) ± standard error over "
                f"{settings.responses} fresh contexts; lower is better. The strong user repairs nearly every "
                "wrong part of a draft, the weak user few, so that the strong user's cost tells more."
            ],
            table=result.table(),
            notes=_notes(settings.config.methods, tested="pass" in result.table()[0]),
            images=[figure],
        ),
        _before_and_after(result),
        *(_online(user, found.online) for user, found in result.users.items()),
    ]
    for user, found in result.users.items():
        sections.append(Section(f"The log of the {user} user", [found.log_line], images=found.plots))
        for section in run_sections(RunFolder(out / user)):
            sections.append(replace(section, title=f"{section.title} ({user} user's log)"))
    lead = (
        f"From {settings.rows} edited {domain.plural} of each of two users to "
        f"{len(settings.config.methods)} policies each, in {result.seconds:.0f} s."
    )
    write_report(result.report, "EditLoop: the demo", lead, sections, result.verdict)


def _notes(names: Sequence[str], *, tested: bool) -> dict[str, str]:
    """The notes that explain the rows of the table."""
    methods = {f"{name}:": METHODS.get(name) for name in names}
    return {
        "base:": "the model before any training.",
        **{label: f"{method.title}, which {method.summary}." for label, method in methods.items()},
        "late:": "LateEnsemble, a bandit that chooses among these policies while the strong user edits.",
        "Well-formed:": "the share of the drafts that have a form of the domain at all.",
        **({"Pass:": "the share of the drafts that pass the tests of their request."} if tested else {}),
    }


def _before_and_after(result: DemoResult) -> Section:
    """The section in which the base and the policies of the strong user's log answer the same contexts."""
    costs = result.users[EVALUATOR].costs
    ranked = sorted(costs, key=lambda name: (name != "base", costs[name][EVALUATOR].mean))
    comparisons = []
    for i in range(SHOWN):
        drafts = [
            Draft(name, each.responses[i], each.edits[i], float(each.costs[i]))
            for name, each in ((name, costs[name][EVALUATOR]) for name in ranked)
        ]
        comparisons.append(Comparison(costs["base"][EVALUATOR].contexts[i], drafts))
    note = (
        f"The first {SHOWN} contexts, not selected. The policies learned from the {EVALUATOR} user's log; "
        f"each draft is shown with the {EVALUATOR} user's edit of it: what is struck, or has a minus before "
        "it, was deleted, and what is underlined, or has a plus, was inserted."
    )
    return Section("Before and after", [note], comparisons=comparisons)


def _online(user: str, simulation: Simulation) -> Section:
    """The section on the rounds of LateEnsemble."""
    shares = ", ".join(f"{arm} {simulation.share(arm):.0%}" for arm in simulation.bandit.arms)
    return Section(
        f"LateEnsemble online (policies of the {user} user's log)",
        [
            f"{len(simulation.rounds)} rounds with the {EVALUATOR} user: mean cost {simulation.mean:.3f}; "
            f"rounds by policy: {shares}."
        ],
        images=[figure_png(plot_rounds(simulation))],
    )


def _bars(result: DemoResult) -> Figure:
    """The mean cost of each policy as bars, with a panel for each evaluating user."""
    from matplotlib.figure import Figure

    bars: list[tuple[str, str, Any]] = [("", "base", result.users[USERS[0]].costs["base"])]
    for log, found in result.users.items():
        bars += [(log, name, by_user) for name, by_user in found.costs.items() if name != "base"]
    figure = Figure(figsize=(7.6, 2.9), dpi=160, layout="constrained")
    panels = figure.subplots(1, len(USERS), sharey=True)
    for axes, user in zip(panels, USERS, strict=True):
        for x, (_, name, by_user) in enumerate(bars):
            error = by_user[user].standard_error
            axes.bar(x, by_user[user].mean, 0.72, color=colour_of(name), yerr=error, ecolor="#333")
        tidy(axes, f"evaluated by the {user} user", "", "mean edit cost" if user == USERS[0] else "")
        labels = [f"{name}\n{log} log" if log else name for log, name, _ in bars]
        axes.set_xticks(range(len(bars)), labels, fontsize=6.5)
    return figure
