"""Plots: the files are there and show something; what they show was looked at by people."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from editloop.edits import Record, plot_costs, summarize


def log(n: int, users: int, timed: bool) -> list[Record]:
    return [
        Record(
            id=str(i),
            context="c",
            response="a b c d e f",
            edit=" ".join("abcdef"[: i % 7]),
            user=f"user {i % users}" if users else None,
            time=1_700_000_000 + 3600 * i if timed else None,
        )
        for i in range(n)
    ]


def inked(path: Path) -> float:
    """Return the share of a picture's pixels that are not white."""
    import matplotlib.image

    return float((matplotlib.image.imread(path)[..., :3].min(axis=-1) < 0.9).mean())


@pytest.mark.parametrize(
    ("n", "users", "timed"), [(1, 0, False), (1, 1, True), (60, 2, False), (600, 30, True), (5, 5, True)]
)
def test_two_pictures(tmp_path: Path, n: int, users: int, timed: bool) -> None:
    paths = plot_costs(summarize(log(n, users, timed)), tmp_path / "plots")
    assert [path.name for path in paths] == ["cost-distribution.png", "cost-over-time.png"]
    for path in paths:
        assert struct.unpack(">II", path.read_bytes()[16:24]) == (1280, 512)
        assert inked(path) > 0.01


@pytest.mark.parametrize("edit", ["a b", "x y", ""])
def test_costs_that_are_all_the_same(tmp_path: Path, edit: str) -> None:
    records = [Record(id=str(i), context="c", response="a b", edit=edit) for i in range(20)]
    assert all(inked(path) > 0.01 for path in plot_costs(summarize(records), tmp_path))


def test_axis_says_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    labels: list[str] = []

    def saved(self: Figure, path: Path, **_: Any) -> None:
        labels.extend(text for axes in self.axes for text in (axes.get_xlabel(), axes.get_title("left")))
        path.touch()

    monkeypatch.setattr(Figure, "savefig", saved)
    plot_costs(summarize(log(60, 0, timed=False)), tmp_path)
    assert "row of the log, which gives no times" in labels
    labels.clear()
    plot_costs(summarize(log(60, 6, timed=True)), tmp_path)
    assert "row of the log, which gives no times" not in labels
    assert {"Cost over time", "The 4 busiest users", "levenshtein:word/response"} <= set(labels)


def test_nothing_observed_nothing_drawn(tmp_path: Path) -> None:
    assert plot_costs(summarize([Record(context="c", response="r")]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []
