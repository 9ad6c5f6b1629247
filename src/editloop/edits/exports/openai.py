"""OpenAI's files for fine-tuning. They take no other fields, so ids, users and times are left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from editloop.edits.cost import Cost
from editloop.edits.exports.base import Row
from editloop.edits.record import Context, Record
from editloop.edits.views import preferences, supervision

__all__ = ["chat", "preference"]


def chat(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return each edit as the last message of its chat."""
    view = supervision(records)
    return ({"messages": [*_messages(row.context), _said(row.edit)]} for row in view.rows), view.dropped


def preference(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return each edit as preferred to its response."""
    view = preferences(records)
    rows = (
        {
            "input": {"messages": _messages(row.context), "tools": [], "parallel_tool_calls": True},
            "preferred_output": [_said(row.chosen)],
            "non_preferred_output": [_said(row.rejected)],
        }
        for row in view.rows
    )
    return rows, view.dropped


def _messages(context: Context) -> list[Row]:
    if isinstance(context, str):
        return [{"role": "user", "content": context}]
    return [{"role": each.role, "content": each.content} for each in context]


def _said(text: str) -> Row:
    return {"role": "assistant", "content": text}
