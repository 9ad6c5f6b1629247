"""Writing a view of a log in another tool's format, as JSONL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from editloop.edits.cost import Cost, get_cost
from editloop.edits.exports.base import Export
from editloop.edits.record import Record
from editloop.edits.writing import guard_source
from editloop.errors import EmptyViewError, LogError
from editloop.io import atomic_file
from editloop.registry import Registry

__all__ = ["EXPORTS", "Exported", "export"]

BATCH_ROWS = 1000
"""Records that are exported at a time: they are streamed, and their costs are computed together."""

EXPORTS: Registry[Export] = Registry(
    "export format",
    "editloop.exports",
    {
        "trl-sft": "editloop.edits.exports.trl:sft",
        "trl-dpo": "editloop.edits.exports.trl:dpo",
        "trl-kto": "editloop.edits.exports.trl:kto",
        "costs": "editloop.edits.exports.costs:costs",
        "openai-chat": "editloop.edits.exports.openai:chat",
        "openai-preference": "editloop.edits.exports.openai:preference",
        "langfuse": "editloop.edits.exports.langfuse:langfuse",
        "phoenix": "editloop.edits.exports.phoenix:phoenix",
        "langsmith": "editloop.edits.exports.langsmith:langsmith",
        "argilla": "editloop.edits.exports.argilla:argilla",
        "label-studio": "editloop.edits.exports.label_studio:label_studio",
    },
)


@dataclass
class Exported:
    """The result of an export.

    Attributes:
        rows: The number of rows that were written.
        dropped: The number of records that were left out, by reason.
    """

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def export(records: Iterable[Record], path: str | Path, to: str, *, cost: Cost | None = None) -> Exported:
    """Write one view of the records as JSONL, or as an array to a file `.json`. The records are streamed.

    Args:
        records: They are taken once.
        path: The file, which is replaced if it is there.
        to: `trl-sft` (prompt, completion), `trl-dpo` (prompt, chosen, rejected), `trl-kto` (prompt,
            completion, label), `costs` (context, response, cost), the name of another tool, such as
            `langfuse` or `openai-preference`, or another format in `EXPORTS`.
        cost: The cost of an edit, for `costs`; by default `alignment:word`.

    Raises:
        ConfigError: The format is unknown, or the file is the log that is being read.
        EmptyViewError: No record is left for it; nothing is written.
        LogError: The file cannot be written.
    """
    exported = EXPORTS.get(to)
    cost = get_cost() if cost is None else cost
    guard_source(records, Path(path))
    records = iter(records)
    done = Exported()
    is_array = Path(path).suffix.lower() == ".json"
    begin, between, end = ("[\n", ",\n", "\n]\n") if is_array else ("", "\n", "\n")
    with atomic_file(path, LogError) as unfinished:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            while batch := list(islice(records, BATCH_ROWS)):
                rows, dropped = exported(batch, cost)
                done.dropped += dropped
                for row in rows:
                    file.write((between if done.rows else begin) + json.dumps(row, ensure_ascii=False))
                    done.rows += 1
            file.write(end)
        if not done.rows:  # inside the block, so that an earlier file is not replaced by an empty one
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in done.dropped.most_common())
            raise EmptyViewError(f"no record is left for {to}", seen=reasons or "an empty log")
    return done
