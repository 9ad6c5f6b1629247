"""Rows of the store's table `events` as the events that the loop folds.

The store keeps rows and does not know what a bandit is. Here, above both, a row becomes the event that
`editloop.online` folds, or the transition of a policy to another stage.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from editloop.autopilot.ledger import STAGE, arms_of, transition_of
from editloop.autopilot.stages import Transition
from editloop.errors import AutopilotError
from editloop.online import Decided, Event, Feedback, Rerouted
from editloop.store import reads
from editloop.store.database import Row, Store

__all__ = ["loop_event", "read_events"]

log = logging.getLogger("editloop.serve")


def read_events(store: Store, after: int = 0) -> Iterator[tuple[int, Event | Transition]]:
    """The events after number `after` that the loop folds, with their numbers, in order.

    Raises:
        StoreError: The database does not answer.
    """
    for row in store.stream(lambda c: reads.events_after(c, after)):
        event = loop_event(row)
        if event is not None:
            yield row.seq, event


def loop_event(row: Row[Any]) -> Event | Transition | None:
    """The event that a row holds; None for the cost of a text that no arm wrote."""
    if row.kind == "arms":
        return arms_of(row)
    if row.kind == STAGE:
        try:
            return transition_of(row)
        except AutopilotError as error:  # of a newer version; requests are answered all the same
            log.warning("%s", error)
            return None
    if row.kind == "decided":
        return Decided(row.response_id, row.scope, row.arm, row.propensity, row.epoch, row.features)
    if row.kind == "rerouted":
        return Rerouted(row.response_id, row.arm)
    if row.kind == "external":
        return None
    return Feedback(row.response_id, row.kind, row.cost, row.revision)
