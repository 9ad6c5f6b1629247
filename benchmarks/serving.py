"""What the server adds to a completion, beside the LiteLLM proxy under the same load.

One server as a user starts it, with a SQLite store on the disk, before a model server that answers at once.
Requests come at a fixed rate and are counted from the moment at which they were due. What is added is a
percentile of the latency through the server, less that percentile straight to the model server.
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
"""Share of the completions that are followed by an edit."""

PERCENTILES = (50, 90, 99)
GOALS = {"rate": 200.0, "p50_ms": 3.0, "p99_ms": 10.0, "learned_ms": 1000.0}
"""Of what the server adds at a rate, and of the time until its statistics know an edit."""

MOST_P99_MS = 50.0
"""A rate is sustained if the p99 of its latencies is at most this ..."""

LEAST_SHARE = 0.98
"""... and at least this share of what was due is answered when the load ends."""

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
        seconds: For which each is measured, in each turn.
        warm_up: Seconds before that.
        turns: In which the servers are measured one after the other.
        sustain: Seconds of each try for the highest rate that is sustained; 0 leaves it out.
        litellm: Whether the LiteLLM proxy is measured too.
        work: Where the store lies while it is measured, and the proxy's virtual environment is kept.
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
    """Summaries of the loads by rate and by who answered."""
    seen: dict[tuple[str, str], list[Seen]] = {}
    used: dict[tuple[str, str], list[float]] = {}
    done = 0
    for turn in range(turns):
        for rate in rates:
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
    """Within it all other servers are paused, so that one does not use the cores in the turn of the next."""
    with ExitStack() as stack:
        for other, server in servers.items():
            if other != name:
                stack.enter_context(server.at_rest())
        yield


def _counted(server: Process | None, mine: bool) -> tuple[float, float, float]:
    """Processor time that a server has used, and what it counts itself, if it is EditLoop."""
    if server is None:
        return 0.0, 0.0, 0.0
    own = own_overhead(server.get("/metrics")) if mine else (0.0, 0.0)
    return server.processor_seconds() or 0.0, *own


def put_load(plan: Plan) -> Seen:
    """Put a load on a server, from a process of its own.

    Raises:
        RunError: The load broke down.
    """
    command = [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(plan))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RunError("the load broke down", seen=done.stderr.strip().splitlines()[-1:])
    return Seen(**json.loads(done.stdout))


def summarise(several: Sequence[Seen]) -> dict[str, Any]:
    """Percentiles in milliseconds over all turns, and of each turn; counts of what was not answered."""
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
    """Percentiles by name; None of nothing."""
    numbers = np.fromiter(values, np.float64)
    if not len(numbers):
        return None
    return {f"p{p}": float(v) for p, v in zip(which, np.percentile(numbers, which), strict=True)}


def added(through: Mapping[str, Any], direct: Mapping[str, Any]) -> dict[str, float] | None:
    """What a server adds to each percentile."""
    with_it, without = through["latency_ms"], direct["latency_ms"]
    if with_it is None or without is None:
        return None
    return {name: with_it[name] - without[name] for name in with_it}


def disk(folder: Path, writes: int = 100) -> dict[str, float] | None:
    """Milliseconds until the disk has 4 kB that are appended to a file: the store waits for it, too."""
    took = []
    with (folder / "disk").open("wb", buffering=0) as file:
        for _ in range(writes):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append(1000 * (time.perf_counter() - started))
    return percentiles(took)


def own_overhead(metrics: str) -> tuple[float, float]:
    """What the server itself counts: summed seconds of completions without the model's, and how many."""
    found = dict(re.findall(r"^editloop_overhead_seconds_(sum|count) (\S+)$", metrics, re.MULTILINE))
    return float(found.get("sum", 0)), float(found.get("count", 0))


def _sustained(name: str, port: int, seconds: float, callback: ProgressCallback) -> dict[str, Any]:
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
    """The highest rate that is sustained, in requests per second; 0 if not even 3 are.

    It is doubled or halved from `start` until it lies between two rates, and then bisected `steps` times.
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
    version = f", LiteLLM {measured['litellm_version']}" if measured["litellm_version"] else ""
    parts = [
        "What a server adds to a completion of a model that answers at once. One process each, the server's "
        f"store a SQLite file on the disk{version}. The same questions at a fixed rate, from a process of "
        "its own, their latency counted from when they were due; in turns, straight to the model server "
        f"and through each, the other at rest. Of EditLoop's completions {EDITS:.0%} are followed by an "
        "edit, which comes on top. Milliseconds; processor is what the server uses of one for a completion, "
        "its edits included. "
        f"The disk takes {_disk(measured['disk_ms'])} for 4 kB.",
        markdown_table(
            ["per second", "through", *head, *(f"added, {p}" for p in head), "processor", "unanswered"],
            latencies,
            left=2,
        ),
        _goal(measured),
        "Edits of EditLoop: until one is acknowledged, and from then until `GET /v1/arms` counts it (asked "
        f"again and again under the load; goal at most {GOALS['learned_ms']:.0f}). Last, the mean of what "
        "the server itself counts as its own part of a completion.",
        markdown_table(
            ["per second", *(f"edit, {p}" for p in head), "learned, p50", "learned, most", "own, mean"], waits
        ),
    ]
    if "sustained" in measured:
        rows = [[name, f"{each['rate']:.0f}"] for name, each in measured["sustained"].items()]
        parts += [
            f"The highest rate at which the p99 is at most {MOST_P99_MS:.0f} ms and {LEAST_SHARE:.0%} are "
            "answered when the load ends:",
            markdown_table(["server", "per second"], rows),
        ]
    starts = ", ".join(f"{name} {value:.1f} s" for name, value in measured["start_seconds"].items())
    return "\n\n".join([*parts, f"From their start until they answer: {starts}."])


def _disk(found: Mapping[str, float]) -> str:
    return f"{found['p50']:.2f} ms in the median, {found['p99']:.2f} in the slowest of a hundred"


def _goal(measured: Mapping[str, Any]) -> str:
    asked = f"Goal at {GOALS['rate']:g} per second: added p50 at most {GOALS['p50_ms']:g}, p99 at most "
    asked += f"{GOALS['p99_ms']:g}"
    by_name = measured["loads"].get(f"{GOALS['rate']:g}")
    plus = by_name and by_name[EDITLOOP]["added"]
    if not plus:
        return f"{asked}; not measured."
    met = plus["p50"] <= GOALS["p50_ms"] and plus["p99"] <= GOALS["p99_ms"]
    return f"{asked}; measured {plus['p50']:.2f} and {plus['p99']:.2f}: {'met' if met else 'missed'}."
