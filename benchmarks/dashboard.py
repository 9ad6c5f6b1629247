"""How long the dashboard's queries take on a large store: users, totals, time and tokens, savings.

A synthetic store on SQLite, with texts as long as those of short letters, and users of whom few have many
rounds. The median of `REPEATS` runs of each query is reported, by the clock and by the processor's time.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import write_result
from editloop.store.audit import AuditFilter, audit_page
from editloop.store.database import Connection, Store
from editloop.store.log_filter import LogFilter, log_page
from editloop.store.rounds import rounds as newest_rounds
from editloop.store.schema import drafts, edits, events
from editloop.store.sums import Period, period_sums
from editloop.store.usage import newest_drafts
from editloop.store.users import UserFilter, user_page

DAY = 86_400.0
DAYS = 90
BATCH = 2000
REPEATS = 5
PAGE = 25
ARMS = ("base@1", "sft@2", "dpo@3", "early@4")
WORDS = (
    "the",
    "demo",
    "is",
    "on",
    "friday",
    "please",
    "bring",
    "your",
    "questions",
    "dear",
    "ada",
    "we",
    "meet",
)


def run(
    out: str | Path,
    *,
    rounds: int = 100_000,
    users: int = 10_000,
    seed: int = 0,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `dashboard.json` and `dashboard.md`.

    Args:
        out: The folder for the results.
        rounds: The rounds of the store, over 90 days; 90% of them have an edit.
        users: The users.
        seed: Seed of the synthetic rounds.
        callback: Receives progress.
    """
    callback = callback or WarningCallback()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edits.db"
        store = Store(str(path))
        store.open()
        try:
            now = fill(store, rounds, users, seed, callback)
            taken = {name: _measured(store, query) for name, query in _queries(now, users).items()}
        finally:
            store.close()
        measured = {"rounds": rounds, "users": users, "bytes": path.stat().st_size, "queries": taken}
    write_result("dashboard", measured, _markdown(measured), out)
    return measured


def fill(store: Store, rounds: int, users: int, seed: int, callback: ProgressCallback) -> float:
    """Write rounds to an open store; returns the time at which the last of them ends."""
    rng, now = random.Random(seed), time.time()
    rows = _rows(rng, rounds, users, now - DAYS * DAY, now)
    with store.writer.begin() as connection:
        for start in range(0, rounds, BATCH):
            some = [next(rows) for _ in range(min(BATCH, rounds - start))]
            connection.execute(insert(drafts), [draft for draft, _, _ in some])
            connection.execute(insert(edits), [row for _, found, _ in some for row in found])
            connection.execute(insert(events), [row for _, _, found in some for row in found])
            callback.progress("writing", start + len(some), rounds)
    return now


Row = dict[str, Any]


def _rows(
    rng: random.Random, rounds: int, users: int, begin: float, end: float
) -> Iterator[tuple[Row, list[Row], list[Row]]]:
    """Yield the draft of each round, the revisions of its edit, and its events."""
    seq = 0
    for i in range(rounds):
        moment = begin + (end - begin) * i / rounds
        # Random, as a server's identities are: rows of one round lie apart in the indexes.
        response_id, arm = f"chatcmpl-{rng.getrandbits(128):032x}", rng.choice(ARMS)
        text = " ".join(rng.choices(WORDS, k=120))
        draft = {
            "response_id": response_id,
            "time": moment,
            "user": f"user{int(users * rng.random() ** 2):05d}",
            "policy": arm,
            "propensity": 1 / len(ARMS),
            "context": json.dumps(" ".join(rng.choices(WORDS, k=200))),
            "response": text,
            "finish": "stop",
            "seconds": rng.lognormvariate(0.5, 0.4),
            "prompt_tokens": rng.randrange(50, 400),
            "completion_tokens": rng.randrange(50, 200),
        }
        event = {"response_id": response_id, "arm": arm, "scope": "", "epoch": 1}
        found = [{"kind": "decided", "revision": -1, "time": moment, "cost": None, **event}]
        found[0]["propensity"] = 1 / len(ARMS)
        revisions = (1 + (rng.random() < 0.2)) if rng.random() < 0.9 else 0
        kept = [
            {"response_id": response_id, "revision": each, "time": moment + each, "edit": f"{each}: {text}"}
            for each in range(1, revisions + 1)
        ]
        for row in kept:
            about = {"kind": "edited", "revision": row["revision"], "time": row["time"]}
            found.append({**about, "cost": rng.random(), "propensity": None, **event})
        for each in found:
            seq += 1
            each["seq"] = seq
        yield draft, kept, found


Query = Callable[[Connection], Any]


def _queries(now: float, users: int) -> dict[str, Query]:
    """The queries by name."""
    week = UserFilter(since=now - 7 * DAY)
    return {
        "users by last seen": lambda c: user_page(c, UserFilter(), limit=PAGE),
        "users by rounds": lambda c: user_page(c, UserFilter(), sort="rounds", limit=PAGE),
        "users by cost": lambda c: user_page(c, UserFilter(), sort="cost", limit=PAGE),
        "users by cost, of 7 days": lambda c: user_page(c, week, sort="cost", limit=PAGE),
        "the last page of users": lambda c: user_page(c, UserFilter(), limit=PAGE, offset=users - 10 * PAGE),
        "users whose name contains 0012": lambda c: user_page(c, UserFilter("0012"), limit=PAGE),
        "overview": lambda c: period_sums(c, Period(now - DAYS * DAY, now, 40)),
        "time and tokens": lambda c: newest_drafts(c, 0.0, now),
        "rounds for the saving": lambda c: newest_rounds(c, 0.0, until=now),
        "a page of edits": lambda c: log_page(c, LogFilter(), PAGE),
        "a page of the audit": lambda c: audit_page(c, AuditFilter(), PAGE),
    }


def _measured(store: Store, query: Query) -> dict[str, float]:
    """The median time of a query in seconds, by the clock and by the processor."""
    clock, processor = [], []
    for _ in range(REPEATS):
        began, worked = time.perf_counter(), time.process_time()
        store.read(query)
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - worked)
    return {"seconds": statistics.median(clock), "processor": statistics.median(processor)}


def _markdown(measured: dict[str, Any]) -> str:
    head = (
        f"A synthetic store on SQLite: {measured['rounds']:,} rounds of {measured['users']:,} users over "
        f"{DAYS} days, {measured['bytes'] / 1e6:,.0f} MB. The median of {REPEATS} runs of each query. "
        "The clock also counts the time in which other processes had the processor."
    )
    rows = [
        f"| {name} | {1000 * each['seconds']:,.0f} ms | {1000 * each['processor']:,.0f} ms |"
        for name, each in measured["queries"].items()
    ]
    return "\n".join([head, "", "| query | by the clock | of processor |", "|---|--:|--:|", *rows])
