"""TRL's dataset formats.

The prompt is a text where the context is a text, and a list of messages ("conversational") where it is a
chat; a file mixes the two only if the log does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from editloop.edits.contexts import context_json
from editloop.edits.cost import Cost
from editloop.edits.exports.base import Row
from editloop.edits.record import Context, Record
from editloop.edits.views import preferences, supervision

__all__ = ["dpo", "kto", "sft"]


def sft(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return the edits as completions of their contexts (prompt, completion)."""
    view = supervision(records)
    rows = ({**_prompt(row.context), "completion": _answer(row.context, row.edit)} for row in view.rows)
    return rows, view.dropped


def dpo(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return each edit as chosen over its response (prompt, chosen, rejected)."""
    view = preferences(records)
    rows = (
        {
            **_prompt(row.context),
            "chosen": _answer(row.context, row.chosen),
            "rejected": _answer(row.context, row.rejected),
        }
        for row in view.rows
    )
    return rows, view.dropped


def kto(records: Sequence[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    """Return texts with labels (prompt, completion, label).

    An edit is desirable, and so is a response that was left as it was; a response that was edited is not. So
    a record that was edited gives two rows.
    """
    view = supervision(records)
    labelled = [(row.context, row.edit, True) for row in view.rows]
    labelled += [(row.context, row.rejected, False) for row in preferences(records).rows]
    rows = (
        {**_prompt(context), "completion": _answer(context, text), "label": label}
        for context, text, label in labelled
    )
    return rows, view.dropped


def _prompt(context: Context) -> Row:
    return {"prompt": context_json(context)}


def _answer(context: Context, text: str) -> str | list[dict[str, str]]:
    return text if isinstance(context, str) else [{"role": "assistant", "content": text}]
