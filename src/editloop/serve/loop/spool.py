"""The spool: a file in which the commands of responses under way wait while the database is down.

Completions go on without a database, because a decision needs only what the loop already knows. What is
decided and answered in that time must not be lost, so it is on the disk, in this file, before the response is
sent, and it is written into the database, in order, once that is back. Edits are refused instead: their
client has a spool of its own, and the server could not answer them with their cost.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from editloop.errors import StoreError
from editloop.journal import append_rows, drop_rows, left_rows, read_rows
from editloop.online import Decided
from editloop.serve.loop.commands import RecordDecision, RecordReroute, RecordResponse

__all__ = ["SPOOL", "Spool", "SpooledCommand", "spooled_from_json", "spooled_to_json"]

log = logging.getLogger("editloop.serve")

SPOOL = "spool.jsonl"
"""The name of the file in a state folder."""

SpooledCommand = RecordDecision | RecordReroute | RecordResponse
"""Commands that can wait: those of a response that is under way."""

_KINDS: dict[str, type[SpooledCommand]] = {
    "Ask": RecordDecision,
    "Route": RecordReroute,
    "Finish": RecordResponse,
}
"""Commands by their names in the file. The names never change: a newer version may read an older spool."""

_NAMES = {kind: name for name, kind in _KINDS.items()}


def spooled_to_json(command: SpooledCommand) -> dict[str, Any]:
    """A command as a row of the spool."""
    return {"entry": _NAMES[type(command)], **asdict(command)}


def spooled_from_json(row: dict[str, Any]) -> SpooledCommand:
    """The command of a row."""
    fields = {key: value for key, value in row.items() if key != "entry"}
    kind = _KINDS[row["entry"]]
    if kind is RecordDecision:
        fields["decision"] = Decided(*fields["decision"])  # JSON has made a list of the named tuple
    return kind(**fields)


class Spool:
    """The file.

    Args:
        path: Where it is, or will be. Rows that the database refuses for good go into a file beside it,
            `.refused`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self.path.exists()

    def tidy(self) -> None:
        """Remove what a killed process has left beside the file.

        A kill within `drop_rows` leaves the rows that were to stay in a second file. The spool itself is
        still complete then, so the second file is not needed.
        """
        left_rows(self.path).unlink(missing_ok=True)

    def commands(self) -> list[SpooledCommand]:
        """The commands that wait, in their order."""
        return [spooled_from_json(row) for row in read_rows(self.path, StoreError)]

    def append(self, commands: Sequence[SpooledCommand]) -> None:
        """Add commands; they are on the disk when this returns.

        Raises:
            OSError: The file cannot be written.
        """
        append_rows(self.path, [spooled_to_json(command) for command in commands], sync=True)

    def batches(self, size: int) -> Generator[list[dict[str, Any]], None, None]:
        """Yield the rows, `size` at a time. A batch counts as done when the next one is asked for.

        The rows that are done are dropped from the file once, when the generator is exhausted or closed:
        rewriting the file for each batch would take time that grows with the square of its length. If the
        process is killed before that, all rows are applied again after its restart, which changes nothing.
        """
        rows = read_rows(self.path, StoreError)
        done = 0
        try:
            while batch := list(islice(rows, size)):
                yield batch
                done += len(batch)
        finally:
            if done:
                drop_rows(self.path, done)

    def finish(self) -> None:
        """Remove the file once all of its rows are written.

        `batches` leaves a file that holds no row, only a last line that was cut short. That line was never
        acknowledged, because `append` did not return.
        """
        self.path.unlink(missing_ok=True)

    def refuse(self, row: dict[str, Any], error: Exception) -> None:
        """Note a row that can never be written, without its texts."""
        log.error("a command in the spool cannot be written and is set aside: %s", error)
        note = {"entry": row.get("entry"), "id": row.get("response_id"), "error": type(error).__name__}
        append_rows(self.path.with_suffix(".refused"), [note], sync=True)
