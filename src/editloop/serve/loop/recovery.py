"""What a loop knows when it starts: the fold of the store's events, beginning from a snapshot if possible."""

from __future__ import annotations

import logging
from typing import NamedTuple

from editloop.errors import StoreUnreachableError
from editloop.online import Bandit, BanditConfig
from editloop.serve.loop.appender import Prices
from editloop.serve.loop.costs import CostVersion, settle_cost
from editloop.serve.loop.events import read_events
from editloop.serve.loop.snapshots import Snapshot, Snapshots
from editloop.serve.loop.state import LoopState
from editloop.store import reads
from editloop.store.database import Store
from editloop.store.schema import SALT, TOKEN_SECRET

__all__ = ["Recovered", "recover"]

log = logging.getLogger("editloop.serve")


class Recovered(NamedTuple):
    """What is known at the start.

    Attributes:
        state: The fold.
        salt: The store's.
        token_secret: The store's; empty if it is not known yet.
        costs: The cost by which the store's edits are measured, and its version.
    """

    state: LoopState
    salt: str
    token_secret: str
    costs: CostVersion


def recover(store: Store, snapshots: Snapshots, config: BanditConfig, *, reprice: bool) -> Recovered:
    """Open a store, settle by which cost its edits are measured, and fold its events.

    Args:
        store: Not open yet.
        snapshots: Where the last snapshot is, if there is one.
        config: How the bandit is configured, and the cost of an edit.
        reprice: Whether all edits are measured again, by that cost.

    Raises:
        StoreError: The store cannot be used, or its edits are measured by another cost. A store that does not
            answer is no error if there is a snapshot: the loop then starts from the snapshot.
    """
    snapshot = snapshots.read()
    try:
        store.open()
        salt, token_secret = store.fact(SALT), store.fact(TOKEN_SECRET)
        costs, note = settle_cost(store, config.cost, reprice=reprice, prices=Prices.of(config))
        # Within a transaction that excludes all writers: of the numbers so far, those that are missing will
        # never come. What is written from now on is for the follower.
        with store.transaction() as connection:
            last = reads.last_seq(connection)
    except StoreUnreachableError as error:
        if snapshot is None:
            raise
        log.warning("%s; starting from the snapshot", error)
        costs = CostVersion(config.cost, snapshot.repriced)
        state = _state_of(snapshot, snapshot.policies)
        return Recovered(state, snapshot.salt, snapshot.token_secret, costs)
    if note is not None:
        log.warning("%s", note)
    policies = store.read(reads.policy_locations)
    is_of_this_store = snapshot is not None and (snapshot.salt, snapshot.repriced) == (salt, costs.repriced)
    # A snapshot that is ahead of the store belongs to a database that was restored from an older backup.
    if snapshot is not None and is_of_this_store and snapshot.seq <= last:
        state = _state_of(snapshot, policies)
    else:
        state = LoopState(Bandit((), config), 0, policies)
    snapshots.seq = state.seq
    for seq, event in read_events(store, state.seq):
        if seq > last:
            break
        state.fold(event)
    # Not the number of the last event that was folded: costs of external texts have numbers as well, and
    # are not folded.
    state.seq = last
    return Recovered(state, salt, token_secret, costs)


def _state_of(snapshot: Snapshot, policies: dict[str, tuple[str, str]]) -> LoopState:
    return LoopState(snapshot.bandit, snapshot.seq, policies, snapshot.intervals, snapshot.stages)
