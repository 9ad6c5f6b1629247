"""The state folder of a replica: its snapshot and its spool, which no other process may write.

The replicas of `editloop serve --workers` have folders of their own in one state folder. If there are fewer
of them than before, or none, another one takes over what those that are gone have left in their spools.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from editloop.errors import StoreError
from editloop.io import lock_file
from editloop.journal import append_rows, read_rows
from editloop.serve.loop.spool import SPOOL, Spool

__all__ = ["adopt_spools", "claim_folder", "worker_folder"]


def worker_folder(state: Path, number: int) -> Path:
    """Return the folder of a worker, from 1, in a state folder."""
    return state / f"worker-{number}"


def claim_folder(folder: Path) -> int:
    """Claim a folder, which is made if it is not there, for as long as this process lives.

    Returns:
        A descriptor, which gives the folder back when it is closed.

    Raises:
        StoreError: Another process has it, or it cannot be written.
    """
    try:
        descriptor = lock_file(folder / "lock")
    except OSError as error:
        what = f"the state folder cannot be written, {error.strerror}"
        raise StoreError(what, seen=str(folder), do="choose another --store or --state") from error
    if descriptor is None:
        raise StoreError(
            "another process has this state folder",
            seen=str(folder),
            do="give each replica a --state of its own",
        )
    return descriptor


def adopt_spools(state: Path, workers: int = 0) -> int:
    """Move what replicas that are gone have left in their spools to the spool of one that is there.

    A kill in between leaves commands in both. They are written twice then, which changes nothing.

    Args:
        state: The state folder.
        workers: How many workers there will be; 0 for one replica that has the state folder itself.

    Returns:
        The number of commands that were moved.

    Raises:
        StoreError: Another process has one of the folders, or a spool is damaged.
    """
    there = [worker_folder(state, number) for number in range(1, workers + 1)] or [state]
    moved = 0
    for folder in _left(state):
        if folder in there:
            continue
        descriptor = claim_folder(folder)
        try:
            path = folder / SPOOL
            Spool(path).tidy()
            if rows := list(read_rows(path, StoreError)):
                there[0].mkdir(parents=True, exist_ok=True)
                append_rows(there[0] / SPOOL, rows, sync=True)
            path.unlink()
            moved += len(rows)
        finally:
            os.close(descriptor)
    return moved


def _left(state: Path) -> Iterator[Path]:
    """The folders that have a spool."""
    yield from sorted(path.parent for pattern in (SPOOL, f"worker-*/{SPOOL}") for path in state.glob(pattern))
