"""Plots of a log's costs for reports: their distribution, and their course over time.

They are drawn from a summary's sample, so the log is not read again. matplotlib is imported only when a plot
is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits.summary import LogSummary
from editloop.errors import LogError
from editloop.extras import requires
from editloop.io import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

USERS_DISTRIBUTION, USERS_TIME = 10, 4
"""The most users that each plot shows; more lines over time cannot be distinguished."""

SMALLEST_RUN, MOST_RUNS = 10, 40
"""A line over time shows the means of runs of rows: at least so many rows in a run, at most so many runs."""

MOST_BARS = 30

DRAWN_TIMES = (-2e10, 2e11)
"""Epoch seconds of the years 1336 and 8307: matplotlib's dates, margins included, must stay in 1 to 9999."""

INK, PALE, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, COLOURS = "#2b6cb0", ("#2b6cb0", "#c05621", "#2f855a", "#805ad5")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": PALE,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "text.parse_math": False,  # users' names may contain dollars, which matplotlib reads as formulas
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def plot_costs(summary: LogSummary, folder: str | Path) -> list[Path]:
    """Draw `cost-distribution.png` and `cost-over-time.png` into a folder, overall and by user.

    If there are two users or more, those with the most rows are shown. If a record has no time, the
    horizontal axis is the order of the rows, and its label says so.

    Returns:
        The files; none where no record was observed.

    Raises:
        LogError: The files cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    sample = summary.sample[~np.isnan(summary.sample["cost"])]
    if not len(sample):
        return []
    folder = Path(folder)
    users = [group.name for group in summary.users if group.observed]
    tracked = {name: index for index, name in enumerate(summary.users_tracked)}
    by_user = {name: sample[sample["user"] == tracked[name]] for name in users[:USERS_DISTRIBUTION]}
    by_user = {name: rows for name, rows in by_user.items() if len(rows)}
    paths = [folder / "cost-distribution.png", folder / "cost-over-time.png"]
    with _figure(paths[0], panels=1 + (len(by_user) > 1)) as axes:
        _distribution(axes[0], sample["cost"], summary.cost)
        if len(by_user) > 1:
            _distribution_by_user(axes[1], by_user, summary.cost)
    timed = summary.n_timed == summary.rows
    with _figure(paths[1], panels=1 + (len(by_user) > 1)) as axes:
        _over_time(axes[0], {"": sample}, timed, summary.cost)
        axes[0].set_title("Cost over time" if timed else "Cost in row order")
        if len(by_user) > 1:
            shown = dict(list(by_user.items())[:USERS_TIME])
            _over_time(axes[1], shown, timed, summary.cost)
            axes[1].set_title(
                "By user" if len(shown) == summary.n_users else f"The {len(shown)} busiest users"
            )
            both = [panel.get_ylim()[1] for panel in axes]
            axes[1].set_ylim(top=max(both))
            axes[0].set_ylim(top=max(both))
    return paths


@contextmanager
def _figure(path: Path, panels: int) -> Iterator[list[Axes]]:
    """Give the panels of a figure, and save it.

    pyplot is not used: it keeps every figure in a global state, and may open windows.
    """
    requires("plots")
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06, wspace=0.04)
        figure = Figure(figsize=(8, 3.2), dpi=160, layout=layout)
        yield list(figure.subplots(1, panels, squeeze=False)[0])
        with atomic_file(path, LogError) as unfinished:
            figure.savefig(unfinished, format="png", facecolor="white")


def _distribution(axes: Axes, costs: NDArray[Any], name: str) -> None:
    """Draw a histogram; responses that cost nothing have a separate bar on its left."""
    from matplotlib.ticker import MaxNLocator

    zero, nonzero = costs[costs == 0], costs[costs != 0]
    right = float(costs.max()) or 1.0
    if len(nonzero) and right > 1.3 * (tail := float(np.quantile(nonzero, 0.99))) > 0:
        # The axis ends at the 99% quantile where a few responses of one word, rewritten at length, cost so
        # much that all other bars would be in one place.
        right = tail
    # About as many bars as the square root of the number of values, the usual rule.
    edges = np.linspace(
        min(0.0, float(costs.min())), right, int(np.clip(np.sqrt(len(nonzero)), 8, MOST_BARS)) + 1
    )
    width = edges[1] - edges[0]
    axes.bar(edges[:-1], np.histogram(nonzero, edges)[0] / len(costs), 0.92 * width, align="edge", color=BLUE)
    if len(zero):
        share = len(zero) / len(costs)
        axes.bar(edges[0] - 2.2 * width, share, 1.2 * width, align="edge", color=PALE)
        axes.annotate(
            f"cost 0\n{share:.0%}",
            (edges[0] - 2.2 * width, share),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8,
        )
        axes.margins(y=0.18)
    beyond = float((costs > right).mean())
    axes.set_xlim(right=right + width)
    axes.set_xlabel(name + (f"  ({beyond:.1%} beyond)" if beyond else ""))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}" if x >= edges[0] else "")
    axes.set_ylabel(f"share of responses, n = {len(costs):,}")
    axes.set_title(f"Cost: mean {costs.mean():.2f}, median {np.median(costs):.2f}")


def _distribution_by_user(axes: Axes, by_user: dict[str, NDArray[Any]], name: str) -> None:
    """Draw each user's quantiles: 5 to 95% as a thin line, 25 to 75% as a thick one, the median as a dot."""
    for place, rows in enumerate(by_user.values()):
        low, left, median, right, high = np.quantile(rows["cost"], (0.05, 0.25, 0.5, 0.75, 0.95))
        axes.plot([low, high], [place, place], color=BLUE, linewidth=1, solid_capstyle="butt")
        axes.plot([left, right], [place, place], color=BLUE, linewidth=5, alpha=0.45, solid_capstyle="butt")
        axes.plot([median], [place], "o", color=BLUE, markersize=5)
    axes.set_yticks(
        range(len(by_user)), [f"{_short(user)}  ({len(rows):,})" for user, rows in by_user.items()]
    )
    axes.set_ylim(len(by_user) - 0.4, -0.6)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(name)
    axes.set_title("By user")
    axes.set_title("median, 25–75%, 5–95%", loc="right", fontsize=8.5, weight="normal")


def _over_time(axes: Axes, series: dict[str, NDArray[Any]], timed: bool, name: str) -> None:
    """Draw means of runs of equally many rows, with a band of two standard errors for up to two series."""
    banded = len(series) <= 2
    lines: list[Any] = []
    for rows, colour in zip(series.values(), COLOURS, strict=False):
        where = np.clip(rows["time"], *DRAWN_TIMES) / 86400 if timed else rows["row"] + 1.0
        order = np.argsort(where, kind="stable")
        most = MOST_RUNS if len(series) == 1 else MOST_RUNS // 2
        runs = np.array_split(order, int(np.clip(len(rows) // SMALLEST_RUN, 1, most)))
        x = np.array([where[run].mean() for run in runs])
        mean = np.array([rows["cost"][run].mean() for run in runs])
        if banded:
            # With n - 1 in the denominator, except for a single row, whose deviation is shown as 0.
            spread = np.array([rows["cost"][run].std(ddof=len(run) > 1) for run in runs])
            error = spread / np.sqrt([len(run) for run in runs])
            axes.fill_between(x, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.15, linewidth=0)
        marker = "o" if len(runs) < 15 else None
        lines += axes.plot(x, mean, color=colour, linewidth=1.6, marker=marker, markersize=3.5)
    if timed:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    else:
        axes.xaxis.set_major_formatter(lambda row, _: f"{row:,.0f}")
        axes.set_xlabel("row of the log, which gives no times")
    if len(series) > 1:
        axes.set_ylim(top=1.18 * axes.get_ylim()[1])
        # Not by labels on the lines, because matplotlib leaves out those that begin with "_".
        names = [_short(label) for label in series]
        axes.legend(lines, names, loc="upper right", ncols=2, handlelength=1.2, borderaxespad=0)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_ylabel(f"mean {name}")
    if all(rows["cost"].min() >= 0 for rows in series.values()):
        axes.set_ylim(bottom=0)
    axes.set_title("mean ± 2 s.e." if banded else "mean", loc="right", fontsize=8.5, weight="normal")


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
