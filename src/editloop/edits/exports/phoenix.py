"""Phoenix (Arize): each response as a span, and each edit as an annotation `correction` of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from editloop.edits.contexts import context_json
from editloop.edits.cost import Cost
from editloop.edits.exports.base import Row
from editloop.edits.formats.carried import carried
from editloop.edits.record import Record

__all__ = ["phoenix"]


def phoenix(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return spans and annotations, with the fields of Phoenix's API."""
    return (row for record in records for row in _rows(record)), Counter()


def _rows(record: Record) -> Iterator[Row]:
    time = None if record.time is None else record.time.isoformat()
    digest = blake2b(record.id.encode(), digest_size=24).hexdigest()  # its ids are OpenTelemetry's
    trace_id, span_id = digest[:32], digest[32:]
    context = context_json(record.context)
    attributes: Row = {
        "openinference.span.kind": "LLM",
        "output.value": record.response,
        "metadata": json.dumps(carried(record, without=("time",)), ensure_ascii=False),
    }
    if isinstance(context, str):
        attributes["input.value"] = context
    else:
        attributes["llm.input_messages"] = [{"message": message} for message in context]
    if record.policy is not None:
        attributes["llm.model_name"] = record.policy
    yield {
        "name": "response",
        "context": {"trace_id": trace_id, "span_id": span_id},
        "span_kind": "LLM",
        "start_time": time,
        "end_time": time,
        "status_code": "OK",
        "attributes": attributes,
    }
    if record.edit is not None:
        yield {
            "span_id": span_id,
            "name": "correction",
            "annotator_kind": "HUMAN",
            "result": {"explanation": record.edit},
            "identifier": record.id,
            "user_id": record.user,
            "updated_at": time,
        }
