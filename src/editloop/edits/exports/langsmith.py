"""LangSmith: each response as a run, and each edit as feedback on it with a correction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from editloop.edits.contexts import context_json
from editloop.edits.cost import Cost
from editloop.edits.exports.base import Row
from editloop.edits.formats.carried import carried
from editloop.edits.record import Record

__all__ = ["langsmith"]


def langsmith(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return runs and feedback, with the fields of LangSmith's API."""
    return (row for record in records for row in _rows(record)), Counter()


def _rows(record: Record) -> Iterator[Row]:
    time = None if record.time is None else record.time.isoformat()
    context = context_json(record.context)
    metadata = carried(record, without=("time",))
    if record.policy is not None:
        metadata["ls_model_name"] = record.policy
    yield {
        "id": record.id,
        "trace_id": record.id,
        "name": "response",
        "run_type": "llm",
        "start_time": time,
        "end_time": time,
        "inputs": {"prompt": context} if isinstance(context, str) else {"messages": context},
        "outputs": {"output": record.response},
        "extra": {"metadata": metadata},
    }
    if record.edit is not None:
        yield {
            "id": f"{record.id}-correction",
            "run_id": record.id,
            "trace_id": record.id,
            "key": "edit",
            "correction": {"output": record.edit},
            "created_at": time,
            "feedback_source": {"type": "api", "metadata": {"user": record.user}},
        }
