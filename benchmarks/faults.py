"""Fault injection: how much is lost or duplicated when things fail, counted over many failures.

All processes are real: a server as a user starts it, clients that retry, and a model server that answers at
once. The server is killed at random times; its disk becomes full; its PostgreSQL is stopped; its model server
leaves requests unanswered. At the end the store is read directly and compared with what the server has
acknowledged (`benchmarks.fault_check`).
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fault_check import agrees, check, read_tables
from benchmarks.fault_clients import Account, Clients
from benchmarks.served import Process, editloop_server
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.serve.testing import make_run, stub_server
from editloop.store.testing import Postgres, find_binaries, free_port

__all__ = ["run"]

LIFE = 0.8
"""Mean seconds for which a server answers before it is killed."""

EARLY = 0.1
"""Share of the kills that come while a server is still starting."""

IN_ORDER = 25
"""After this many kills, a server is also stopped properly, so that the next one starts from a snapshot."""

LONG = 100
"""After this many kills, a server lives long enough to write a snapshot under load before it is killed."""

SNAPSHOT = 30.0
"""Seconds between a server's snapshots."""

DISK_MB = 16
"""The size of the disk that is filled."""

ABOUT = (
    "Eight clients request completions and edit them, with up to ten attempts for each request. One edit in "
    "twenty is sent ten times in any case. In the scenario with PostgreSQL, two more clients only request "
    'completions. "Completions" and "edits" count what was acknowledged. "Lost" is what is not in the store '
    'as it was acknowledged. "Double" is what is in the store, or was acknowledged, as more than one. "State '
    'equal" means that `GET /v1/arms`, at the end and after one more restart, shows exactly the figures that '
    "a fold of the store's events gives, down to the last bit. What a killed process has written stays with "
    "the operating system, so these failures do not include a loss of power."
)
"""The text of the report above its tables."""


@dataclass
class Place:
    """Where a scenario runs.

    Attributes:
        folder: The folder for its files.
        run: The run folder.
        upstream: The port of the model server.
        seed: The seed of its random choices.
        callback: Receives progress.
    """

    folder: Path
    run: Path
    upstream: int
    seed: int
    callback: ProgressCallback

    def server(self, store: str, options: Sequence[str] = ()) -> Process:
        """A server over a store, not started yet."""
        return editloop_server(
            self.run, store, self.upstream, self.folder / "serve.log", options, free_port()
        )


def run(
    out: str | Path,
    *,
    kills: int = 1000,
    fills: int = 20,
    outages: int = 40,
    hangs: int = 200,
    pause: float = 0.1,
    seed: int = 0,
    work: str | Path = "benchmarks/work",
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Break things, and write `faults.json` and `faults.md`.

    Args:
        out: The folder for the results.
        kills: How many times the server is killed.
        fills: How many times the disk becomes full.
        outages: How many times PostgreSQL is stopped.
        hangs: How many requests the model server leaves unanswered.
        pause: Mean seconds between two completions of each of the eight clients.
        seed: The seed of the random times.
        work: The folder for the stores while the benchmark runs.
        callback: Receives progress.

    Raises:
        RunError: A server does not start again.
    """
    callback = callback or WarningCallback()
    Path(work).mkdir(parents=True, exist_ok=True)
    scenarios = {
        "server killed": (_killed, kills),
        "disk full": (_full, fills),
        "PostgreSQL stopped": (_stopped, outages),
        "model server hangs": (_hanging, hangs),
    }
    measured: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(dir=work) as temporary,
        stub_server(Path(temporary) / "stub.log") as upstream,
    ):
        for number, (name, (scenario, count)) in enumerate(scenarios.items()):
            if not count:
                continue
            folder = Path(temporary) / str(number)
            folder.mkdir()
            place = Place(folder, make_run(folder / "run"), upstream, seed, callback)
            started = time.monotonic()
            found = asyncio.run(scenario(place, count, pause))
            measured[name] = {**found, "seconds": time.monotonic() - started}
            callback.message(f"{name}: {_line(measured[name])}")
    data = {"scenarios": measured}
    write_result("faults", data, _markdown(measured), out)
    return data


@asynccontextmanager
async def _clients(place: Place, server: Process, account: Account, **options: Any) -> AsyncIterator[Clients]:
    """Clients that send requests within the block."""
    clients = Clients(server.port, account, seed=place.seed, **options)
    try:
        yield clients
    finally:
        await clients.stop()


async def _killed(place: Place, kills: int, pause: float) -> dict[str, Any]:
    """The server is killed at random times under load, and restarted each time."""
    url = f"sqlite:///{place.folder / 'edits.db'}"
    server, account, chance = place.server(url), Account(), random.Random(place.seed)
    starts: list[float] = []
    try:
        starts.append(await asyncio.to_thread(server.start))
        async with _clients(place, server, account, pause=pause):
            for done in range(kills):
                if chance.random() < EARLY and done and done % LONG != LONG - 1:
                    await asyncio.sleep(chance.random() * float(np.median(starts)))
                else:
                    starts.append(await asyncio.to_thread(server.wait))
                    long = SNAPSHOT + 0.5 if done % LONG == LONG - 1 else 0.0
                    await asyncio.sleep(long + min(chance.expovariate(1 / LIFE), 5 * LIFE))
                server.kill()
                server.begin()
                if done % IN_ORDER == IN_ORDER - 1:
                    await asyncio.to_thread(server.wait)
                    await asyncio.to_thread(server.stop)
                    server.begin()
                place.callback.progress("kills", done + 1, kills)
            await asyncio.to_thread(server.wait)
        found = await _compare(server, account, url)
        return {
            "failures": kills,
            "restarts": kills + kills // IN_ORDER,
            "start_seconds": _spread(starts),
            **found,
        }
    finally:
        server.kill()


async def _full(place: Place, fills: int, pause: float) -> dict[str, Any]:
    """The store's disk is full for a while."""
    disk = place.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)]
    if os.name != "posix" or os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        return {"skipped": "only root can mount a small disk"}
    url = f"sqlite:///{disk / 'edits.db'}"
    server, account = place.server(url), Account()
    ballast = disk / "ballast"
    recovered: list[float] = []
    try:
        await asyncio.to_thread(server.start)
        async with _clients(place, server, account, pause=pause):
            for done in range(fills):
                await asyncio.sleep(1.0)
                _fill(ballast)
                await asyncio.sleep(2.0)
                ballast.unlink()
                freed, known = time.monotonic(), account.answers["edit 200"]
                while account.answers["edit 200"] == known and time.monotonic() < freed + 30:
                    await asyncio.sleep(0.02)
                recovered.append(time.monotonic() - freed)
                place.callback.progress("full disks", done + 1, fills)
        found = await _compare(server, account, url)
        return {"failures": fills, "restarts": 0, "recovery_seconds": _spread(recovered), **found}
    finally:
        server.kill()
        subprocess.run(["umount", str(disk)], check=False)


def _fill(ballast: Path) -> None:
    """Write until the disk is full, at last byte by byte."""
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


async def _stopped(place: Place, outages: int, pause: float) -> dict[str, Any]:
    """PostgreSQL is stopped for a while; every other time without a shutdown, so that it has to recover."""
    binaries = find_binaries()
    if binaries is None:
        return {"skipped": "there is no PostgreSQL on this machine"}
    postgres, account, chance = Postgres(binaries), Account(), random.Random(place.seed)
    server = place.server(postgres.url, ["--state", str(place.folder / "state")])
    recovered: list[float] = []
    meanwhile = 0
    try:
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(server.start)
        async with (
            _clients(place, server, account, pause=pause),
            _clients(place, server, account, pause=pause, number=2, edits=0.0, name="a"),
        ):
            for done in range(outages):
                await asyncio.sleep(0.5 + chance.random())
                await asyncio.to_thread(postgres.stop, at_once=done % 2 == 1)
                known = len(account.completions)
                await asyncio.sleep(1 + 2 * chance.random())
                meanwhile += len(account.completions) - known
                await asyncio.to_thread(postgres.start)
                back, known = time.monotonic(), account.answers["edit 200"]
                while account.answers["edit 200"] == known and time.monotonic() < back + 30:
                    await asyncio.sleep(0.02)
                recovered.append(time.monotonic() - back)
                place.callback.progress("outages", done + 1, outages)
        spool = place.folder / "state" / "spool.jsonl"
        until = time.monotonic() + 30
        while spool.exists() and time.monotonic() < until:
            await asyncio.sleep(0.1)
        found = await _compare(server, account, postgres.url)
        more = {"completions_meanwhile": meanwhile, "recovery_seconds": _spread(recovered)}
        return {"failures": outages, "restarts": 0, **more, **found}
    finally:
        server.kill()
        await asyncio.to_thread(postgres.close)


async def _hanging(place: Place, hangs: int, pause: float) -> dict[str, Any]:
    """The model server leaves every tenth request unanswered: another arm answers after the timeout."""
    url = f"sqlite:///{place.folder / 'edits.db'}"
    server, account = place.server(url, ["--upstream-timeout", "0.5"]), Account()

    def mark(number: int) -> str:
        return f" [hang {number}]" if number % 10 == 0 else ""

    try:
        await asyncio.to_thread(server.start)
        async with _clients(place, server, account, pause=pause, mark=mark):
            while len(account.asked) < 10 * hangs:
                await asyncio.sleep(0.1)
                place.callback.progress("hanging", min(len(account.asked) // 10, hangs), hangs)
        found = await _compare(server, account, url)
        hung = sum(int(response_id.rpartition("-")[2]) % 10 == 0 for response_id in account.asked)
        return {"failures": hung, "restarts": 0, **found}
    finally:
        server.kill()


async def _compare(server: Process, account: Account, url: str) -> dict[str, Any]:
    """Compare the acknowledgements, the store and the server's state, before and after a restart."""
    served = await asyncio.to_thread(server.get, "/v1/arms")
    await asyncio.to_thread(server.stop)
    tables = read_tables(url)
    found = check(account, tables)
    await asyncio.to_thread(server.start)
    again = await asyncio.to_thread(server.get, "/v1/arms")
    return {
        "requests": account.requests,
        "answers": dict(sorted(account.answers.items())),
        "unhelpful_503": account.unhelpful,
        **found,
        "state_equal": agrees(served, tables.events),
        "state_equal_after_restart": agrees(again, tables.events),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(seconds)), "most": float(np.max(seconds))} if seconds else {}


def _line(found: Mapping[str, Any]) -> str:
    if "skipped" in found:
        return f"left out, {found['skipped']}"
    lost, double = found["edits_lost"] + found["completions_lost"], _double(found)
    return f"{found['failures']} failures, {found['requests']:,} requests, {lost} lost, {double} double"


def _double(found: Mapping[str, Any]) -> int:
    return int(found["edits_double"] + found["decisions_double"] + found["acknowledgements_that_differ"])


def _markdown(measured: Mapping[str, Mapping[str, Any]]) -> str:
    done = {name: each for name, each in measured.items() if "skipped" not in each}
    rows = []
    for name, each in done.items():
        equal = each["state_equal"] and each["state_equal_after_restart"]
        rows.append(
            [
                name,
                *(f"{each[field]:,}" for field in ("failures", "requests", "completions", "edits")),
                f"{each['completions_lost'] + each['edits_lost']}",
                f"{_double(each)}",
                f"{each['restarts']:,}",
                f"{each['seconds']:,.0f}",
                "yes" if equal else "NO",
            ]
        )
    head = ["what fails", "failures", "requests", "completions", "edits", "lost", "double", "restarts"]
    parts = [
        ABOUT,
        markdown_table([*head, "seconds", "state equal"], rows),
        'The results of all attempts ("broken" means that the connection ended without an answer):',
        markdown_table(
            ["what fails", "results"],
            [
                [name, ", ".join(f"{w} {n:,}" for w, n in each["answers"].items())]
                for name, each in done.items()
            ],
            left=2,
        ),
    ]
    times = (("start_seconds", "Time of a start"), ("recovery_seconds", "Time until the next edit"))
    for name, title in times:
        for scenario, each in done.items():
            if each.get(name):
                spread = each[name]
                figures = f"{spread['median']:.2f} s in the median, {spread['most']:.2f} s at most"
                parts.append(f"{title} ({scenario}): {figures}.")
    for scenario, each in done.items():
        if "completions_meanwhile" in each:
            count = f"{each['completions_meanwhile']:,}"
            parts.append(f"Completions during the outages ({scenario}): {count}.")
        if each["rerouted"]:
            parts.append(f"Completions that another policy answered ({scenario}): {each['rerouted']:,}.")
    parts += [
        f"Left out ({name}): {each['skipped']}." for name, each in measured.items() if "skipped" in each
    ]
    return "\n\n".join(parts)
