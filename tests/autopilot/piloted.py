"""A store with an arm, and autopilots on it whose fits are faked, for the tests of the autopilot."""

from __future__ import annotations

import json
from pathlib import Path

from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.fitter import FitResult
from editloop.autopilot.lease import Lease
from editloop.autopilot.ledger import read_stages, write_transitions
from editloop.autopilot.pilot import Autopilot
from editloop.autopilot.stages import Stage, Transition
from editloop.store import Store, writes
from editloop.store.schema import COST, SALT

S = Stage
CHAMPION = "sft@11111111"


class FakeFitter:
    """Fits whenever a test wants it to, and can be killed."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.starts: list[Path | None] = []
        self.users: list[str | None] = []
        self.result: FitResult | None = None
        self.stopped = 0

    def start(self, lineage, champion=None, start=None, user=None) -> None:
        self.started.append(lineage.run)
        self.users.append(user)
        self.starts.append(start)

    def poll(self):
        found, self.result = self.result, None
        return found

    def stop(self) -> None:
        self.stopped += 1


class Bench:
    """A store with an arm, and autopilots on it."""

    def __init__(self, folder: Path, url: str, champion: str = CHAMPION, run: str = "gone") -> None:
        self.folder, self.now = folder, 1_000_000.0
        self.store = Store(url)
        self.store.open(claim=False)
        self.config = AutopilotConfig(min_edits=20, canary_rounds=40, shadow_rounds=20, hold_out=0.0)
        self.fitter = FakeFitter()
        self.n = 0
        with self.store.transaction() as connection:
            writes.set_fact(connection, COST, "levenshtein:word/longest")
            writes.set_fact(connection, SALT, "salt")  # who is in a canary depends on it
            row = {"time": 1.0, "kind": "arms", "epoch": 1, "arms": json.dumps([champion])}
            writes.insert_event(connection, row)
            place = {"name": "sft", "run": run, "time": 1.0, "metrics": "{}", "read_until": None}
            writes.insert_policy(connection, {"arm": champion, **place})
        self.pilot = self.new()

    def new(self) -> Autopilot:
        """Another process: all that it knows is in the store."""
        self.fitter = FakeFitter()
        lease = Lease(self.store, seconds=0.0)
        return Autopilot(
            self.store, self.config, self.fitter, self.folder / "runs", clock=lambda: self.now, lease=lease
        )

    def restart(self) -> None:
        self.pilot = self.new()
        self.pilot._lease.take()  # it sees the old holder's number, and then that it does not change

    def stages(self):
        return self.store.read(read_stages)

    def rounds(
        self,
        n: int,
        arm: str,
        response: str,
        edit: str,
        users: int = 10,
        by: str | None = None,
        user: str | None = None,
    ) -> None:
        """Rounds of an arm, whose drafts all users edit so, or one; another arm may have answered."""
        with self.store.transaction() as connection:
            for _ in range(n):
                self.n += 1
                name = f"r{self.n}"
                about = {"response_id": name, "time": self.now, "arm": arm, "scope": ""}
                writes.insert_event(connection, {"kind": "decided", "revision": -1, **about})
                about |= {"cost": 0.0 if response == edit else 0.5, "kind": "edited"}
                writes.insert_event(connection, {"revision": 1, **about})
                draft = {"response_id": name, "time": self.now, "user": user or f"u{self.n % users}"}
                draft |= {"policy": by or arm}
                text = {"context": '"Write."', "request": f"digest {self.n}", "response": response}
                text |= {"finish": "stop"}
                writes.insert_draft(connection, {**draft, **text})
                new = {"response_id": name, "revision": 1, "time": self.now, "edit": edit}
                writes.insert_edit(connection, new)
                self.now += 1


def begin_shadow(bench, arm: str, run: str = "gone") -> None:
    """A policy in the shadow, as after a fit."""
    bench.pilot.step()
    bench.pilot.step()
    with bench.store.transaction() as connection:
        row = {"arm": arm, "name": "early", "run": run, "time": bench.now, "metrics": "{}"}
        write_transitions(connection, [Transition(arm, None, S.SHADOW, bench.now)], [row])
