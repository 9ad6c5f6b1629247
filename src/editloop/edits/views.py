"""One record, three kinds of feedback: supervision, preferences and costs as views of the same records.

These are pure functions. A view refers to its records, keeps their order, and counts what it left out and
why. Whether an empty view is an error is decided by those who need its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from editloop.edits.cost import Cost
from editloop.edits.record import Context, Record


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A row of the supervision: the edit y' is a label for the context x (Eq. 3). It may be empty."""

    id: str
    context: Context
    edit: str


@dataclass(frozen=True, slots=True)
class Preference:
    """A preference: given x, the edit y' (chosen) over the response y (rejected) (Eq. 4)."""

    id: str
    context: Context
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class CostObservation:
    """A noisy observation Δ(y, y') of the expected cost c(x, y) (Eq. 5)."""

    id: str
    context: Context
    response: str
    cost: float


Row = TypeVar("Row", Demonstration, Preference, CostObservation)


@dataclass(frozen=True, slots=True)
class View(Generic[Row]):
    """The rows of a view, and how many records it left out by reason.

    `len(view.rows) + view.dropped.total()` is the number of records it was made from.
    """

    rows: tuple[Row, ...]
    dropped: Counter[str] = field(default_factory=Counter)


def supervision(records: Iterable[Record]) -> View[Demonstration]:
    """Return every observed edit as a demonstration; an accepted response is one, too.

    Drops `discarded`, `pending` and `expired` records.
    """
    dropped: Counter[str] = Counter()
    rows = (Demonstration(record.id, record.context, edit) for record, edit in _observed(records, dropped))
    return View(tuple(rows), dropped)


def preferences(records: Iterable[Record]) -> View[Preference]:
    """Return the preference of the edit over the response for every response that was changed.

    Drops `discarded`, `pending` and `expired` records, and as `unedited` those whose edit is the response.
    With y' = y the margin of Eq. 4 is 0 whatever the policy is, so its gradient is exactly zero.
    """
    dropped: Counter[str] = Counter()
    rows = []
    for record, edit in _observed(records, dropped):
        if edit == record.response:
            dropped["unedited"] += 1
        else:
            rows.append(Preference(record.id, record.context, edit, record.response))
    return View(tuple(rows), dropped)


def costs(records: Iterable[Record], cost: Cost) -> View[CostObservation]:
    """Return the cost of every observed response; an accepted one is an observation of Δ(y, y).

    Drops `discarded`, `pending` and `expired` records, for which no edit was seen.
    """
    dropped: Counter[str] = Counter()
    # In one call, because a cost may be much faster on many pairs (a sentence encoder, a tokenizer).
    seen = list(_observed(records, dropped))
    values = cost([record.response for record, _ in seen], [edit for _, edit in seen])
    rows = (
        CostObservation(record.id, record.context, record.response, value)
        for (record, _), value in zip(seen, values.tolist(), strict=True)
    )
    return View(tuple(rows), dropped)


def view_batches(
    records: Iterable[Record], view: Callable[[Sequence[Record]], View[Row]], *, rows: int = 1000
) -> Iterator[View[Row]]:
    """Yield the view of so many records at a time, for a log that is larger than memory.

    Args:
        records: The records, such as `iter_records` streams them.
        view: `supervision`, `preferences`, or `costs` with its cost.
        rows: The records of a batch.
    """
    records = iter(records)
    while batch := list(islice(records, rows)):
        yield view(batch)


def _observed(records: Iterable[Record], dropped: Counter[str]) -> Iterator[tuple[Record, str]]:
    """Yield observed records with their edits, and count the others by status."""
    for record in records:
        if record.is_observed and record.edit is not None:
            yield record, record.edit
        else:
            dropped[record.status] += 1
