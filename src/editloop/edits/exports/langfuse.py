"""Langfuse: each response as an observation, and each edit as a score of the type CORRECTION behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from editloop.edits.contexts import context_json
from editloop.edits.cost import Cost
from editloop.edits.exports.base import Row
from editloop.edits.formats.carried import carried
from editloop.edits.record import Record

__all__ = ["langfuse"]


def langfuse(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return observations and scores, with the fields of Langfuse's API."""
    return (row for record in records for row in _rows(record)), Counter()


def _rows(record: Record) -> Iterator[Row]:
    time = None if record.time is None else record.time.isoformat()
    yield {
        "id": record.id,
        "traceId": record.id,
        "type": "GENERATION",
        "name": "response",
        "startTime": time,
        "endTime": time,
        "input": context_json(record.context),
        "output": record.response,
        "model": record.policy,
        "userId": record.user,
        "metadata": carried(record, without=("user", "policy", "time")),
    }
    if record.edit is not None:
        yield {
            "id": f"{record.id}-correction",
            "traceId": record.id,
            "observationId": record.id,
            "name": "output",
            "dataType": "CORRECTION",
            "value": 0,
            "stringValue": record.edit,
            "source": "ANNOTATION",
            "authorUserId": record.user,
            "timestamp": time,
            "updatedAt": time,
        }
