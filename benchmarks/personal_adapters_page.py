"""The page and the figure of `personal_adapters`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from editloop.offline.plots import tidy
from editloop.results import markdown_table, mean_and_error, plus_minus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["cautious", "enough", "personal_figure", "personal_page"]

COLOURS = {"pooled": "#3a7d44", "base": "#c2672d"}
STANDARD_ERRORS = 2.0
"""Standard errors of the mean difference by which an adapter of one's own has to cost less."""


def _costs(kind: Mapping[str, Any], name: str, figure: str = "cost") -> NDArray[np.float64]:
    return np.array(kind[figure][name], dtype=np.float64)


def cautious(kind: Mapping[str, Any], n: int, figure: str = "cost") -> NDArray[np.float64]:
    """The cost to each user who stays with the pooled adapter where the own fit raised the alarm [users]."""
    own, pooled = _costs(kind, f"pooled-{n}", figure), _costs(kind, "pooled", figure)
    return np.where(kind["improved"][str(n)], own, pooled)


def enough(kind: Mapping[str, Any], edits: tuple[int, ...] | list[int], start: str) -> int | None:
    """From how many edits on an adapter of one's own costs less, beyond chance; None if from none."""
    found = None
    for n in sorted(edits, reverse=True):
        mean, error = mean_and_error(_costs(kind, f"{start}-{n}") - _costs(kind, "pooled"))
        if error is None or mean > -STANDARD_ERRORS * error:
            break
        found = n
    return found


def personal_page(data: Mapping[str, Any]) -> str:
    """The page: what `personal_adapters.run` returns, as tables."""
    about = data["settings"]
    text = [
        f"Mean cost of a draft ({data['cost_name']}) on {about['held']} new contexts of {about['domain']}s, "
        "by the number of edits of the user's own. Each user wants a value of their own in "
        f"{data['own']} of six attributes, whatever the kind of the text. The pooled adapter is fitted by "
        f"SFT on {about['pool_rows']} edits of each of {about['pool']} other users; a user's own adapter on "
        f"the first edits that they made to the pooled one's drafts, in {about['steps']} steps of "
        f"{about['batch']} contexts, a fifth of the edits kept for validation. Seeds "
        f"{', '.join(map(str, data['seeds']))}, {about['users']} users each; ± is the standard error over "
        "users. *Cautious* stays with the pooled adapter where the fit raised the alarm that the validation "
        "loss never improved. The difference is that of the adapter that begins at the pooled one, user by "
        "user."
    ]
    for name, kind in data["kinds"].items():
        text.append(f"## {name} users ({len(kind['users'])})")
        base, pooled = (plus_minus(*mean_and_error(_costs(kind, each))) for each in ("base", "pooled"))
        text.append(f"The base costs {base}, the pooled adapter {pooled}.")
        text.append(_table(kind, about["edits"], "cost"))
        text += [_sentence(kind, about["edits"], start) for start in ("pooled", "base")]
        if name != "strong":
            strong = plus_minus(*mean_and_error(_costs(kind, "pooled", "strong_cost")))
            text.append(
                "The same drafts, judged by a strong user of the same taste, who sees all that is wrong; "
                f"there the pooled adapter costs {strong}:"
            )
            text.append(_table(kind, about["edits"], "strong_cost"))
    return "\n\n".join(text)


def _table(kind: Mapping[str, Any], edits: list[int], figure: str) -> str:
    rows = []
    pooled = _costs(kind, "pooled", figure)
    for n in edits:
        own = _costs(kind, f"pooled-{n}", figure)
        columns = [own, cautious(kind, n, figure), _costs(kind, f"base-{n}", figure), own - pooled]
        share = f"{np.sum(own < pooled)} of {len(own)}"
        rows.append([str(n), *(plus_minus(*mean_and_error(each)) for each in columns), share])
    heads = ["edits", "begun at the pooled one", "cautious", "begun at the base", "difference", "better for"]
    return markdown_table(heads, rows)


def _sentence(kind: Mapping[str, Any], edits: list[int], start: str) -> str:
    found = enough(kind, edits, start)
    what = f"An adapter of one's own that begins at the {'pooled one' if start == 'pooled' else 'base'}"
    if found is None:
        return f"{what} is at no number of edits shown to cost less than the pooled one."
    return f"{what} costs less than the pooled one from {found} edits on, beyond two standard errors."


def personal_figure(data: Mapping[str, Any]) -> Figure:
    """The cost by the number of edits, for each kind of user."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(data["kinds"]), 3.4), dpi=160, layout="constrained")
    every = figure.subplots(1, len(data["kinds"]), squeeze=False)[0]
    edits = data["settings"]["edits"]
    for axes, (name, kind) in zip(every, data["kinds"].items(), strict=True):
        mean, error = mean_and_error(_costs(kind, "pooled"))
        axes.axhline(mean, color="#8b95a1", linewidth=1.5, label="the pooled adapter")
        axes.axhspan(mean - (error or 0), mean + (error or 0), color="#8b95a1", alpha=0.2, linewidth=0)
        for start, colour in COLOURS.items():
            found = [mean_and_error(_costs(kind, f"{start}-{n}")) for n in edits]
            label = f"one's own, begun at the {'pooled one' if start == 'pooled' else 'base'}"
            means, errors = [each[0] for each in found], [each[1] or 0 for each in found]
            axes.errorbar(
                edits, means, errors, color=colour, marker="o", markersize=3, capsize=2, label=label
            )
        axes.set_xscale("log")
        axes.set_xticks(edits, [str(n) for n in edits])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        tidy(axes, f"{name} users", "edits of one's own", "cost of a draft")
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure
