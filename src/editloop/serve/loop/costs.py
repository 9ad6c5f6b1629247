"""By which cost a store's edits are counted: one at a time, and its name is kept with what it counted.

A cost is a number without a unit, and numbers of two costs must never meet in one sum. A server is started
with the name of one; where the store has another, it refuses, or counts all edits again from their texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select, update

from editloop.edits import get_cost
from editloop.edits.cost import Cost
from editloop.errors import StoreError
from editloop.online.events import check_cost
from editloop.store.database import ONE_AT_A_TIME, Store, storing
from editloop.store.schema import COST, REPRICED, drafts, edits, events, facts, keep_fact

__all__ = ["CostVersion", "settle_cost"]

BATCH_ROWS = 1000


class CostVersion(NamedTuple):
    """What the costs of a store are.

    Attributes:
        name: Of the cost that they are counted by.
        repriced: How often all were counted again.
    """

    name: str
    repriced: int

    @classmethod
    def of(cls, known: Mapping[str, str]) -> CostVersion | None:
        """That of a store with these facts; None if it does not say."""
        return None if COST not in known else cls(known[COST], int(known.get(REPRICED, 0)))


def settle_cost(store: Store, cost: str, *, reprice: bool = False) -> tuple[CostVersion, str | None]:
    """Have a store's edits counted by a cost.

    Args:
        store: An open one.
        cost: The cost's name.
        reprice: Whether all edits are counted again, from the texts that are kept. An edit whose text was
            removed counts for nothing then, unless the draft was accepted, which costs nothing by any cost.

    Returns:
        What the store's costs are, and a line about what was done, if there is something to tell.

    Raises:
        StoreError: They are counted by another cost, and are not to be counted again; or the database does
            not answer.
        BanditError: A cost that no edit can have.
    """
    count = get_cost(cost)
    with storing(), store.writer.begin() as connection:
        if not store.is_sqlite:
            connection.execute(ONE_AT_A_TIME)
        rows = connection.execute(select(facts).where(facts.c.name.in_((COST, REPRICED))))
        version = CostVersion.of({row.name: row.value for row in rows})
        if reprice:
            done, gone = _reprice(connection, count)
            version = CostVersion(cost, 1 + (version.repriced if version else 0))
            _keep(connection, version)
            told = f"{done} costs were counted again, by {cost}"
            if gone:
                told += f"; {gone} whose texts were removed count for nothing any more"
            return version, told
        if version is None:
            version = CostVersion(cost, 0)
            _keep(connection, version)
            counted = connection.scalar(select(func.count()).where(events.c.cost > 0))
            told = f"the store does not say what its {counted} costs are counted by: taken to be {cost}"
            return version, told if counted else None
        if version.name != cost:
            raise StoreError(
                f"the edits of this store are counted by {version.name}, not by {cost}",
                do=f"--cost {version.name}, or --reprice to count them again",
            )
        return version, None


def _keep(connection: Connection, version: CostVersion) -> None:
    """Write down what all costs are counted by, with each epoch too."""
    for name, value in ((COST, version.name), (REPRICED, str(version.repriced))):
        keep_fact(connection, name, value)
    connection.execute(update(events).where(events.c.kind == "arms").values(cost_name=version.name))


def _reprice(connection: Connection, count: Cost) -> tuple[int, int]:
    """Count all edits again; returns of how many the texts were there, and of how many they were not."""
    mine = (edits.c.response_id == events.c.response_id) & (edits.c.revision == events.c.revision)
    query = (
        select(events.c.seq, events.c.kind, drafts.c.response, edits.c.edit, edits.c.revision)
        .outerjoin_from(events, drafts, drafts.c.response_id == events.c.response_id)
        .outerjoin(edits, mine)
        .where(events.c.revision > 0, events.c.cost.is_not(None), events.c.seq > bindparam("after"))
        .order_by(events.c.seq)
        .limit(BATCH_ROWS)
    )
    change = update(events).where(events.c.seq == bindparam("number"))
    change = change.values(kind=bindparam("what"), cost=bindparam("new"))
    done = gone = after = 0
    while rows := connection.execute(query, {"after": after}).all():
        after = rows[-1].seq
        there = [row for row in rows if row.revision is not None and row.response is not None]
        changed = [row for row in there if row.edit is not None]
        priced = zip(changed, count([r.response for r in changed], [r.edit for r in changed]), strict=True)
        costs = {row.seq: 0.0 for row in there} | {row.seq: float(cost) for row, cost in priced}
        for cost in costs.values():
            check_cost(cost, "edited")
        values = [{"number": row.seq, "what": row.kind, "new": costs[row.seq]} for row in there]
        lost = [row for row in rows if row.seq not in costs and row.kind != "accepted"]
        for row in lost:
            kind = row.kind if row.kind == "external" else "expired"
            values.append({"number": row.seq, "what": kind, "new": None})
        if values:
            connection.execute(change, values)
        done, gone = done + len(there), gone + len(lost)
    return done, gone
