"""A snapshot says of itself no more than what it holds."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from serving import run, serving

from editloop.online import Bandit
from editloop.serve.loop.commands import RecordDecision


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
