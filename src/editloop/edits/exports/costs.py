"""What each response cost, for tools that learn from costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from editloop.edits import views
from editloop.edits.contexts import context_json
from editloop.edits.cost import Cost
from editloop.edits.exports.base import Row
from editloop.edits.record import Record

__all__ = ["costs"]


def costs(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return the responses with their costs (id, context, response, cost)."""
    view = views.costs(records, cost)
    rows = (
        {"id": row.id, "context": context_json(row.context), "response": row.response, "cost": row.cost}
        for row in view.rows
    )
    return rows, view.dropped
