"""The latency that the server adds to a completion, compared with the LiteLLM proxy under the same load.

The server is started as a user starts it, with a SQLite store on the disk, in front of a model server that
answers at once. Requests are sent at a fixed rate, and their latency is measured from the time at which they
were due. The added latency is a percentile through the server minus the same percentile without it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT
from benchmarks.litellm_proxy import litellm_proxy
from benchmarks.load import Plan, Seen
from benchmarks.served import Process, editloop_server
from editloop.errors import RunError
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.serve.testing import make_run, stub_server

__all__ = ["run"]

RATES = (50.0, 100.0, 200.0)
EDITS = 0.3
"""The share of completions that are followed by an edit."""

PERCENTILES = (50, 90, 99)
GOALS = {"rate": 200.0, "p50_ms": 3.0, "p99_ms": 10.0, "learned_ms": 1000.0}
"""Goals for the latency that the server adds at a rate, and for the time until its statistics count edits."""

MOST_P99_MS = 50.0
"""A rate is sustained if the p99 of its latencies is at most this ..."""

LEAST_SHARE = 0.98
"""... and at least this share of the requests that were due is answered when the load ends."""

DIRECT, EDITLOOP, LITELLM = "model server alone", "EditLoop", "LiteLLM"


def run(
    out: str | Path,
    *,
    rates: Sequence[float] = RATES,
    seconds: float = 20.0,
    warm_up: float = 3.0,
    turns: int = 3,
    sustain: float = 8.0,
    litellm: bool = True,
    work: str | Path = "benchmarks/work",
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `serve.json` and `serve.md`.

    Args:
        out: The folder for the results.
        rates: Requests per second.
        seconds: How long each rate is measured, in each turn.
        warm_up: Seconds of load before each measurement.
        turns: How many times all servers are measured, one after the other.
        sustain: Seconds of each attempt to find the highest sustained rate; 0 leaves that out.
        litellm: Whether the LiteLLM proxy is measured as well.
        work: The folder for the store while it is measured, and for the proxy's virtual environment.
        callback: Receives progress.

    Raises:
        RunError: A server does not start, or the proxy cannot be installed.
    """
    callback = callback or WarningCallback()
    Path(work).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as temporary, ExitStack() as stack:
        folder = Path(temporary)
        upstream = stack.enter_context(stub_server(folder / "stub.log"))
        servers: dict[str, Process] = {
            EDITLOOP: editloop_server(
                make_run(folder / "run"), str(folder / "edits.db"), upstream, folder / "serve.log"
            )
        }
        version = None
        if litellm:
            servers[LITELLM], version = litellm_proxy(upstream, folder, Path(work), callback)
        started = {}
        for name, server in servers.items():
            stack.callback(server.kill)
            started[name] = server.start()
        ports = {DIRECT: upstream, **{name: server.port for name, server in servers.items()}}
        measured: dict[str, Any] = {
            "goals": GOALS,
            "litellm_version": version,
            "start_seconds": started,
            "disk_ms": disk(folder),
            "loads": _measure(ports, servers, rates, seconds, warm_up, turns, callback),
        }
        if sustain:
            measured["sustained"] = {}
            for name in servers:
                callback.message(f"the highest rate that {name} sustains")
                with _alone(name, servers):
                    measured["sustained"][name] = _sustained(name, ports[name], sustain, callback)
    write_result("serve", measured, _markdown(measured), out)
    return measured


def _measure(
    ports: Mapping[str, int],
    servers: Mapping[str, Process],
    rates: Sequence[float],
    seconds: float,
    warm_up: float,
    turns: int,
    callback: ProgressCallback,
) -> dict[str, dict[str, Any]]:
    """Summaries of the loads, by rate and by server."""
    seen: dict[tuple[str, str], list[Seen]] = {}
    used: dict[tuple[str, str], list[float]] = {}
    done = 0
    for turn in range(turns):
        for rate in rates:
            # Every other turn goes backwards, so that a machine that slows down or heats up favours nobody.
            for name in list(ports)[:: 1 if turn % 2 == 0 else -1]:
                mine = name == EDITLOOP
                key, server = (f"{rate:g}", name), servers.get(name)
                plan = Plan(ports[name], rate, seconds, warm_up, EDITS if mine else 0.0, probes=mine)
                before = _counted(server, mine)
                with _alone(name, servers):
                    seen.setdefault(key, []).append(put_load(plan))
                sums = used.setdefault(key, [0.0] * 4)
                now = round(rate * (seconds + warm_up)), *_counted(server, mine)
                used[key] = [a + b - c for a, b, c in zip(sums, now, (0, *before), strict=True)]
                done += 1
                callback.progress("loads", done, turns * len(rates) * len(ports), f"{name}, {rate:g}/s")
    found: dict[str, dict[str, Any]] = {}
    for key, several in seen.items():
        asked, processor, own, count = used[key]
        shown = found.setdefault(key[0], {})[key[1]] = summarise(several)
        shown["processor_ms"] = 1000 * processor / asked if processor else None
        shown["own_mean_ms"] = 1000 * own / count if count else None
    for by_name in found.values():
        for name in by_name:
            by_name[name]["added"] = None if name == DIRECT else added(by_name[name], by_name[DIRECT])
    return found


@contextmanager
def _alone(name: str, servers: Mapping[str, Process]) -> Iterator[None]:
    """Pause all other servers within the block, so that they use no processor time meanwhile."""
    with ExitStack() as stack:
        for other, server in servers.items():
            if other != name:
                stack.enter_context(server.at_rest())
        yield


def _counted(server: Process | None, mine: bool) -> tuple[float, float, float]:
    """The processor seconds that a server has used, and its own count of its overhead, if it is EditLoop."""
    if server is None:
        return 0.0, 0.0, 0.0
    own = own_overhead(server.get("/metrics")) if mine else (0.0, 0.0)
    return server.processor_seconds() or 0.0, *own


def put_load(plan: Plan) -> Seen:
    """Put a load on a server, from a process of its own, so that nothing else delays its requests.

    Raises:
        RunError: The load has failed.
    """
    command = [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(plan))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RunError("the load has failed", seen=done.stderr.strip().splitlines()[-1:])
    return Seen(**json.loads(done.stdout))


def summarise(several: Sequence[Seen]) -> dict[str, Any]:
    """Percentiles in milliseconds over all turns and of each turn, and counts of unanswered requests."""
    planned = sum(seen.planned for seen in several)
    answered = sum(len(seen.latencies) for seen in several)
    failed: dict[str, int] = {}
    for seen in several:
        for reason, count in seen.failed.items():
            failed[reason] = failed.get(reason, 0) + count
    return {
        "requests": planned,
        "answered": answered,
        "failed": failed,
        "in_time": sum(seen.in_time for seen in several) / planned,
        "latency_ms": percentiles(x for seen in several for x in seen.latencies),
        "latency_ms_by_turn": [percentiles(seen.latencies) for seen in several],
        "lateness_ms": percentiles(x for seen in several for x in seen.lateness),
        "edit_ms": percentiles(x for seen in several for x in seen.edits),
        "learned_ms": percentiles((x for seen in several for x in seen.learned), (50, 100)),
        "learned_probes": sum(len(seen.learned) for seen in several),
    }


def percentiles(values: Iterable[float], which: Sequence[int] = PERCENTILES) -> dict[str, float] | None:
    """Percentiles by name; None without values."""
    numbers = np.fromiter(values, np.float64)
    if not len(numbers):
        return None
    return {f"p{p}": float(v) for p, v in zip(which, np.percentile(numbers, which), strict=True)}


def added(through: Mapping[str, Any], direct: Mapping[str, Any]) -> dict[str, float] | None:
    """What a server adds to each percentile of the latency."""
    with_it, without = through["latency_ms"], direct["latency_ms"]
    if with_it is None or without is None:
        return None
    return {name: with_it[name] - without[name] for name in with_it}


def disk(folder: Path, writes: int = 100) -> dict[str, float] | None:
    """Percentiles of the time, in milliseconds, to append 4 kB to a file durably, as each commit has to."""
    took = []
    with (folder / "disk").open("wb", buffering=0) as file:
        for _ in range(writes):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append(1000 * (time.perf_counter() - started))
    return percentiles(took)


def own_overhead(metrics: str) -> tuple[float, float]:
    """The server's own count: the sum of its overhead in seconds, and the number of completions."""
    found = dict(re.findall(r"^editloop_overhead_seconds_(sum|count) (\S+)$", metrics, re.MULTILINE))
    return float(found.get("sum", 0)), float(found.get("count", 0))


def _sustained(name: str, port: int, seconds: float, callback: ProgressCallback) -> dict[str, Any]:
    """The highest rate that a server sustains, and all attempts to find it."""
    tries: list[dict[str, Any]] = []

    def sustains(rate: float) -> bool:
        seen = put_load(Plan(port, rate, seconds, 2.0, EDITS if name == EDITLOOP else 0.0))
        shown = summarise([seen])
        p99 = shown["latency_ms"]["p99"] if shown["latency_ms"] else float("inf")
        good = bool(p99 <= MOST_P99_MS and shown["in_time"] >= LEAST_SHARE)
        tries.append(
            {
                "rate": rate,
                "latency_ms": shown["latency_ms"],
                "in_time": shown["in_time"],
                "sustained": good,
            }
        )
        callback.message(f"{name} at {rate:.0f}/s: p99 {p99:.1f} ms, {shown['in_time']:.1%} in time")
        return good

    return {"rate": highest(sustains), "tries": tries}


def highest(sustains: Callable[[float], bool], start: float = 100.0, steps: int = 3) -> float:
    """The highest sustained rate, in requests per second; 0 if not even a rate of about 3 is sustained.

    The rate is doubled or halved from `start` until one rate is sustained and the next is not. The interval
    between the two is then bisected `steps` times.
    """
    low, high = 0.0, start
    while sustains(high):
        low, high = high, 2 * high
    while low == 0:
        if high < 6:
            return 0.0
        if sustains(high / 2):
            low = high / 2
        else:
            high /= 2
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if sustains(middle) else (low, middle)
    return low


def _figures(found: Mapping[str, float] | None) -> list[str]:
    return ["–"] * len(PERCENTILES) if found is None else [f"{value:.2f}" for value in found.values()]


def _markdown(measured: Mapping[str, Any]) -> str:
    latencies, waits = [], []
    for rate, by_name in measured["loads"].items():
        for name, each in by_name.items():
            unanswered = each["requests"] - each["answered"]
            plus = [""] * len(PERCENTILES) if name == DIRECT else _figures(each["added"])
            used = "" if each["processor_ms"] is None else f"{each['processor_ms']:.2f}"
            shown = f"{unanswered} of {each['requests']:,}"
            latencies.append([rate, name, *_figures(each["latency_ms"]), *plus, used, shown])
        mine = by_name[EDITLOOP]
        learned = mine["learned_ms"]
        own = mine["own_mean_ms"]
        waits.append(
            [
                rate,
                *_figures(mine["edit_ms"]),
                "–" if learned is None else f"{learned['p50']:.1f}",
                "–" if learned is None else f"{learned['p100']:.1f}",
                "–" if own is None else f"{own:.2f}",
            ]
        )
    head = ["p50", "p90", "p99"]
    version = f"; LiteLLM is version {measured['litellm_version']}" if measured["litellm_version"] else ""
    parts = [
        "The latency that a server adds to a completion, in front of a model server that answers at once. "
        f"Each server is one process; EditLoop's store is a SQLite file on the disk{version}. A separate "
        "process sends the same requests at a fixed rate, and measures each latency from the time at which "
        "the request was due. The model server alone and each server in front of it are measured in turns, "
        f"while the others are paused. {EDITS:.0%} of EditLoop's completions are followed by an edit, which "
        'is an additional request. All times are in milliseconds. "Processor" is the server\'s processor '
        "time per completion, including its edits. "
        f"To append 4 kB durably, the disk takes {_disk(measured['disk_ms'])}.",
        markdown_table(
            ["per second", "server", *head, *(f"added, {p}" for p in head), "processor", "unanswered"],
            latencies,
            left=2,
        ),
        _goal(measured),
        'Edits, with EditLoop. "Edit" is the time until an edit is acknowledged. "Learned" is the time from '
        "then until `GET /v1/arms` counts the edit, which is polled under the load (goal: at most "
        f'{GOALS["learned_ms"]:.0f}). "Overhead" is the mean time per completion that the server itself '
        "reports as spent in addition to the model's.",
        markdown_table(
            ["per second", *(f"edit, {p}" for p in head), "learned, p50", "learned, max", "overhead, mean"],
            waits,
        ),
    ]
    if "sustained" in measured:
        rows = [[name, f"{each['rate']:.0f}"] for name, each in measured["sustained"].items()]
        parts += [
            f"The highest rate at which the p99 is at most {MOST_P99_MS:.0f} ms and {LEAST_SHARE:.0%} of the "
            "requests are answered when the load ends:",
            markdown_table(["server", "per second"], rows),
        ]
    starts = ", ".join(f"{name} {value:.1f} s" for name, value in measured["start_seconds"].items())
    return "\n\n".join([*parts, f"Time from the start of each server until it answers: {starts}."])


def _disk(found: Mapping[str, float]) -> str:
    return f"{found['p50']:.2f} ms in the median and {found['p99']:.2f} ms at the 99th percentile"


def _goal(measured: Mapping[str, Any]) -> str:
    asked = f"Goal at {GOALS['rate']:g} per second: added p50 at most {GOALS['p50_ms']:g}, added p99 at most "
    asked += f"{GOALS['p99_ms']:g}"
    by_name = measured["loads"].get(f"{GOALS['rate']:g}")
    plus = by_name and by_name[EDITLOOP]["added"]
    if not plus:
        return f"{asked}; not measured."
    met = plus["p50"] <= GOALS["p50_ms"] and plus["p99"] <= GOALS["p99_ms"]
    return f"{asked}; measured {plus['p50']:.2f} and {plus['p99']:.2f}: {'met' if met else 'missed'}."
