"""Several replicas on one PostgreSQL, of which one after the other is killed or paused under load.

Clients send each attempt of a request to any replica: the edit of a response goes to another one than its
completion, and what a killed replica has left unanswered is asked of another one. At the end each replica has
to show the figures of a fold of the store's events, to the last bit.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fault_check import agrees, check, read_tables
from benchmarks.fault_clients import Account, Clients
from benchmarks.served import Process, editloop_server
from editloop.progress import ProgressCallback
from editloop.store.testing import free_port

__all__ = ["killed"]

LIFE = 0.8
"""Mean seconds between the time when all replicas answer and the next kill."""

EARLY = 0.5
"""Share of the kills that come while the last replica that was killed is still starting."""

PAUSED = 0.05
"""Share of the kills before which the replica is paused, for longer than its transactions may wait for it."""

PAUSE_SECONDS = 7.0

SETTLE_SECONDS = 30.0
"""Seconds in which all replicas must have folded everything, once the load has ended."""


async def killed(
    url: str,
    run: Path,
    upstream: int,
    folder: Path,
    *,
    replicas: int,
    kills: int,
    pause: float,
    seed: int,
    callback: ProgressCallback,
) -> dict[str, Any]:
    """Kill replicas at random times, restart each, and compare at the end.

    Args:
        url: Of an empty database on PostgreSQL.
        run: The run folder whose policies are served.
        upstream: The port of the model server.
        folder: For the replicas' state and output.
        replicas: How many there are.
        kills: How many times one is killed.
        pause: Mean seconds between two completions of each of the eight clients.
        seed: The seed of the random times.
        callback: Receives progress.
    """
    servers = [_replica(url, run, upstream, folder, number) for number in range(replicas)]
    account, chance = Account(), random.Random(seed)
    starts: list[float] = []
    try:
        for server in servers:
            starts.append(await asyncio.to_thread(server.start))
        ports = [server.port for server in servers]
        clients = Clients(ports[0], account, pause=pause, seed=seed, others=ports[1:])
        try:
            last = servers[0]
            for done in range(kills):
                if chance.random() >= EARLY:
                    starts.append(await asyncio.to_thread(last.wait))
                    await asyncio.sleep(min(chance.expovariate(1 / LIFE), 5 * LIFE))
                last = chance.choice(servers)
                if chance.random() < PAUSED:
                    with last.at_rest():
                        await asyncio.sleep(PAUSE_SECONDS)
                last.kill()
                last.begin()
                callback.progress("kills", done + 1, kills)
            for server in servers:
                await asyncio.to_thread(server.wait)
        finally:
            await clients.stop()
        return await _compare(servers, account, url, kills, starts)
    finally:
        for server in servers:
            server.kill()


def _replica(url: str, run: Path, upstream: int, folder: Path, number: int) -> Process:
    state = ["--state", str(folder / f"state-{number}")]
    return editloop_server(run, url, upstream, folder / f"serve-{number}.log", state, free_port())


async def _compare(
    servers: Sequence[Process], account: Account, url: str, kills: int, starts: Sequence[float]
) -> dict[str, Any]:
    """Compare the acknowledgements, the store, and each replica's state, before and after a restart."""
    equal, seconds = await _settled(servers, url)
    for server in servers:
        await asyncio.to_thread(server.stop)
    tables = read_tables(url)
    for server in servers:
        await asyncio.to_thread(server.start)
    again = [agrees(await asyncio.to_thread(each.get, "/v1/arms"), tables.events) for each in servers]
    numbers = [row["seq"] for row in tables.events]
    return {
        "replicas": len(servers),
        "failures": kills,
        "restarts": kills,
        "requests": account.requests,
        "answers": dict(sorted(account.answers.items())),
        "unhelpful_503": account.unhelpful,
        **check(account, tables),
        "gaps": numbers[-1] - len(numbers),
        "settle_seconds": seconds,
        "state_equal": equal,
        "state_equal_after_restart": all(again),
        "start_seconds": {"median": float(np.median(starts)), "most": float(np.max(starts))},
    }


async def _settled(servers: Sequence[Process], url: str) -> tuple[bool, float]:
    """Whether the figures of all replicas become those of the store, and after how many seconds."""
    began = time.monotonic()
    while True:
        events = read_tables(url).events
        equal = [agrees(await asyncio.to_thread(each.get, "/v1/arms"), events) for each in servers]
        seconds = time.monotonic() - began
        if all(equal) or seconds > SETTLE_SECONDS:
            return all(equal), seconds
        await asyncio.sleep(0.1)
