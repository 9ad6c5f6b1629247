"""Checks that a store holds everything that was acknowledged, once, and that the server's state fits it.

The store is read directly, not through the server, and its events are folded here (`Bandit.replay`).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.fault_clients import Account
from editloop.online import Arms, Bandit, Decided, Event, Feedback, Rerouted

__all__ = ["Tables", "check", "read_tables", "replay"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Tables:
    """The rows of a store's tables."""

    events: Sequence[Row]
    drafts: Sequence[Row]
    edits: Sequence[Row]


def read_tables(url: str) -> Tables:
    """The tables of a store, read from the database itself."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    queries = (
        "SELECT * FROM events ORDER BY seq",
        "SELECT response_id, policy, response, finish FROM drafts",
        "SELECT response_id, revision, edit, key FROM edits",
    )
    try:
        with engine.connect() as connection:
            found = [[dict(row) for row in connection.execute(text(query)).mappings()] for query in queries]
    finally:
        engine.dispose()
    return Tables(*found)


def replay(events: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """The number of observations and the summed cost of each arm, from the events alone."""
    bandit = Bandit.replay(event for row in events if (event := _event(row)) is not None)
    arms = {str(row["arm"]) for row in events if row["arm"]} | set(bandit.arms)
    pools = {arm: bandit.state.pool(arm) for arm in sorted(arms)}
    return {arm: (pool.observed, pool.cost) for arm, pool in pools.items()}


def _event(row: Row) -> Event | None:
    kind = row["kind"]
    if kind == "arms":
        return Arms(row["epoch"], tuple(json.loads(row["arms"])))
    if kind == "decided":
        return Decided(row["response_id"], row["scope"], row["arm"], row["propensity"], row["epoch"])
    if kind == "rerouted":
        return Rerouted(row["response_id"], row["arm"])
    return None if kind == "external" else Feedback(row["response_id"], kind, row["cost"], row["revision"])


def agrees(served: Mapping[str, Any], events: Sequence[Row]) -> bool:
    """Whether the figures of `GET /v1/arms` equal those of the events exactly, without a tolerance."""
    known = replay(events)
    served_arms = {arm["arm"]: (arm["observed"], arm["cost"]) for arm in served["data"]}
    means = {arm: (n, cost / n if n > 0 else None) for arm, (n, cost) in known.items()}
    return served_arms == means


def check(account: Account, tables: Tables) -> dict[str, Any]:
    """Compare what the server acknowledged to its clients with what the store holds.

    Returns:
        Counts. `lost` is what was acknowledged but is not in the store as it was acknowledged. `double` is
        what was sent once or several times and is in the store more than once.
    """
    decided: Counter[str] = Counter()
    answered: dict[str, tuple[int, str]] = {}
    feedback: dict[str, list[Row]] = defaultdict(list)
    for row in tables.events:
        if row["kind"] in ("decided", "rerouted"):
            decided[row["response_id"]] += row["kind"] == "decided"
            before = answered.get(row["response_id"])
            if before is None or row["revision"] < before[0]:
                answered[row["response_id"]] = row["revision"], row["arm"]
        elif row["kind"] in ("edited", "accepted"):
            feedback[row["response_id"]].append(row)
    drafts = {row["response_id"]: row for row in tables.drafts}
    by_key = {row["key"]: row for row in tables.edits}
    of_response = Counter(row["response_id"] for row in tables.edits)

    lost_completions = []
    for response_id, (arm, text) in account.completions.items():
        draft = drafts.get(response_id)
        whole = draft is not None and (draft["policy"], draft["response"]) == (arm, text)
        if not whole or decided[response_id] < 1 or answered[response_id][1] != arm:
            lost_completions.append(response_id)
    lost_edits = []
    for key, edit in account.acknowledged.items():
        kept, receipt = by_key.get(key), edit.receipt
        there = kept is not None and (kept["response_id"], kept["edit"]) == (edit.response_id, edit.text)
        costs = {each["revision"]: each["cost"] for each in feedback[edit.response_id]}
        counted = receipt is not None and receipt[0] in costs and receipt[1] in (None, costs[receipt[0]])
        if not (there and counted):
            lost_edits.append(key)
    return {
        "completions": len(account.completions),
        "completions_lost": len(lost_completions),
        "decisions_double": sum(count > 1 for count in decided.values()),
        "edits_sent": len(account.edits),
        "edits": len(account.acknowledged),
        "edits_lost": len(lost_edits),
        "edits_double": sum(count > 1 for count in of_response.values())
        + sum(len(rows) > 1 for rows in feedback.values()),
        "acknowledgements_that_differ": len(account.disagreements),
        "rerouted": sum(row["kind"] == "rerouted" for row in tables.events),
        "events": len(tables.events),
        "examples": [*lost_completions[:5], *lost_edits[:5], *account.disagreements[:5]],
    }
