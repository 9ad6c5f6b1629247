"""What a record says beyond the fields of another tool, in the tool's own metadata.

An export puts it there under one key, and reading the export again takes it back. So a log that went through
another tool is the same log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from editloop.edits.record import Record

__all__ = ["CARRIED", "carried", "restored"]

CARRIED = "editloop"
"""The key in the tool's metadata."""

FIELDS = ("id", "status", "user", "policy", "propensity", "logprob", "metadata")


def carried(record: Record, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the metadata of a record for another tool.

    Args:
        record: The record.
        without: The fields that the tool has itself.
    """
    fields = {name: getattr(record, name) for name in FIELDS if name not in without}
    kept = {name: value for name, value in fields.items() if value not in (None, {})}
    if record.time is not None and "time" not in without:
        kept["time"] = record.time.isoformat()
    return {CARRIED: kept}


def restored(columns: dict[str, Any], metadata: Any) -> dict[str, Any]:
    """Return the columns of a draft with what its metadata carries.

    Who edited and when is what the tool says, where it knows, and so is the status where there is an edit: it
    may have been made in the tool.
    """
    kept = metadata.get(CARRIED) if isinstance(metadata, Mapping) else None
    if not isinstance(kept, Mapping):
        return columns
    found = {name: kept[name] for name in (*FIELDS, "time") if name in kept}
    known = {name: columns[name] for name in ("user", "time") if columns.get(name) is not None}
    status = {"status": None} if columns.get("edit") is not None else {}
    return {**columns, "metadata": {}, **found, **known, **status}
