"""Plots: their bars and lines are the numbers of the log. How they look is not tested."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from editloop.edits import Cost, Record, get_cost, plot_costs, summarize


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


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that were saved, by the name of their file."""
    figures: dict[str, Figure] = {}
    savefig = Figure.savefig

    def saved(self: Figure, path: Path, **options: Any) -> None:
        figures["distribution" if "distribution" in path.name else "time"] = self
        savefig(self, path, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    return figures


def bars(figure: Figure) -> list[float]:
    return [patch.get_height() for patch in figure.axes[0].patches]


@pytest.mark.parametrize(
    ("n", "users", "timed"), [(1, 0, False), (1, 1, True), (60, 2, False), (600, 30, True), (5, 5, True)]
)
def test_two_pictures(tmp_path: Path, drawn: dict[str, Figure], n: int, users: int, timed: bool) -> None:
    paths = plot_costs(summarize(log(n, users, timed)), tmp_path / "plots")
    assert [path.name for path in paths] == ["cost-distribution.png", "cost-over-time.png"]
    for path in paths:
        assert struct.unpack(">II", path.read_bytes()[16:24]) == (1280, 512)
    assert sum(bars(drawn["distribution"])) == pytest.approx(1)
    shown = min(users, 4) if users > 1 else 0
    assert [len(axes.lines) for axes in drawn["time"].axes] == [1, shown][: 1 + (users > 1)]


def test_lines_are_the_means_of_runs(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    plot_costs(summarize(log(20, 0, timed=False)), tmp_path)
    # Sixths of rows 0 to 9: 6 5 4 3 2 1 0 6 5 4; of rows 10 to 19: 3 2 1 0 6 5 4 3 2 1.
    (line,) = drawn["time"].axes[0].lines
    assert list(line.get_xdata()) == [5.5, 15.5]
    assert list(line.get_ydata()) == pytest.approx([36 / 60, 27 / 60])
    assert bars(drawn["distribution"])[-1] == pytest.approx(2 / 20)  # the two of cost 0, beside the others


@pytest.mark.parametrize(("edit", "cost"), [("a b", 0), ("x y", 1), ("", 1)])
def test_costs_that_are_all_the_same(
    tmp_path: Path, drawn: dict[str, Figure], edit: str, cost: float
) -> None:
    records = [Record(id=str(i), context="c", response="a b", edit=edit) for i in range(20)]
    plot_costs(summarize(records), tmp_path)
    assert sorted(bars(drawn["distribution"]))[-1] == 1
    assert set(drawn["time"].axes[0].lines[0].get_ydata()) == {cost}


def test_names_are_shown_as_they_are(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    names = ["_ann", "a$b_$", "$x^", "[bob]"]
    records = [Record(id=str(i), context="c", response="a b", edit="a", user=names[i % 4]) for i in range(40)]
    cost = Cost("cost in $ or $^", get_cost().function)
    plot_costs(summarize(records, cost=cost), tmp_path)
    legend = drawn["time"].axes[1].get_legend()
    assert legend is not None
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(names)
    labels = [text.get_text() for text in drawn["distribution"].axes[1].get_yticklabels()]
    assert sorted(labels) == sorted(f"{name}  (10)" for name in names)


def test_times_at_the_ends_of_the_calendar(tmp_path: Path) -> None:
    times = [datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    records = [Record(context="c", response=f"r{i}", edit="e", time=at) for i, at in enumerate(times)]
    assert len(plot_costs(summarize(records), tmp_path)) == 2


def test_axis_says_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
    assert {"Cost over time", "The 4 busiest users", "alignment:word"} <= set(labels)


def test_nothing_observed_nothing_drawn(tmp_path: Path) -> None:
    assert plot_costs(summarize([Record(context="c", response="r")]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []
