"""How long it takes from an edit to a new policy, and what users notice of the fit meanwhile.

Real processes: a server with the lab's base in its process, the autopilot beside it, whose fits are processes
of their own, and a client that sends requests at a fixed rate and edits some of the drafts. The latency is
first measured without an autopilot. Then it begins, and some edits later the fit; the run ends with the first
draft that a user gets of the new policy as an arm.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from benchmarks import ROOT
from benchmarks.learning_load import Plan, Seen, read_seen
from benchmarks.served import Process
from benchmarks.serving import percentiles
from editloop.autopilot.ledger import read_stages
from editloop.autopilot.stages import PLAYED, Stage, Stages
from editloop.errors import RunError
from editloop.lab import fit_settings, get_domain, make_log
from editloop.offline import fit
from editloop.policy import load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.store import Store
from editloop.store.rounds import count_new_edits
from editloop.store.schema import DECIDED, drafts, edits, events
from editloop.store.testing import free_port
from editloop.users import get_user

__all__ = ["measured", "run"]

FIRST_ROWS = 60
"""The rows that the first champion learned from."""

FLAGS: dict[str, Any] = {"learn-from": "sft,early", "growth": 0, "interval": 1}
"""The autopilot's flags beside `--min-edits`; everything else is its default."""

FIT: dict[str, Any] = {"epochs": 2.0, "batch_size": 16, "validation_samples": 32, "mixture": "none"}
"""What the fits have of their own beside the lab's settings."""

PERCENTILES = (50, 95, 99)
ARM_SECONDS, P99_RATIO = 600.0, 1.5
"""The goals: a draft of the new arm within so many seconds of the edit that begins the fit, and how much the
p99 of the latency may grow meanwhile."""

PHASES = ("without", "looks", "fit", "shadow", "canary")
SHOWN = {
    "without": "without an autopilot",
    "looks": "the autopilot looks, and waits for edits",
    "fit": "a fit runs",
    "shadow": "shadow drafts are written",
    "canary": "canary",
}


def run(
    out: str | Path,
    *,
    warm_up: float = 20.0,
    quiet: float = 180.0,
    further: int = 60,
    limit: float = 900.0,
    rate: float = 20.0,
    seed: int = 0,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `learning-speed.json` and `learning-speed.md`.

    Args:
        out: The folder for the results.
        warm_up: Seconds of load before anything is measured.
        quiet: Seconds of load without an autopilot.
        further: Edits of new requests, from the start of the autopilot on, after which it fits.
        limit: Seconds after which the run ends although no new policy is an arm.
        rate: Requests per second.
        seed: The seed of requests and edits.
        callback: Receives progress.

    Raises:
        RunError: The server does not start, or the load ends too early.
    """
    callback = callback or WarningCallback()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        callback.message("the first policy is fitted")
        server, address = _server(place)
        server.start()
        stack.callback(server.stop)
        plan = Plan(server.port, str(place / "seen.json"), rate, seed=seed)
        load = Process(
            [sys.executable, "-m", "benchmarks.learning_load", json.dumps(asdict(plan))],
            *(0, "", place / "load.log", _environment()),
        )
        load.begin()
        stack.callback(load.stop)
        callback.message(f"{quiet:.0f} seconds without an autopilot, after {warm_up:.0f} to warm up")
        time.sleep(warm_up)
        began, used = time.time(), server.processor_seconds() or 0.0
        time.sleep(quiet)
        used = (server.processor_seconds() or 0.0) - used
        store = stack.enter_context(closing(Store(address)))
        store.open(claim=False)
        started = time.time()
        needed = store.read(lambda c: count_new_edits(c, 0.0, started)) + further
        pilot = _autopilot(place, address, {"min-edits": needed, **FLAGS})
        pilot.begin()
        stack.callback(pilot.stop)
        _wait(store, limit, callback)
        pilot.stop()
        load.stop()
        if not Path(plan.out).is_file():
            raise RunError("the load has failed", seen=load.log.read_text(errors="replace")[-500:])
        seen, answered = read_seen(Path(plan.out))
        data = measured(store, seen, began, started, needed)
    settings = {"rate": rate, "edited": plan.edited, "users": plan.users, "kind": plan.kind, "seed": seed}
    settings |= {"flags": {"min-edits": needed, **FLAGS}, "fit": FIT, "further": further}
    data = {"settings": settings, "edits": answered, "processor_share": used / quiet, **data}
    write_result("learning-speed", data, _page(data), out)
    return data


def _environment() -> dict[str, str]:
    """One thread for each process, which finds this package."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def _server(place: Path) -> tuple[Process, str]:
    """The server of a store whose first arm learned from a few rows, and the store's address."""
    domain, base = get_domain("email"), load_base("lab:email")
    config = fit_settings("email").changed({**FIT, "methods": ("sft",), "epochs": 1.0})
    log = make_log(domain, get_user("strong", domain, seed=0), FIRST_ROWS, 0, policy=base)
    fit(log, base, place / "run", config, report=False)
    address, port = f"sqlite:///{place}/edits.db", free_port()
    command = [sys.executable, "-m", "editloop", "serve", str(place / "run")]
    command += ["--store", address, "--port", str(port)]
    return Process(command, port, "/readyz", place / "serve.log", _environment()), address


def _autopilot(place: Path, address: str, flags: Mapping[str, Any]) -> Process:
    """The autopilot, with the lab's settings for its fits."""
    settings = fit_settings("email").changed(FIT)
    given = settings.model_dump(exclude_defaults=True, exclude={"methods"}, mode="json")
    file = place / "fit.json"  # JSON is YAML, too
    file.write_text(json.dumps(given), encoding="utf-8")
    command = [sys.executable, "-m", "editloop", "autopilot", "run", "--store", address]
    command += ["--runs", str(place / "runs"), "--fit-config", str(file)]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    return Process(command, 0, "", place / "autopilot.log", _environment())


def _wait(store: Store, limit: float, callback: ProgressCallback) -> None:
    """Wait for a draft of the new policy as an arm, for the end of that policy, or for the limit."""
    until, shown = time.monotonic() + limit, 0
    while time.monotonic() < until:
        time.sleep(1.0)
        stages = store.read(read_stages)
        for each in stages.history[shown:]:
            callback.message(each.sentence)
        shown = len(stages.history)
        policy = _policy(stages)
        if policy is None:
            if stages.of("generation-1") in (Stage.FITTED, Stage.FAILED):  # and nothing came of it
                return
            continue
        stage = stages.of(policy)
        if stage in (Stage.REJECTED, Stage.ROLLED_BACK, Stage.RETIRED):
            return
        if stage in PLAYED and _is_chosen(store, policy):
            time.sleep(5.0)  # its answer has arrived by then
            return


def _is_chosen(store: Store, arm: str) -> bool:
    """Whether the bandit has chosen an arm."""
    return store.read(lambda c: _first_choice(c, arm)) is not None


def _policy(stages: Stages) -> str | None:
    """The best policy of the first generation; None before it is fitted."""
    found = (each.subject for each in stages.history if each.lineage and each.stage is not Stage.FITTING)
    return next((subject for subject in found if not subject.startswith("generation-")), None)


def _first_choice(connection: Connection, arm: str) -> str | None:
    """The first response for which the bandit chose an arm; a canary is no choice of the bandit's."""
    which = (events.c.arm == arm) & (events.c.revision == DECIDED) & events.c.propensity.is_not(None)
    query = select(events.c.response_id).where(which).order_by(events.c.seq).limit(1)
    found: str | None = connection.scalar(query)
    return found


def _trigger(connection: Connection, needed: int) -> float | None:
    """When the edit came with which there were so many of different requests."""
    query = (
        select(edits.c.time, drafts.c.request)
        .join(drafts, drafts.c.response_id == edits.c.response_id)
        .where(edits.c.edit.is_not(None), edits.c.edit != drafts.c.response)
        .order_by(edits.c.time)
    )
    known: set[str] = set()
    for row in connection.execute(query):
        known.add(row.request)
        if len(known) == needed:
            return float(row.time)
    return None


def measured(store: Store, seen: Sequence[Seen], began: float, started: float, needed: int) -> dict[str, Any]:
    """The latency by phase, and the seconds from the edit that began the fit to each step.

    Args:
        store: The store.
        seen: What the users saw.
        began: When the measurement without an autopilot began, in seconds since 1970.
        started: When the autopilot began.
        needed: The edits that began the fit.

    Raises:
        RunError: There was no fit.
    """
    stages = store.read(read_stages)
    policy = _policy(stages)
    reached = {
        str(each.stage): each.time
        for each in reversed(stages.history)  # the first time counts
        if each.subject in ("generation-1", policy)
    }
    trigger = store.read(lambda c: _trigger(c, needed))
    if trigger is None or "fitting" not in reached:
        raise RunError("no fit has begun", seen=f"{len(seen)} requests", do="give it more time")
    answers = {each.response_id: each for each in seen if each.latency is not None}
    mine = [each for each in answers.values() if each.arm == policy]
    first = min(mine, key=lambda each: each.due, default=None)
    chosen = store.read(lambda c: _first_choice(c, policy)) if policy else None
    if first is not None:
        reached["first draft"] = _answered(first)
    if chosen is not None and chosen in answers:
        reached["first draft as an arm"] = _answered(answers[chosen])
    end = max((each.due for each in seen), default=started)
    times = [began, started]
    for name in ("fitting", "fitted", "canary", "arm"):
        times.append(reached.get(name, max(end, times[-1])))
        if name not in reached:
            break
    latency = {
        phase: {
            "seconds": until - since,
            **_latency(each for each in seen if since <= each.due < until),
        }
        for phase, since, until in zip(PHASES, times, times[1:], strict=False)
    }
    names = ("fitting", "fitted", "shadow", "canary", "first draft", "arm", "first draft as an arm")
    return {
        "latency": latency,
        "seconds": {name: reached[name] - trigger for name in names if name in reached},
        "transitions": [each.sentence for each in stages.history],
    }


def _answered(seen: Seen) -> float:
    """When an answer came, in seconds since 1970."""
    return seen.due + (seen.latency or 0.0) / 1000


def _latency(seen: Iterable[Seen]) -> dict[str, Any]:
    """Percentiles in milliseconds, and the requests with and without an answer."""
    rows = list(seen)
    good = [each.latency for each in rows if each.latency is not None and each.status == 200]
    return {"requests": len(rows), "answered": len(good), "latency_ms": percentiles(good, PERCENTILES)}


def _page(data: Mapping[str, Any]) -> str:
    given, latency, seconds = data["settings"], data["latency"], data["seconds"]
    flags = " ".join(f"--{name} {value}" for name, value in given["flags"].items())
    what = (
        f"A server with the lab's base in its process answers {given['rate']:g} requests a second of "
        f"{given['users']} users ({given['kind']}), who edit {given['edited']:.0%} of the drafts. Each "
        "latency is measured from the time at which the request was due. The autopilot begins later, with "
        f"`{flags}`, and its fits have two passes in batches of 16; `--min-edits` is {given['further']} more "
        "than there were when it began. Each process has one thread, and fits step back behind others "
        "as they do by default."
    )
    head = ["meanwhile", "seconds", "requests", "unanswered", *(f"p{p}, ms" for p in PERCENTILES)]
    rows = []
    for name, each in latency.items():
        found = each["latency_ms"] or {}
        figures = [f"{found[f'p{p}']:.0f}" if found else "–" for p in PERCENTILES]
        unanswered = each["requests"] - each["answered"]
        counts = [f"{each['seconds']:.0f}", f"{each['requests']:,}", str(unanswered)]
        rows.append([SHOWN[name], *counts, *figures])
    steps = [[name, f"{value:.1f}"] for name, value in seconds.items()]
    used = f"Without an autopilot the server uses {data['processor_share']:.0%} of a core."
    parts = [what, markdown_table(head, rows), used, _ratio(latency)]
    parts += ["Seconds from the edit that began the fit:", markdown_table(["step", "seconds"], steps)]
    parts += [_shares(seconds), "\n".join(f"- {line}" for line in data["transitions"])]
    return "\n\n".join(parts)


def _ratio(latency: Mapping[str, Any]) -> str:
    goal = f"The p99 with a fit may be {P99_RATIO:g} times that without an autopilot; "
    without, during = (latency.get(name, {}).get("latency_ms") for name in ("without", "fit"))
    if not without or not during:
        return f"{goal}not measured."
    ratio = during["p99"] / without["p99"]
    return f"{goal}it is {ratio:.2f} times: {'met' if ratio <= P99_RATIO else 'missed'}."


def _shares(seconds: Mapping[str, float]) -> str:
    goal = f"Goal: a draft of the new arm within {ARM_SECONDS:.0f} seconds; "
    total = seconds.get("first draft as an arm")
    if total is None:
        return f"{goal}the new policy did not become an arm."
    spans = {
        "the wait for the fit": ("", "fitting"),
        "the fit with its evaluation": ("fitting", "fitted"),
        "the shadow": ("fitted", "canary"),
        "the canary": ("canary", "arm"),
        "the first choice": ("arm", "first draft as an arm"),
    }
    shares = [
        f"{name} {(seconds[until] - seconds.get(since, 0.0)) / total:.0%}"
        for name, (since, until) in spans.items()
    ]
    met = "met" if total < ARM_SECONDS else "missed"
    return f"{goal}it took {total:.0f}: {met}. Of that time, {', '.join(shares)}."
