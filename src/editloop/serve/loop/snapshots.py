"""Snapshots of the fold: a cache, so that a start need not fold all events again.

A snapshot names the last event that it holds (`seq`), its store (`salt`), and the version of the costs
(`repriced`). One that does not match the store is ignored, and the fold begins at the first event. With a
snapshot the loop can start even while the database is down.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from editloop.autopilot.stages import Stages, Transition
from editloop.errors import EditLoopError
from editloop.io import atomic_file
from editloop.online import Bandit, BanditConfig
from editloop.serve.loop.intervals import CostIntervals

__all__ = ["Snapshot", "Snapshots"]

SNAPSHOT_INTERVAL = 30.0
"""Minimum seconds between two snapshots; none is written without new events."""

SNAPSHOT_SHARE = 1000.0
"""A pause is at least this many times as long as the last snapshot blocked the event loop (0.1% of it)."""

log = logging.getLogger("editloop.serve")


class Snapshot(NamedTuple):
    """The fold of a store's first events.

    Attributes:
        bandit: The fold.
        seq: Number of the last event.
        salt: The store's salt, which identifies it.
        token_secret: The store's key for edit tokens.
        repriced: How many times all costs of the store had been measured again.
        policies: Run folder and name of each policy, by arm.
        intervals: Intervals for the arms' mean costs.
        stages: The stages of the policies.
    """

    bandit: Bandit
    seq: int
    salt: str
    token_secret: str
    repriced: int
    policies: dict[str, tuple[str, str]]
    intervals: CostIntervals
    stages: Stages


class Snapshots:
    """The snapshot file of a loop.

    Args:
        path: The file.
        config: How the loop's bandit is configured; a snapshot of another configuration is ignored.

    Attributes:
        seq: Number of the last event in the file.
    """

    def __init__(self, path: Path, config: BanditConfig) -> None:
        self.path, self._config = path, config
        self.seq = 0
        # A cancelled `write` leaves its thread writing. Without the lock, the snapshot of `FeedbackLoop.stop`
        # would write to the same unfinished file at the same time, and both would be mixed up.
        self._lock = threading.Lock()

    def read(self) -> Snapshot | None:
        """The snapshot, if there is one that can be read and has the same configuration."""
        try:
            row = json.loads(self.path.read_text(encoding="utf-8"))
            bandit = Bandit.from_json(row["bandit"])
            if bandit.config != self._config:
                return None
            policies = {str(arm): (str(run), str(name)) for arm, (run, name) in row["policies"].items()}
            repriced = int(row.get("repriced", 0))
            intervals = CostIntervals.from_json(row["intervals"], bandit.config.bound)
            # An earlier version knew no stages, and its store had none.
            stages = Stages(map(Transition.from_text, row.get("stages", ())))
            salt, token_secret = str(row["salt"]), str(row.get("token_secret", ""))
            return Snapshot(
                bandit, int(row["seq"]), salt, token_secret, repriced, policies, intervals, stages
            )
        except (OSError, ValueError, KeyError, TypeError, EditLoopError):
            return None  # a snapshot is only a cache: whatever is wrong with it, the events are there

    async def write(self, snapshot: Snapshot) -> float:
        """Write a snapshot, and return the seconds for which that blocked the event loop.

        Raises:
            EditLoopError: The file cannot be written.
        """
        # Made into JSON types here, in the event loop, and not in the thread: the fold must not change
        # between the first and the last value that is read.
        started = time.perf_counter()
        row = {"seq": snapshot.seq, "salt": snapshot.salt, "policies": snapshot.policies}
        row |= {"repriced": snapshot.repriced, "bandit": snapshot.bandit.to_json()}
        row |= {"token_secret": snapshot.token_secret}
        row |= {"intervals": snapshot.intervals.to_json()}
        row |= {"stages": [each.to_text() for each in snapshot.stages.history]}
        busy = time.perf_counter() - started
        await asyncio.to_thread(self._write, row)
        self.seq = snapshot.seq  # only now: a snapshot that failed is still due, even without new events
        return busy

    def _write(self, row: dict[str, Any]) -> None:
        with self._lock, atomic_file(self.path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            # `iterencode` works in small parts, between which the event loop's thread can run. `json.dump`'s
            # C encoder would hold the interpreter's lock until it has encoded everything.
            for part in json.JSONEncoder(allow_nan=False).iterencode(row):
                file.write(part)

    async def keep_writing(self, take: Callable[[], Snapshot]) -> None:
        """Write a snapshot periodically, if there are new events, until cancelled.

        Args:
            take: Returns the snapshot of this moment.
        """
        pause = SNAPSHOT_INTERVAL
        while True:
            await asyncio.sleep(pause)
            snapshot = take()
            if snapshot.seq > self.seq:
                try:
                    pause = max(SNAPSHOT_INTERVAL, SNAPSHOT_SHARE * await self.write(snapshot))
                except (OSError, ValueError, EditLoopError) as error:
                    log.warning("the snapshot could not be written: %s", error)
