"""Rows of the store's table `events` as the events of a bandit.

The store keeps rows and does not know what a bandit is. Here, above both, a row becomes the event that
`editloop.online` folds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from editloop.online import Arms, Decided, Event, Feedback, Rerouted
from editloop.store import reads
from editloop.store.database import Row, Store

__all__ = ["bandit_events", "read_events"]


def read_events(store: Store, after: int = 0) -> Iterator[tuple[int, Event]]:
    """The events after number `after` that a bandit folds, with their numbers, in order.

    Raises:
        StoreError: The database does not answer.
    """
    yield from bandit_events(store.stream(lambda c: reads.events_after(c, after)))


def bandit_events(rows: Iterable[Row[Any]]) -> Iterator[tuple[int, Event]]:
    """The rows that a bandit folds, as events with their numbers; the others are left out."""
    for row in rows:
        event = _bandit_event(row)
        if event is not None:
            yield row.seq, event


def _bandit_event(row: Row[Any]) -> Event | None:
    """The event that a row holds; None for the cost of a text that no arm wrote."""
    if row.kind == "arms":
        return Arms(row.epoch, tuple(json.loads(row.arms)))
    if row.kind == "decided":
        return Decided(row.response_id, row.scope, row.arm, row.propensity, row.epoch, row.features)
    if row.kind == "rerouted":
        return Rerouted(row.response_id, row.arm)
    if row.kind == "external":
        return None
    return Feedback(row.response_id, row.kind, row.cost, row.revision)
