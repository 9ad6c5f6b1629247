"""A snapshot claims no more events than it holds, and a file holds one snapshot."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Parrot, run, serving

from editloop.autopilot.stages import Stages
from editloop.errors import EditLoopError
from editloop.online import Bandit, BanditConfig
from editloop.serve.loop.commands import RecordDecision
from editloop.serve.loop.intervals import CostIntervals
from editloop.serve.loop.snapshots import Snapshot, Snapshots


def snapshot_of(seq: int) -> Snapshot:
    return Snapshot(Bandit(("a@1", "b@2")), seq, "salt", "secret", 0, {}, CostIntervals(1.0), Stages())


def test_a_snapshot_of_a_busy_loop_knows_what_it_lacks(tmp_path: Path) -> None:
    """What the writer has on the disk and the loop has not learned yet is folded after a restart."""
    url, snapshot = f"sqlite:///{tmp_path / 'edits.db'}", tmp_path / "state/snapshot.json"

    async def work() -> None:
        async with serving(url, tmp_path / "state") as service:
            loop = service.loop
            before = loop.store.last()
            written = asyncio.ensure_future(
                loop.write(RecordDecision(loop.choose("x", None), 1.0, None, "d", '"W"', None))
            )
            await asyncio.sleep(0)
            while loop.store.last() == before:  # the loop is busy
                time.sleep(0.01)
            await loop.snapshots.write(loop.take_snapshot())
            row = json.loads(snapshot.read_text())
            state = Bandit.from_json(row["bandit"]).state
            assert (row["seq"], state.decisions) == (before, 0)
            await written
            await loop.snapshots.write(loop.take_snapshot())
            assert json.loads(snapshot.read_text())["seq"] == before + 1

    run(work())


def test_a_write_that_was_cancelled_is_not_mixed_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on writing, to the same unfinished file."""
    begun, go_on = threading.Event(), threading.Event()
    encode = json.JSONEncoder.iterencode

    def slow(encoder: json.JSONEncoder, value: Any, _one_shot: bool = False) -> Iterator[str]:
        for part in encode(encoder, value, _one_shot):
            yield part
            if isinstance(value, dict) and value.get("seq") == 1 and not begun.is_set():
                begun.set()
                go_on.wait(30)

    monkeypatch.setattr(json.JSONEncoder, "iterencode", slow)
    snapshots = Snapshots(tmp_path / "snapshot.json", BanditConfig())

    async def work() -> None:
        first = asyncio.create_task(snapshots.write(snapshot_of(1)))
        await asyncio.to_thread(begun.wait, 30)
        first.cancel()
        second = asyncio.create_task(snapshots.write(snapshot_of(2)))
        await asyncio.sleep(0.2)
        go_on.set()
        await second
        await asyncio.get_running_loop().shutdown_default_executor()  # the first thread has ended, too
        found = snapshots.read()
        assert found is not None and found.seq == 2

    run(work())


def test_a_backend_that_fails_to_stop_prevents_no_snapshot(tmp_path: Path) -> None:
    class Stubborn(Parrot):
        async def stop(self) -> None:
            raise RuntimeError("stubborn")

    async def work() -> None:
        with pytest.raises(RuntimeError, match="stubborn"):
            async with serving(f"sqlite:///{tmp_path / 'edits.db'}", tmp_path / "state", backend=Stubborn()):
                pass
        assert (tmp_path / "state/snapshot.json").is_file()

    run(work())


def test_a_snapshot_that_could_not_be_written_is_still_due(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    snapshots = Snapshots(tmp_path / "file" / "snapshot.json", BanditConfig())

    async def work() -> None:
        with pytest.raises(EditLoopError, match="cannot write"):
            await snapshots.write(snapshot_of(1))
        assert snapshots.seq == 0

    run(work())
