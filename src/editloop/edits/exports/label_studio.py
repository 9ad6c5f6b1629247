"""Label Studio: each record as a task, with its response as a prediction and its edit as an annotation.

The labeling configuration needs `<TextArea name="draft" toName="context"/>` and a tag `context` for the data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from editloop.edits.contexts import context_json
from editloop.edits.cost import Cost
from editloop.edits.exports.base import Row
from editloop.edits.formats.carried import carried
from editloop.edits.record import Record

__all__ = ["label_studio"]


def label_studio(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return tasks (data, predictions, annotations, meta)."""
    return (_task(record) for record in records), Counter()


def _task(record: Record) -> Row:
    context = context_json(record.context)
    key = "context" if isinstance(context, str) else "messages"
    annotations: list[Row] = []
    if record.edit is not None:
        annotation: Row = {"result": _written(record.edit)}
        if record.user is not None:
            annotation["completed_by"] = {"email": record.user}
        if record.time is not None:
            annotation["updated_at"] = record.time.isoformat()
        annotations = [annotation]
    return {
        "data": {key: context},
        "predictions": [{"model_version": record.policy or "", "result": _written(record.response)}],
        "annotations": annotations,
        "meta": carried(record),
    }


def _written(text: str) -> list[dict[str, Any]]:
    value = {"text": [text]}
    return [{"from_name": "draft", "to_name": "context", "type": "textarea", "value": value}]
