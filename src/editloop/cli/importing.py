"""`editloop import LOG [OUT] --format NAME`: the export of another tool as a log, or sent to a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editloop.cli.console import console, shown_progress
from editloop.cli.flags import Config, LogPath
from editloop.cli.places import Place, stem
from editloop.cli.reading import Reading, reads
from editloop.errors import LogError

if TYPE_CHECKING:
    from editloop.edits import ReadReport, RecordStream

SHOWN = 10
"""The most reasons that are shown, each in a line of its own."""


# Of another tool's export any share may be bad: what gives no record is said here, row by row in the
# quarantine.
@partial(reads, max_bad_share=1.0)
def import_(
    log: LogPath,
    reading: Reading,
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="The log to write [SOURCE.log.jsonl]."), Place.WRITTEN
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Send the records to this server, in place of writing OUT.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="A key of that server [$EDITLOOP_KEY].")] = None,
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.edits import write_log

    if server is not None and out is not None:
        raise typer.BadParameter("give either OUT or --server", param_hint="OUT")
    file = out or Path(f"{stem(log)}.log.jsonl")
    with shown_progress() as callback:
        stream = reading.stream(log, file, callback)
        if server is None:
            written = f"{write_log(_some(stream), file)} records written to {file}"
        else:
            written = _send(_some(stream), server, key)
    report = stream.report
    console.print(f"read {report.rows_read} rows of {report.path.name} ({', '.join(report.read_as)})")
    console.print(written)
    _show_left_out(report)


def _some(stream: RecordStream) -> Iterator[Any]:
    """Yield the records; if there are none, an error says why.

    Raises:
        LogError: No row gives a record, so nothing is written.
    """
    yield from stream
    report = stream.report
    if not report.records:
        reasons = (report.reasons + report.left_out).most_common(3)
        why = ", ".join(f"{count} {reason}" for reason, count in reasons)
        raise LogError(f"none of {report.rows_read} rows gives a record", seen=why, do="check --format")


def _send(records: Iterator[Any], server: str, key: str | None) -> str:
    """Send records to a server, and return in a line what became of them."""
    from editloop.serve import Client
    from editloop.serve.client_base import edit_row

    unseen = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal unseen
        for record in records:
            row = edit_row(record)
            if row is None:
                unseen += 1
            else:
                yield row

    found: Counter[str] = Counter()
    with Client(server, key=key) as client:
        for result in client.edits(rows()):
            if "error" in result:
                found[f"refused: {result['error']['message']}"] += 1
            else:
                found["there before" if result["repeated"] else "recorded"] += 1
    parts = [f"{count} {what}" for what, count in found.most_common()]
    parts += [f"{unseen} without an edit left out"] if unseen else []
    return f"sent to {server}: {', '.join(parts) or 'nothing'}"


def _show_left_out(report: ReadReport) -> None:
    """Print how many rows gave no record, and why, in a line for each reason."""
    reasons = [*report.reasons.most_common(), *report.left_out.most_common()]
    if report.dropped_duplicates:
        reasons.append(("a repetition of an earlier row", report.dropped_duplicates))
    if report.other_users:
        reasons.append(("of other users", report.other_users))
    if not reasons:
        return
    where = f", see {report.quarantine}" if report.quarantine else ""
    console.print(f"{report.rows_read - report.records} rows gave no record{where}:")
    for reason, count in reasons[:SHOWN]:
        console.print(f"  {count} {reason}")
    if rest := reasons[SHOWN:]:
        console.print(f"  {sum(count for _, count in rest)} for {len(rest)} other reasons")
