"""Records as flat rows, for the formats without nested values (CSV, TSV) or with fixed types (Arrow)."""

from __future__ import annotations

import json
from typing import Any

from editloop.edits.contexts import context_json
from editloop.edits.record import Record

__all__ = ["OWN_COLUMNS", "flat_row"]

OWN_COLUMNS = (
    "id",
    "context",
    "messages",
    "response",
    "edit",
    "status",
    "user",
    "policy",
    "propensity",
    "logprob",
    "time",
    "metadata",
)
"""The columns that `write_log` writes: `context` for a text, `messages` for a chat, `metadata` as JSON."""


def flat_row(record: Record) -> dict[str, Any]:
    """Return a record's cells by the names of `OWN_COLUMNS`; a chat is a list, and None an empty cell."""
    context = context_json(record.context)
    chat = not isinstance(context, str)
    metadata = json.dumps(record.metadata, ensure_ascii=False) if record.metadata else None
    row = {
        **vars(record),
        "context": None if chat else context,
        "messages": context if chat else None,
        "metadata": metadata,
    }
    return {name: row[name] for name in OWN_COLUMNS}
