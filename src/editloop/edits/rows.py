"""From rows to records: which columns a log must have, and what a row's cells mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from editloop.edits.columns import MISSING, TARGETS, from_json, look_up
from editloop.edits.formats import LogAddress, LogFormat, RawRow, Source
from editloop.edits.log import ReadReport
from editloop.edits.record import Record, explain
from editloop.errors import LogFormatError

__all__ = ["Empty", "RowReader", "check_columns"]

Empty = Literal["deleted", "pending"]
"""What an empty cell of the edit column means: the user deleted everything, or no edit was seen."""

HEAD_ROWS, HEAD_BYTES = 1000, 8 * 2**20
"""How much of a log is searched for its columns before the first record is given out."""

HOLDS_ANSWER = "the context holds the answer (leave it out: --map context=messages.:-1)"

TEXTS = ("context", "response", "edit")
"""The fields in which an empty cell may be an empty text."""


def check_columns(
    source: Source,
    columns: Mapping[str, str],
    path: Path | LogAddress,
    others: Callable[[], Sequence[str]] = tuple,
) -> Iterator[RawRow]:
    """Check the log's head for the columns that it must have, and return all of its rows.

    The head is the first 1,000 rows or 8 MB. One row is not enough, because in JSON lines the first rows may
    lack a column: as long as nobody has edited, there may be no `edit`.

    Args:
        source: The opened log.
        columns: The map of fields to columns.
        path: The log, for messages.
        others: Returns the names of formats that the log looks like; asked if columns are missing.

    Raises:
        LogFormatError: The log has no rows, a mapped column is missing from its head, or a field that every
            record needs has no column.
    """
    head = []
    for raw in source.rows:
        head.append(raw)
        # `done` is in bytes where the columns are not known beforehand.
        if len(head) >= HEAD_ROWS or (source.columns is None and raw.done >= HEAD_BYTES):
            break
    if not head:
        raise LogFormatError("the log has no rows", seen=str(path), do="check what wrote it")
    parsed = [raw.columns for raw in head if raw.columns is not None]
    there = source.columns or list(dict.fromkeys(name for row in parsed for name in row))
    if parsed:  # if every row of the head is bad, the rows say why, and the columns are not known
        for target, column in columns.items():
            if column and column not in there and all(look_up(row, column) is MISSING for row in parsed):
                raise LogFormatError(
                    f"no column for {target} in the log, whose columns are {', '.join(there)}",
                    seen=column,
                    do="fix --map",
                )
        # The fields that have a column: of their own name, or by the map, which may also take one away
        # (`status=`).
        given = {each for each in (*there, *columns) if columns.get(each, each)}
        needed = ("context", "response") if "status" in given else ("context", "response", "edit")
        missing = [each for each in needed if each not in given]
        if "messages" in given and "context" in missing:
            missing.remove("context")
        if missing:
            exports = [name for name in others() if name != source.format.name]
            looks = f"it looks like {', '.join(exports)}: --format {exports[0]}; or " if exports else ""
            raise LogFormatError(
                f"the log has no {' and no '.join(missing)} column; its columns are {', '.join(there)}",
                do=f"{looks}name them: --map {','.join(f'{each}=COLUMN' for each in missing)}",
            )
    return chain(head, source.rows)


class RowReader:
    """Makes records from rows, and counts in the report what had to be decided for that.

    Args:
        report: Receives the counts.
        format: The format of the log.
        columns: The map of fields to columns.
        is_flat: Whether an empty cell may mean None.
        empty: What an empty edit means if no status says so.
    """

    def __init__(
        self,
        report: ReadReport,
        format: LogFormat,
        columns: Mapping[str, str],
        is_flat: bool,
        empty: Empty | None,
    ) -> None:
        self._report, self._columns, self._is_flat, self._empty = report, columns, is_flat, empty
        self._checks_context = format.checks_context

    def read(self, raw: RawRow) -> tuple[Record | None, str]:
        """Return a row's record and no reason, or None and the reason why it is not a record."""
        if raw.columns is None:
            return None, raw.reason
        try:
            fields = self._fields(raw.columns)
            is_unexplained = self._is_flat and fields.get("edit") == "" and "status" not in fields
            # Without `empty` it is taken for pending, too; the log is refused in the end, with the count.
            if is_unexplained and self._empty != "deleted":
                del fields["edit"]
            record = self._record(fields)
        except ValidationError as error:
            return None, explain(error)
        except RecursionError:
            return None, "nested too deeply"
        if self._checks_context and _holds_answer(record):
            return None, HOLDS_ANSWER
        self._report.empty_edits += is_unexplained
        if raw.reason:
            self._report.suspicious[raw.reason] += 1
            self._report.first_suspicious = self._report.first_suspicious or f"line {raw.line}: {raw.reason}"
        return record, ""

    def _record(self, fields: dict[str, Any]) -> Record:
        """Return the record, without its time if only the time is wrong."""
        try:
            return Record.model_validate(fields)
        except ValidationError as error:
            if any(each["loc"][:1] != ("time",) for each in error.errors(include_url=False)):
                raise
        record = Record.model_validate(fields | {"time": None})
        self._report.times_dropped += 1
        return record

    def _fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record's fields. Mapped columns win over columns that have a field's name.

        What flat formats cannot express is restored: None for an empty cell, objects for cells that hold
        JSON.
        """
        columns = self._columns
        fields = {name: row[name] for name in TARGETS if name in row and columns.get(name, name)}
        mapped = {}
        for target, column in columns.items():
            value = look_up(row, column)
            if target.startswith("metadata."):
                if value is not MISSING:
                    mapped[target.removeprefix("metadata.")] = value
            elif column:
                fields[target] = None if value is MISSING else value
        if self._is_flat:
            # An empty cell is None, except in the texts. An empty edit is a text only if the status is
            # `edited`, or if there is none, which `read` decides.
            fields = {key: value for key, value in fields.items() if value != "" or key in TEXTS}
            if fields.get("edit") == "" and fields.get("status", "edited") != "edited":
                del fields["edit"]
        for name in ("messages", "metadata"):
            if isinstance(fields.get(name), str):
                fields[name] = from_json(fields[name])
        messages = fields.pop("messages", None)
        # A context that was mapped wins over a column that happens to be called `messages`.
        if messages is not None and (columns.get("messages") or not columns.get("context")):
            fields["context"] = messages
        if mapped:
            metadata = fields.get("metadata") or {}
            if isinstance(metadata, dict):
                fields["metadata"] = {**metadata, **mapped}
        return fields


def _holds_answer(record: Record) -> bool:
    """Whether the last answer in a chat is the response or the edit of the row."""
    if isinstance(record.context, str):
        return False
    answers = [message.content.strip() for message in record.context if message.role == "assistant"]
    return bool(answers and answers[-1]) and answers[-1] in (
        record.response.strip(),
        (record.edit or "").strip(),
    )
