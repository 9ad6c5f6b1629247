"""Plots in the project's style: the colours of the policies, training curves, axes, PNG bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from editloop.offline.methods import METHODS, Method

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from editloop.policy.manifest import PolicyRecord

__all__ = ["colour_of", "figure_png", "tidy", "training_curves"]

OTHERS = {"base": "#8b95a1", "late": "#7a3e9d", "mixture": "#8a7a2f"}
"""Colours of the arms that are not a single method's policy."""


def colour_of(name: str) -> str:
    """The colour of an arm: that of its method, or a default if no method has this name."""
    if name in OTHERS:
        return OTHERS[name]
    return METHODS.get(name).colour if name in METHODS else Method.colour


def tidy(axes: Axes, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """The project's style: a small title on the left, small labels, no frame above or on the right."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(xlabel, fontsize=8)
    axes.set_ylabel(ylabel, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def figure_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def training_curves(policies: Mapping[str, PolicyRecord]) -> Figure:
    """Training and validation loss of each policy's chosen trial, side by side."""
    # A figure of its own and not one of pyplot, which keeps global state and may look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * max(len(policies), 2), 2.7), dpi=160, layout="constrained")
    for i, (name, policy) in enumerate(policies.items()):
        axes = figure.add_subplot(1, max(len(policies), 2), i + 1)
        best, colour = policy.best, colour_of(name)
        train = [(h["step"], h["loss"]) for h in best.history if "loss" in h]
        held = [(0, best.initial_loss)] + [
            (h["step"], h["eval_loss"]) for h in best.history if "eval_loss" in h
        ]
        axes.plot(*_points(train), color=colour, alpha=0.35, linewidth=1, label="training")
        axes.plot(*_points(held), color=colour, linewidth=1.8, marker="o", markersize=3, label="validation")
        axes.axvline(best.best_step or 0, color="#bbb", linewidth=0.8, zorder=0)
        tidy(axes, name, "step")
        axes.legend(frameon=False, fontsize=7)
    return figure


def _points(pairs: Sequence[tuple[float | None, float | None]]) -> tuple[list[float], list[float]]:
    """The coordinates of points as two lists, with NaN for missing numbers, which leave a gap in a curve."""

    def known(numbers: Iterable[float | None]) -> list[float]:
        return [math.nan if number is None else number for number in numbers]

    return known(step for step, _ in pairs), known(value for _, value in pairs)
