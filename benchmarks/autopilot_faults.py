"""Kills of the server and of the autopilot at random times: what is left of stages, lineage and drafts.

Real processes: a server with the lab's base in its process, the autopilot beside it, whose fits are
processes of their own, and a client that asks and edits all the time. At random times the server, the
autopilot, or both are killed by SIGKILL and started again. At the end the store is read directly.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.served import Process
from editloop import Client
from editloop.autopilot.ledger import arms_of, transition_of
from editloop.autopilot.stages import PLAYED, Stage, Stages
from editloop.errors import AutopilotError, EditLoopError
from editloop.lab import fit_settings, get_domain, make_log
from editloop.offline import fit
from editloop.online import Arms
from editloop.policy import load_base
from editloop.policy.catalog import find_policies
from editloop.progress import ProgressCallback, WarningCallback, counter
from editloop.results import markdown_table, write_result
from editloop.store import Store, reads
from editloop.store.testing import free_port
from editloop.users import get_user

__all__ = ["broken", "run"]

LIFE = 9.0
"""Mean seconds between two kills: a fit, with the start of its process, takes about as long."""

PAUSE = 0.05
"""Mean seconds between two requests."""

QUICK = {
    "learn-from": "sft",
    "min-edits": 25,
    "growth": 0,
    "hold-out": 0,
    "shadow-share": 1,
    "shadow-rounds": 20,
    "canary-share": 0.5,
    "canary-rounds": 40,
    "canary-unit": "request",
    "lease": 2,
    "interval": 0.2,
    "fit-minutes": 600,
}
"""The autopilot's flags: as little as possible is enough for each step."""


def run(
    out: str | Path, *, kills: int = 100, seed: int = 0, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Kill, and write `autopilot-faults.json` and `autopilot-faults.md`.

    Args:
        out: The folder for the results.
        kills: How often something is killed.
        seed: The seed of the times.
        callback: Receives progress.

    Raises:
        RunError: The server does not start again.
    """
    callback = callback or WarningCallback()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        server, pilot, store = _processes(place)
        server.start()
        pilot.begin()
        ending = threading.Event()
        client = threading.Thread(target=_write, args=(server.port, ending, seed), daemon=True)
        client.start()
        draws, killed = random.Random(seed), Counter[str]()
        progress = counter(callback, "kills", kills)
        for number in range(kills):
            time.sleep(draws.expovariate(1 / LIFE))
            what = draws.choice(("server", "autopilot", "both"))
            for name, process in (("server", server), ("autopilot", pilot)):
                if what in (name, "both"):
                    process.kill()
            killed[what] += 1
            if what != "autopilot":
                server.start()
            if what != "server":
                pilot.begin()
            progress(number + 1)
        time.sleep(2 * LIFE)
        ending.set()
        client.join(60)
        pilot.stop()
        server.stop()
        found = broken(store)
    data = {"kills": dict(killed), "seed": seed, **found}
    write_result("autopilot-faults", data, _page(data), out)
    return data


def _processes(place: Path) -> tuple[Process, Process, str]:
    """The server and the autopilot, over a store whose first arm learned from a few rows."""
    domain = get_domain("email")
    base, config = load_base("lab:email"), fit_settings("email")
    config = config.changed({"methods": ("sft",), "epochs": 1.0, "validation_samples": 8, "mixture": "none"})
    log = make_log(domain, get_user("strong", domain, seed=0), 60, 0, policy=base)
    fit(log, base, place / "run", config, report=False)
    fit_file, store = place / "fit.json", f"sqlite:///{place}/edits.db"
    quick = config.model_dump(exclude_defaults=True, exclude={"methods"}, mode="json")
    fit_file.write_text(json.dumps(quick))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    python, port = [sys.executable, "-m", "editloop"], free_port()
    serve = [*python, "serve", str(place / "run"), "--store", store, "--port", str(port)]
    server = Process(serve, port, "/readyz", place / "serve.log", environment)
    flags = [part for name, value in QUICK.items() for part in (f"--{name}", str(value))]
    learn = [*python, "autopilot", "run", "--store", store, "--runs", str(place / "runs")]
    learn += ["--fit-config", str(fit_file), *flags]
    return server, Process(learn, 0, "", place / "autopilot.log", environment), store


def _write(port: int, ending: threading.Event, seed: int) -> None:
    """Ask and edit until the end, whatever fails."""
    domain = get_domain("email")
    user, draws = get_user("strong", domain, seed=seed), random.Random(seed)
    contexts = domain.contexts(seed, stream="served")
    with Client(f"http://127.0.0.1:{port}") as client:
        while not ending.is_set():
            context = next(contexts)
            try:
                draft = client.complete(context, user=f"u{draws.randrange(12)}")
                client.edit(draft.response_id, user.edit(context, draft.text or ".", round=0))
            except EditLoopError:
                ending.wait(0.5)
            ending.wait(draws.expovariate(1 / PAUSE))


def broken(address: str) -> dict[str, Any]:
    """What a store tells of its stages, and everything in it that is not as it should be."""
    store = Store(address)
    store.open(claim=False)
    try:
        events = store.read(lambda c: list(reads.events_after(c, 0)))
        places = store.read(reads.policy_locations)
    finally:
        store.close()
    wrong: list[str] = []
    stages, now = Stages(), Arms(0, ())
    for event in events:
        if event.kind == "stage":
            try:
                stages.apply(transition_of(event))
            except AutopilotError as error:
                wrong.append(f"a stage was skipped or taken twice: {error}")
        elif event.kind == "arms":
            now = arms_of(event)
            managed = {arm for arm in now.arms if stages.of(arm) is not None}
            wanted = set(stages.having(*PLAYED))
            if not managed <= wanted or not wanted <= set(now.arms):
                wrong.append(f"epoch {now.epoch} does not follow from the stages")
            if set(now.canaries) != set(stages.having(Stage.CANARY)):
                wrong.append(f"the canary of epoch {now.epoch} does not follow from the stages")
        elif event.kind == "decided" and event.arm not in (*now.arms, *now.canaries):
            # The server may decide a moment before it sees the epoch of another process.
            last = stages.last(event.arm)
            if last is None or event.time > last.time + 2.0:
                wrong.append(f"{event.response_id} was answered by {event.arm}, which users may not see")
    wrong += _lineage(stages, places)
    counts = Counter(str(each.stage) for each in stages.history)
    drafts = sum(event.kind == "decided" for event in events)
    return {"transitions": dict(counts), "generations": stages.generation, "drafts": drafts, "wrong": wrong}


def _lineage(stages: Stages, places: dict[str, tuple[str, str]]) -> list[str]:
    """What is wrong with the lineage of the policies, and with their run folders."""
    wrong = []
    numbers = [
        each.lineage.generation for each in stages.history if each.stage is Stage.FITTING and each.lineage
    ]
    if numbers != list(range(1, len(numbers) + 1)):
        wrong.append(f"the generations are {numbers}")
    for subject in stages.subjects:
        lineage = stages.lineage(subject)
        if lineage is None or subject.startswith("generation-"):
            continue
        run, name = places.get(subject, ("", ""))
        if run != lineage.run or not lineage.rows or not lineage.fingerprint:
            wrong.append(f"{subject} has no whole lineage")
        elif subject not in {each.arm for each in find_policies(run, [name])}:
            wrong.append(f"the run folder of {subject} holds another policy")
    return wrong


def _page(data: dict[str, Any]) -> str:
    rows = [[name, str(n)] for name, n in data["transitions"].items()]
    kills = ", ".join(f"{name} {n}" for name, n in data["kills"].items())
    wrong = data["wrong"]
    text = (
        f"{sum(data['kills'].values())} kills by SIGKILL at random times, on average {LIFE:.0f} seconds "
        f"apart ({kills}), while a client asked and edited: {data['drafts']:,} drafts, {data['generations']} "
        f"generations. Wrong: {'; '.join(wrong) if wrong else 'nothing'}."
    )
    what = (
        "Looked for: a stage that was skipped or taken twice, an epoch of arms that does not follow from the "
        "stages, a draft by a policy that users may not see, generations that are not numbered one after the "
        "other, a policy without rows, fingerprint or run folder, or whose run folder holds another policy."
    )
    return f"{text}\n\n{what}\n\n{markdown_table(['stage', 'times reached'], rows)}"
