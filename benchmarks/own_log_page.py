"""The page and the figure of `own_log`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.balanced_user import BALANCED
from editloop.offline.plots import tidy
from editloop.results import markdown_table, mean_and_error, plus_minus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["own_log_figure", "own_log_page"]

HUES = ("#4c78a8", "#c2672d", "#e0a070", "#b8860b", "#3a7d44", "#8fbf8f", "#5b5fa8")
NAMES = (
    *("SFT", "DPO, base", "DPO, logged", "WPO, base", "EarlyEnsemble, base", "EarlyEnsemble, logged"),
    "KTO, base",
)
COLOURS = dict(zip(NAMES, HUES, strict=True))
EDITS = {
    "medium": "repairs each wrong part with probability .6",
    BALANCED: "moves each part towards what is wanted and back, by Metropolis steps (Assumption 1)",
}
TABLES = {
    "cost": "Cost to the {user} user:",
    "strong_cost": "Cost to the strong user:",
    "unchanged": "Drafts that the {user} user leaves as they are:",
    "well_formed": "Drafts that are emails at all:",
}
SHOWN = (0, 1, 2, 3, 5, 7, 10)
"""The generations that the page shows; the JSON has all."""


def own_log_page(data: Mapping[str, Any]) -> str:
    """The page: what `own_log.run` returns, as tables."""
    about = data["settings"]
    ways = [way for own in data["users"].values() for way in own.values()]
    seeds = ", ".join(map(str, sorted({seed for way in ways for seed in way["seeds"]})))
    text = [
        f"Mean cost of a draft ({data['cost_name']}) on {about['held']} held-out contexts of "
        f"{about['domain']}s, the same for all, by generation, mean ± standard error over seeds {seeds}. "
        f"Each policy writes {about['rows']} drafts, which the user edits, and the next one is fitted on all "
        f"rows so far, from the base, in {about['steps']} steps of {about['batch']} contexts. Generation 0 "
        "is the base. *Base* and *logged* say whose log-probabilities are the reference of a row: the "
        "base's, or those of the policy that wrote its draft. The strong user repairs 95% of what is wrong, "
        "so the cost to them shows how far a policy is from what is wanted."
    ]
    exact = data["exact"]
    text += [
        "## Where every quantity is known",
        "Tabular policies over 27 responses of three attributes in 8 contexts, fitted by the same losses on "
        f"sampled logs of {exact['rows']} rows a generation, in {exact['steps']} steps of Adam over all rows "
        f"at once, from the base; mean ± standard error over {len(exact['seeds'])} seeds. The share of "
        "attributes that are wrong in a draft is exact.",
    ]
    for user, own in exact["users"].items():
        text += [f"Wrong attributes, edited by the {user} user, who {EDITS.get(user, 'edits')}:"]
        text.append(_table(own, "wrong", about["generations"]))
        if user == BALANCED:
            text += ["KL(π* ‖ π) in nats, for the same:", _table(own, "kl", about["generations"])]
    for user, own in data["users"].items():
        text.append(f"## A language model: {about['domain']}s, edited by the {user} user")
        for figure, title in TABLES.items():
            text += [title.format(user=user), _table(own, figure, about["generations"])]
        late = {
            name: [g for g, count in enumerate(way["by_sft"]) if count]
            for name, way in own.items()
            if any(way["by_sft"])
        }
        if late:
            text.append(
                "Where a method has no rows of the kind that it needs, the policy is that of SFT: "
                + "; ".join(f"{name} in generation {', '.join(map(str, gs))}" for name, gs in late.items())
                + "."
            )
    return "\n\n".join(text)


def _table(ways: Mapping[str, Any], figure: str, generations: int) -> str:
    shown = [g for g in SHOWN if g <= generations]
    rows = []
    for name, way in ways.items():
        values = [mean_and_error(np.array(way[figure][g])) for g in shown]
        is_share = figure in ("unchanged", "well_formed")
        rows.append([name, *(f"{mean:.0%}" if is_share else plus_minus(mean, se) for mean, se in values)])
    heads = [f"generation {g}" if g == shown[0] else str(g) for g in shown]
    return markdown_table(["way, reference", *heads], rows)


def own_log_figure(data: Mapping[str, Any]) -> Figure:
    """The cost to the strong user by generation, mean over seeds, for each user who edits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), dpi=160, layout="constrained")
    users = data["users"]
    every = figure.subplots(1, len(users), sharey=True, squeeze=False)[0]
    for axes, (user, ways) in zip(every, users.items(), strict=True):
        for name, way in ways.items():
            means: NDArray[np.float64] = np.array(way["strong_cost"]).mean(axis=1)
            style = "--" if "logged" in name else "-"
            axes.plot(means, style, color=COLOURS.get(name), label=name, linewidth=1.5)
        tidy(axes, f"edited by the {user} user", "generation", "cost to the strong user")
        axes.set_ylim(bottom=0)
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure
