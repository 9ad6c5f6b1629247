"""What a demo shows on a terminal of 80 columns: the costs of a log as a plot of text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["plot_text"]

BINS = 8
"""The number of lines for drafts that were edited."""

WIDTH = 40
"""The characters of the longest bar."""


def plot_text(costs: NDArray[np.float64]) -> list[str]:
    """Return a histogram of costs as lines of text; unedited drafts, of cost 0, have a line of their own.

    It has plain characters only, so that every terminal and every file can show it.

    Args:
        costs: The costs of a log's edits, at least one and none missing [n].
    """
    free = costs == 0
    rows = [("unedited", int(free.sum()))]
    edited = costs[~free]
    if len(edited):
        # One rewritten short draft can cost ten times as much as the rest: the last interval is open.
        top = max(float(np.quantile(edited, 0.98)), float(edited.min()) + 1e-9)
        edges = np.linspace(0.0, top, BINS)
        counts = np.histogram(edited, [*edges, np.inf])[0]
        ends = [*(f"to {edge:.2f}" for edge in edges[1:]), "above"]
        rows += list(zip(ends, counts.tolist(), strict=True))
    most = max(count for _, count in rows)
    return [
        f"   {label:>8} {'#' * round(WIDTH * count / most):<{WIDTH}} {count / len(costs):4.0%}"
        for label, count in rows
    ]
