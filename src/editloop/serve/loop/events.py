"""Rows of the store's table `events` as the bandit's events.

The store does not know what a bandit is: it keeps rows. Here, above both, a row becomes the event that
`editloop.online` folds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Row

from editloop.online import Arms, Decided, Event, Feedback, Rerouted
from editloop.store.database import Store, newer, storing

__all__ = ["folded", "read_events"]


def read_events(store: Store, after: int = 0) -> Iterator[tuple[int, Event]]:
    """The events that a bandit folds, with their numbers, in order."""
    with storing(), store.reader.connect() as connection:
        rows = connection.execution_options(yield_per=1000).execute(newer(after))
        yield from folded(rows)


def folded(rows: Iterable[Row[Any]]) -> Iterator[tuple[int, Event]]:
    """Those of the rows that a bandit folds, as events with their numbers."""
    for row in rows:
        found = event_of(row)
        if found is not None:
            yield row.seq, found


def event_of(row: Row[Any]) -> Event | None:
    """The event that a row holds; None for the cost of a text that no arm wrote."""
    if row.kind == "arms":
        return Arms(row.epoch, tuple(json.loads(row.arms)))
    if row.kind == "decided":
        return Decided(row.response_id, row.scope, row.arm, row.propensity, row.epoch)
    if row.kind == "rerouted":
        return Rerouted(row.response_id, row.arm)
    if row.kind == "external":
        return None
    return Feedback(row.response_id, row.kind, row.cost, row.revision)
