"""`editloop export LOG --to FORMAT`: the views of a log in other tools' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editloop.cli.console import console, shown_progress
from editloop.cli.flags import Config, CostName, LogPath
from editloop.cli.places import Place, stem
from editloop.cli.reading import Reading, reading_line, reads
from editloop.edits.exports import EXPORTS


@reads
def export(
    log: LogPath,
    reading: Reading,
    to: Annotated[
        str,
        typer.Option(help=f"The format: {', '.join(EXPORTS.built_in)}, or one of an installed package."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The file: JSONL, or an array if it ends in .json [LOG.FORMAT.jsonl]."),
        Place.WRITTEN,
    ] = None,
    cost: CostName = None,
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.edits import export as export_view
    from editloop.edits import get_cost
    from editloop.edits.cost import DEFAULT_COST

    file = out or Path(f"{stem(log)}.{to}.jsonl")
    with shown_progress() as callback:
        stream = reading.stream(log, file, callback)
        done = export_view(stream, file, to, cost=get_cost(cost or DEFAULT_COST))
        callback.message(reading_line(stream.report))
    dropped = ", ".join(f"{count} {reason}" for reason, count in done.dropped.items()) or "none"
    console.print(f"{done.rows} rows written to {file}; left out: {dropped}")
