"""Four replicas of the server on one PostgreSQL, beside one: processor time, throughput, kills.

Each server is started as a user starts it, in front of a model server that answers at once. One replica and
several get the same requests at the same total rate in turns; those that do not take part are paused.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.fault_check import agrees, read_tables
from benchmarks.load import Plan, Seen, question
from benchmarks.replica_faults import killed
from benchmarks.served import Process, editloop_server, processor_seconds
from benchmarks.serving import EDITS, put_load, summarise
from editloop.errors import RunError
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.serve.testing import make_run, stub_server
from editloop.store.testing import Postgres, find_binaries

__all__ = ["run"]

GOAL = 1.15
"""The goal for the processor time of the servers for each completion: of several, divided by that of one."""

LOADS = 4
"""Processes that send the requests, whatever the number of replicas is."""

PROBES = 20
"""Edits after which another replica is asked until it counts them."""


def run(
    out: str | Path,
    *,
    replicas: int = 4,
    rate: float = 100.0,
    seconds: float = 20.0,
    warm_up: float = 3.0,
    turns: int = 5,
    saturated: float = 10.0,
    kills: int = 1000,
    pause: float = 0.1,
    seed: int = 0,
    work: str | Path = "benchmarks/work",
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `replicas.json` and `replicas.md`.

    Args:
        out: The folder for the results.
        replicas: How many replicas are compared with one.
        rate: Requests per second, over all replicas.
        seconds: How long each is measured, in each turn.
        warm_up: Seconds of load before each measurement, which count for the processor time.
        turns: How many times both are measured; 0 leaves out all but the kills.
        saturated: Seconds of a load beyond what they can do, for the throughput; 0 leaves that out.
        kills: How many times one of three replicas is killed; 0 leaves that out.
        pause: Mean seconds between two completions of each of the eight clients meanwhile.
        seed: The seed of the random times of the kills.
        work: The folder for the servers' state while they are measured.
        callback: Receives progress.

    Raises:
        RunError: There is no PostgreSQL, or a server does not start.
    """
    callback = callback or WarningCallback()
    binaries = find_binaries()
    if binaries is None:
        raise RunError("there is no PostgreSQL on this machine", do="install its server")
    Path(work).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=work)))
        upstream = stack.enter_context(stub_server(folder / "stub.log"))
        postgres = Postgres(binaries)
        stack.callback(postgres.close)
        postgres.start()
        model = make_run(folder / "run")
        measured: dict[str, Any] = {"replicas": replicas, "rate": rate, "goal": GOAL}
        if turns:
            plan = Plan(0, rate / LOADS, seconds, warm_up, EDITS)
            with ExitStack() as servers:
                groups = {
                    n: _start(n, postgres.new(), model, upstream, folder, servers) for n in (1, replicas)
                }
                measured |= _beside_one(groups, postgres, plan, turns, saturated, callback)
        if kills:
            place = folder / "kills"
            place.mkdir()
            times: dict[str, Any] = {"replicas": 3, "kills": kills, "pause": pause, "seed": seed}
            work_of_kills = killed(postgres.new(), model, upstream, place, **times, callback=callback)
            measured["kills"] = asyncio.run(work_of_kills)
    write_result("replicas", measured, _markdown(measured), out)
    return measured


def _beside_one(
    groups: Mapping[int, tuple[str, Sequence[Process]]],
    postgres: Postgres,
    plan: Plan,
    turns: int,
    saturated: float,
    callback: ProgressCallback,
) -> dict[str, Any]:
    """What several replicas use and reach, and one; the groups are stores with their replicas."""
    processes = {n: group for n, (_, group) in groups.items()}
    measured: dict[str, Any] = {"load_average": os.getloadavg()[0]}
    measured["loads"] = _turns(processes, postgres, plan, turns, callback)
    if saturated:
        measured["throughput"] = _throughput(processes, saturated, callback)
    measured["lag_ms"] = _lags(processes[max(processes)])
    measured["state_equal"] = all(
        agrees(server.get("/v1/arms"), read_tables(url).events)
        for url, group in groups.values()
        for server in group
    )
    return measured


def _start(
    n: int, url: str, model: Path, upstream: int, folder: Path, stack: ExitStack
) -> tuple[str, list[Process]]:
    """Start replicas on a store of their own."""
    made = []
    for number in range(n):
        state = folder / f"state-{n}-{number}"
        server = editloop_server(model, url, upstream, folder / f"{state.name}.log", ["--state", str(state)])
        stack.callback(server.kill)
        server.begin()
        if not number:  # it makes the tables
            server.wait()
        made.append(server)
    for server in made:
        server.wait()
    return url, made


@contextmanager
def _alone(n: int, groups: Mapping[int, Sequence[Process]]) -> Iterator[None]:
    """Pause all others within the block."""
    with ExitStack() as stack:
        for other, group in groups.items():
            for server in group if other != n else ():
                stack.enter_context(server.at_rest())
        yield


def _turns(
    groups: Mapping[int, Sequence[Process]],
    postgres: Postgres,
    plan: Plan,
    turns: int,
    callback: ProgressCallback,
) -> dict[str, Any]:
    """The latencies of each group, and its processor milliseconds for each completion by turn."""
    seen: dict[int, list[Seen]] = {n: [] for n in groups}
    used: dict[int, list[tuple[float, float]]] = {n: [] for n in groups}
    completions = round(LOADS * plan.rate * (plan.seconds + plan.warm_up))
    for turn in range(turns):
        for n in list(groups)[:: 1 if turn % 2 == 0 else -1]:
            with _alone(n, groups):
                before = _used(groups[n], postgres)
                seen[n] += _put(groups[n], plan)
                used[n].append(
                    tuple(
                        1000 * (now - then) / completions
                        for now, then in zip(_used(groups[n], postgres), before, strict=True)
                    )  # type: ignore[arg-type]
                )
            callback.progress("loads", len(used[n]) + turn, 2 * turns, f"{n} replicas")
    found = {}
    for n in groups:
        servers, database = zip(*used[n], strict=True)
        found[str(n)] = summarise(seen[n]) | {
            "servers_ms": float(np.mean(servers)),
            "servers_ms_by_turn": servers,
            "database_ms": float(np.mean(database)),
            "database_ms_by_turn": database,
        }
    return found


def _used(group: Sequence[Process], postgres: Postgres) -> tuple[float, float]:
    """The processor seconds of the servers, and of PostgreSQL."""
    parent, *others = postgres.processes()
    database = [processor_seconds(parent, ended=True), *map(processor_seconds, others)]
    return sum(each.processor_seconds() or 0.0 for each in group), sum(each or 0.0 for each in database)


def _put(group: Sequence[Process], plan: Plan) -> list[Seen]:
    """Put a load on a group, from the same number of processes for any group."""
    plans = [Plan(**vars(plan) | {"port": group[each % len(group)].port}) for each in range(LOADS)]
    with ThreadPoolExecutor(LOADS) as pool:
        return list(pool.map(put_load, plans))


def _throughput(
    groups: Mapping[int, Sequence[Process]], seconds: float, callback: ProgressCallback
) -> dict[str, float]:
    """Completions per second of each group under a load that it cannot follow."""
    found = {}
    for n, group in groups.items():
        callback.message(f"the throughput of {n}")
        with _alone(n, groups):
            several = _put(group, Plan(0, 500.0, seconds, 2.0, EDITS, most=32, patience=20.0))
        found[str(n)] = sum(seen.in_time for seen in several) / seconds
    return found


def _lags(group: Sequence[Process]) -> dict[str, float]:
    """Milliseconds from the acknowledgement of an edit until another replica counts it, without a load."""
    lags = []
    with httpx.Client(timeout=30) as http:
        for number in range(PROBES):
            one, other = (group[(number + step) % len(group)] for step in (0, 1))
            known = _observed(other)
            answer = http.post(
                f"http://127.0.0.1:{one.port}/v1/chat/completions", json=question(number, 0)
            ).json()
            edit = {"response_id": answer["id"], "edit": "Dear Ada"}
            http.post(f"http://127.0.0.1:{one.port}/v1/edits", json=edit).raise_for_status()
            acknowledged = time.monotonic()
            while _observed(other) <= known and time.monotonic() < acknowledged + 30:
                time.sleep(0.005)
            lags.append(1000 * (time.monotonic() - acknowledged))
    return {"median": float(np.median(lags)), "most": float(np.max(lags))}


def _observed(server: Process) -> float:
    return sum(float(arm["observed"]) for arm in server.get("/v1/arms")["data"])


def _markdown(measured: Mapping[str, Any]) -> str:
    return "\n\n".join([*_loads_text(measured), *_killed_text(measured.get("kills"))])


def _loads_text(measured: Mapping[str, Any]) -> list[str]:
    if "loads" not in measured:
        return []
    n, loads = measured["replicas"], measured["loads"]
    rows = []
    for name, each in loads.items():
        share = [f"{each['servers_ms']:.2f}", f"{each['database_ms']:.2f}"]
        latencies = [f"{each['latency_ms'][p]:.1f}" for p in ("p50", "p99")]
        rows.append(
            [name, *share, *latencies, f"{each['requests'] - each['answered']} of {each['requests']:,}"]
        )
    one, several = loads["1"], loads[str(n)]
    ratio = several["servers_ms"] / one["servers_ms"]
    by_turn = [b / a for a, b in zip(one["servers_ms_by_turn"], several["servers_ms_by_turn"], strict=True)]
    met = "met" if ratio <= measured["goal"] else "missed"
    lag = measured["lag_ms"]
    parts = [
        f"One replica and {n} on one PostgreSQL, in front of a model server that answers at once, in turns, "
        f"at {measured['rate']:g} requests per second over all replicas. {EDITS:.0%} of the completions are "
        'followed by an edit. "Servers" and "PostgreSQL" are the processor milliseconds for each completion, '
        "its edits included, summed over all processes.",
        markdown_table(["replicas", "servers", "PostgreSQL", "p50, ms", "p99, ms", "unanswered"], rows),
        f"The servers' processor time of {n} is {ratio:.2f} times that of one (goal: at most "
        f"{measured['goal']}: {met}); by turn {', '.join(f'{each:.2f}' for each in by_turn)}. Before "
        f"it began, the machine's load average was {measured['load_average']:.1f}; what else runs makes all "
        "of this slower.",
        f"Until another replica counts an edit, without a load: {lag['median']:.0f} ms in the median, "
        f"{lag['most']:.0f} ms at most of {PROBES}.",
        "At the end each replica showed exactly the figures that a fold of the store's events gives: "
        + ("yes." if measured["state_equal"] else "NO."),
    ]
    if "throughput" in measured:
        done = ", ".join(f"{each:.0f} by {name}" for name, each in measured["throughput"].items())
        parts.append(
            f"Completions per second under a load beyond what they can do: {done}. The load, the model "
            "server and PostgreSQL run on the same cores, so more replicas cannot be faster than those allow."
        )
    return parts


def _killed_text(kills: Mapping[str, Any] | None) -> list[str]:
    if kills is None:
        return []
    lost = kills["completions_lost"] + kills["edits_lost"]
    double = kills["edits_double"] + kills["decisions_double"] + kills["acknowledgements_that_differ"]
    equal = kills["state_equal"] and kills["state_equal_after_restart"]
    figures = [
        *(f"{kills[name]:,}" for name in ("failures", "requests", "completions", "edits")),
        *(f"{each:,}" for each in (lost, double, kills["gaps"])),
        "yes" if equal else "NO",
    ]
    head = ["kills", "requests", "completions", "edits", "lost", "double", "missing numbers", "state equal"]
    answers = ", ".join(f"{what} {count:,}" for what, count in kills["answers"].items())
    return [
        f"{kills['replicas']} replicas, of which one after the other is killed at random times under load, "
        "half of the time while another one is still starting, and 5% of them after a pause of seven seconds "
        "(SIGSTOP). Eight clients send each attempt of a request to any replica. The columns are those of "
        '[`faults`](faults.md). "Missing numbers" are those of transactions that were undone.',
        markdown_table(head, [figures], left=0),
        f"The results of all attempts: {answers}. Time of a start: "
        f"{kills['start_seconds']['median']:.1f} s in the median, "
        f"{kills['start_seconds']['most']:.1f} s at most.",
    ]
