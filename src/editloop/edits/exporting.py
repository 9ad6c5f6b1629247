"""The views in other tools' formats, as JSONL.

TRL's dataset formats: the prompt is text where the context is text, and a list of messages
("conversational") where it is a chat; a file mixes the two only if the log does. Records are streamed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from editloop.edits.contexts import context_json
from editloop.edits.cost import Cost, get_cost
from editloop.edits.record import Context, Record
from editloop.edits.views import costs, preferences, supervision
from editloop.edits.writing import guard_source
from editloop.errors import ConfigError, EmptyViewError, LogError
from editloop.io import atomic_file

Row = dict[str, Any]
BATCH = 1000


@dataclass
class Exported:
    """What an export came to: the rows written, and the records left out by reason."""

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def export(records: Iterable[Record], path: str | Path, to: str, *, cost: Cost | None = None) -> Exported:
    """Write one view of the records as JSONL.

    Args:
        records: Taken once.
        path: The file; replaced if it is there.
        to: `trl-sft` (prompt, completion), `trl-dpo` (prompt, chosen, rejected), `trl-kto` (prompt,
            completion, label: an edit is desirable, and so is a response left as it was; a response that was
            edited is not) or `costs` (context, response, cost).
        cost: What an edit costs, for `costs`; `levenshtein:word/response` if not given.

    Raises:
        ConfigError: Unknown format, or the file is the log that is being read.
        EmptyViewError: No record is left for it; nothing is written.
        LogError: The file cannot be written.
    """
    if to not in EXPORTS:
        raise ConfigError("unknown export format", seen=to, do=f"use one of {', '.join(EXPORTS)}")
    cost = get_cost() if cost is None else cost
    guard_source(records, Path(path))
    records = iter(records)
    done = Exported()
    with atomic_file(path, LogError) as unfinished:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            while batch := list(islice(records, BATCH)):
                rows, dropped = EXPORTS[to](batch, cost)
                done.dropped += dropped
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    done.rows += 1
        if not done.rows:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in done.dropped.most_common())
            raise EmptyViewError(f"no record is left for {to}", seen=reasons or "an empty log")
    return done


def _sft(records: list[Record], _: Cost) -> tuple[Iterator[Row], Counter[str]]:
    view = supervision(records)
    return (
        {**_prompt(row.context), "completion": _answer(row.context, row.edit)} for row in view.rows
    ), view.dropped


def _dpo(records: list[Record], _: Cost) -> tuple[Iterator[Row], Counter[str]]:
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


def _kto(records: list[Record], _: Cost) -> tuple[Iterator[Row], Counter[str]]:
    labelled = [(row.context, row.edit, True) for row in supervision(records).rows]
    labelled += [(row.context, row.rejected, False) for row in preferences(records).rows]
    rows = (
        {**_prompt(context), "completion": _answer(context, text), "label": label}
        for context, text, label in labelled
    )
    return rows, supervision(records).dropped


def _costs(records: list[Record], cost: Cost) -> tuple[Iterator[Row], Counter[str]]:
    view = costs(records, cost)
    rows = (
        {"id": row.id, "context": context_json(row.context), "response": row.response, "cost": row.cost}
        for row in view.rows
    )
    return rows, view.dropped


def _prompt(context: Context) -> Row:
    return {"prompt": context_json(context)}


def _answer(context: Context, text: str) -> str | list[dict[str, str]]:
    return text if isinstance(context, str) else [{"role": "assistant", "content": text}]


EXPORTS: dict[str, Callable[[list[Record], Cost], tuple[Iterator[Row], Counter[str]]]] = {
    "trl-sft": _sft,
    "trl-dpo": _dpo,
    "trl-kto": _kto,
    "costs": _costs,
}
