"""Snapshots of the fold: a cache, so that a start need not fold all events again.

A snapshot says which events it holds (`seq`), of which store (`salt`), and by which costs (`repriced`); one
that does not fit is ignored, and the fold begins at the first event. With a snapshot the loop can start even
while the database is down.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from editloop.errors import EditLoopError
from editloop.io import atomic_file
from editloop.online import Bandit, BanditConfig

__all__ = ["Snapshot", "Snapshots"]

SNAPSHOT_INTERVAL = 30.0
"""Least seconds between snapshots, and only while there are new events."""

SNAPSHOT_SHARE = 1000.0
"""The pause is also at least so many times as long as the last snapshot kept requests waiting."""

log = logging.getLogger("editloop.serve")


class Snapshot(NamedTuple):
    """The fold of a store's first events.

    Attributes:
        bandit: The fold.
        seq: Number of the last event.
        salt: The store's salt, which identifies it.
        repriced: How often all costs of the store had been measured anew.
        policies: Run folder and name of each policy, by arm.
    """

    bandit: Bandit
    seq: int
    salt: str
    repriced: int
    policies: dict[str, tuple[str, str]]


class Snapshots:
    """The snapshot file of a loop.

    Args:
        path: The file.
        config: How the loop's bandit is configured; a snapshot of another configuration is ignored.
    """

    def __init__(self, path: Path, config: BanditConfig) -> None:
        self.path, self._config = path, config
        self.seq = 0

    def read(self) -> Snapshot | None:
        """The snapshot, if there is one that can be read and has the same configuration."""
        try:
            row = json.loads(self.path.read_text(encoding="utf-8"))
            bandit = Bandit.from_json(row["bandit"])
            if json.dumps(row["bandit"]["config"]) != json.dumps(
                self._config.model_dump(mode="json"), allow_nan=False
            ):
                return None
            policies = {str(arm): (str(run), str(name)) for arm, (run, name) in row["policies"].items()}
            repriced = int(row.get("repriced", 0))
            return Snapshot(bandit, int(row["seq"]), str(row["salt"]), repriced, policies)
        except (OSError, ValueError, KeyError, TypeError, EditLoopError):
            return None  # it is only a cache

    async def write(self, snapshot: Snapshot) -> float:
        """Write a snapshot; returns the seconds for which that kept the event loop busy.

        Raises:
            EditLoopError: The file cannot be written.
        """
        started = time.perf_counter()
        row = {"seq": snapshot.seq, "salt": snapshot.salt, "policies": snapshot.policies}
        row |= {"repriced": snapshot.repriced, "bandit": snapshot.bandit.to_json()}
        busy = time.perf_counter() - started
        self.seq = snapshot.seq
        await asyncio.to_thread(self._write, row)
        return busy

    def _write(self, row: dict[str, Any]) -> None:
        with atomic_file(self.path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            # In parts, because encoding all at once would hold the interpreter's lock, and so the event loop.
            for part in json.JSONEncoder(allow_nan=False).iterencode(row):
                file.write(part)

    async def keep_writing(self, take: Callable[[], Snapshot]) -> None:
        """Write a snapshot every while, as long as there are new events.

        Args:
            take: Gives the snapshot of this moment.
        """
        pause = SNAPSHOT_INTERVAL
        while True:
            await asyncio.sleep(pause)
            snapshot = take()
            if snapshot.seq > self.seq:
                try:
                    pause = max(SNAPSHOT_INTERVAL, SNAPSHOT_SHARE * await self.write(snapshot))
                except (OSError, ValueError, EditLoopError) as error:
                    log.warning("no snapshot: %s", error)
