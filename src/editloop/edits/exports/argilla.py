"""Argilla: each response as a suggestion for the question `edit`, and each edit as a response to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from editloop.edits.contexts import context_json
from editloop.edits.cost import Cost
from editloop.edits.exports.base import Row
from editloop.edits.formats.carried import carried
from editloop.edits.record import Record

__all__ = ["argilla"]


def argilla(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return records as `rg.Record.from_dict` reads them."""
    return (_row(record) for record in records), Counter()


def _row(record: Record) -> Row:
    # Argilla's users have ids of their own (UUIDs), so the name goes along in the metadata.
    answer = {"value": record.edit, "user_id": None}
    return {
        "id": record.id,
        "fields": {"context": context_json(record.context)},
        "suggestions": {"edit": {"value": record.response, "score": None, "agent": record.policy}},
        "responses": {} if record.edit is None else {"edit": [answer]},
        "metadata": carried(record, without=("policy",)),
        "status": "pending" if record.edit is None else "completed",
    }
