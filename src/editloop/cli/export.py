"""`editloop export LOG --to FORMAT`: the views of a log in other tools' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editloop.cli.console import console, shown
from editloop.cli.flags import Config, CostName, Format, LogPath, Map, MaxBadShare, Quarantine


def export(
    log: LogPath,
    to: Annotated[str, typer.Option(help="trl-sft, trl-dpo, trl-kto or costs")],
    out: Annotated[Path | None, typer.Option(help="The JSONL file [LOG.FORMAT.jsonl].")] = None,
    map: Map = None,
    format: Format = None,
    quarantine: Quarantine = None,
    max_bad_share: MaxBadShare = 0.05,
    cost: CostName = "levenshtein:word/response",
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.edits import export as export_view
    from editloop.edits import get_cost, iter_records

    file = out or Path(f"{log.stem}.{to}.jsonl")
    with shown() as listener:
        stream = iter_records(
            log,
            map=map,
            format=format,  # type: ignore[arg-type]
            quarantine=quarantine,
            max_bad_share=max_bad_share,
            progress=lambda done, total: listener.progress("reading", done, total),
        )
        done = export_view(stream, file, to, cost=get_cost(cost))
    dropped = ", ".join(f"{count} {reason}" for reason, count in done.dropped.items()) or "none"
    console.print(f"{done.rows} rows written to {file}; left out: {dropped}", markup=False)
    if stream.report.bad_rows:
        console.print(f"{stream.report.bad_rows} bad rows were not read", markup=False)
