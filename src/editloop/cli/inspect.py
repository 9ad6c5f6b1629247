"""`editloop inspect LOG`: check a log and show what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from editloop.cli.console import console, show_table, shown_progress
from editloop.cli.flags import Config, CostName, LogPath
from editloop.cli.places import Place, stem
from editloop.cli.reading import Reading, reading_line, reads
from editloop.errors import MissingExtraError
from editloop.io import write_json

if TYPE_CHECKING:
    from editloop.edits import Cost, LogSummary, Record

STYLES = {"kept": "", "deleted": "red strike", "inserted": "green underline"}
MARKS = {"kept": ("", ""), "deleted": ("[-", "-]"), "inserted": ("{+", "+}")}
"""How the pieces of an edit are shown on a terminal, and where there is none (as in wdiff)."""

LINE_MARKS = {"": "", "kept": "  ", "deleted": "- ", "inserted": "+ "}
"""What the lines of an edit of code begin with."""


@reads
def inspect(
    log: LogPath,
    reading: Reading,
    out: Annotated[
        Path | None, typer.Option(help="Folder for inspect.json and the plots [LOG-inspect]."), Place.WRITTEN
    ] = None,
    cost: CostName = None,
    redlines: Annotated[
        int, typer.Option(min=0, help="Show the first so many edited drafts, with what was changed.")
    ] = 0,
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.edits import get_cost, plot_costs, summarize
    from editloop.edits.cost import DEFAULT_COST

    measure = get_cost(cost or DEFAULT_COST)
    folder = out or Path(f"{stem(log)}-inspect")
    with shown_progress() as callback:
        stream = reading.stream(log, folder, callback, writes=[folder / "inspect.json"])
        edited: list[Record] = []
        summary = replace(summarize(_keeping(stream, edited, redlines), cost=measure), report=stream.report)
        callback.message(reading_line(stream.report))
    print_summary(summary)
    for record in edited:
        print_redline(record, measure)
    write_json(folder / "inspect.json", summary.to_json())
    try:
        plots = plot_costs(summary, folder)
    except MissingExtraError as error:  # the summary is shown without plots
        console.print(f"\nNo plots: {error}")
        plots = []
    console.print(f"\nWritten to {folder}: inspect.json" + "".join(f", {p.name}" for p in plots))


def _keeping(records: Iterable[Record], edited: list[Record], most: int) -> Iterator[Record]:
    """Pass records on, and keep the first edited ones."""
    for record in records:
        if record.status == "edited" and len(edited) < most:
            edited.append(record)
        yield record


def print_redline(record: Record, cost: Cost) -> None:
    """Print an edit, in colours on a terminal and as [-deleted-] and {+inserted+} elsewhere; then its counts.

    An edit of code is printed line by line, as programmers read it.

    Args:
        record: An edited record.
        cost: The cost of the edit.
    """
    from editloop.edits import count_changes, diff_lines, redline

    assert record.edit is not None
    text = Text()
    lines = diff_lines(record.response, record.edit)
    parts = None if cost.breakdown is None else cost.breakdown(record.response, record.edit)
    shown = redline(record.response, record.edit, parts)
    pieces = [("", shown)] if lines is None else [(line.kind, line.spans) for line in lines]
    for line, spans in pieces:
        text.append(LINE_MARKS[line])
        for kind, piece in spans:
            if console.is_terminal:
                text.append(piece, STYLES[kind])
            else:
                # A line that is new or gone as a whole says so by its mark already.
                before, after = MARKS["kept" if line and len(spans) == 1 else kind]
                text.append(f"{before}{piece}{after}")
        text.append("\n" if line else "")
    incurred = float(cost([record.response], [record.edit])[0])
    console.print()
    console.print(text)
    counts = (
        parts.counts.in_words(parts.unit) if parts else count_changes(record.response, record.edit).in_words()
    )
    console.print(f"{counts}; cost {incurred:.3f}")


def print_summary(summary: LogSummary) -> None:
    """Print the summary of a log."""
    everyone = summary.all
    users = f"{summary.n_users} users, {summary.n_policies} policies"
    span = f", {summary.first:%Y-%m-%d} to {summary.last:%Y-%m-%d}" if summary.first and summary.last else ""
    console.print(f"{summary.rows} records, {users}{span}")
    statuses = ", ".join(f"{count} {status}" for status, count in summary.statuses.most_common())
    console.print(f"Statuses: {statuses}")
    if everyone.share_edited is not None:
        shares = f"{everyone.share_edited:.0%} edited, {1 - everyone.share_edited:.0%} accepted unchanged"
        console.print(f"Of {everyone.observed} observed: {shares}")
    if summary.shared is not None:
        console.print(f"Shared by context and common prefix: {summary.shared:.0%} of an edited pair's words")
    console.print()
    quantiles = [("cost " + summary.cost, summary.cost_quantiles)]
    quantiles += [(f"{part}, words", units["words"]) for part, units in summary.lengths.items()]
    there = [(name, values) for name, values in quantiles if values]
    if there:
        rows = [["quantiles", *there[0][1]]]  # the names of the quantiles are the same in all rows
        rows += [[name, *(_number(v) for v in values.values())] for name, values in there]
        show_table(rows)
        console.print()
    if summary.n_users > 1:
        rows = [["user", "rows", "edited", "mean cost"]]
        for group in summary.users[:8]:
            edited = "–" if group.share_edited is None else f"{group.share_edited:.0%}"
            mean = "–" if group.mean_cost is None else f"{group.mean_cost:.3f}"
            rows.append([str(group.name), str(group.rows), edited, mean])
        show_table(rows)
        console.print()
    rows = [["view", "keeps", "drops"]]
    for view, kept in summary.kept.items():
        reasons = ", ".join(f"{n} {reason}" for reason, n in summary.dropped[view].items()) or "0"
        rows.append([view, str(kept), reasons])
    show_table(rows)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
