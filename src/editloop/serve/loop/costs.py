"""Which cost a store's edits are measured by: one at a time, and its name is kept with what it measured.

A cost is a number without a unit, and numbers of two costs must never be added up. A server is started with
the name of one; if the store has another, the server refuses, or measures all edits anew from their texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from editloop.edits import get_cost
from editloop.edits.cost import Cost
from editloop.errors import StoreError
from editloop.online.events import check_cost
from editloop.store import reads, writes
from editloop.store.database import Connection, Store, store_errors
from editloop.store.schema import COST, REPRICED

__all__ = ["CostVersion", "settle_cost"]

BATCH_ROWS = 1000


class CostVersion(NamedTuple):
    """What the costs of a store are.

    Attributes:
        name: The cost that they are measured by.
        repriced: How often all of them were measured anew.
    """

    name: str
    repriced: int

    @classmethod
    def of(cls, facts: Mapping[str, str]) -> CostVersion | None:
        """That of a store with these facts; None if they do not name a cost."""
        return None if COST not in facts else cls(facts[COST], int(facts.get(REPRICED, 0)))


def settle_cost(store: Store, cost: str, *, reprice: bool = False) -> tuple[CostVersion, str | None]:
    """Make sure that a store's edits are measured by a cost.

    Args:
        store: An open one.
        cost: The cost's name.
        reprice: Whether all edits are measured anew, from the texts that are kept. An edit whose text was
            removed then no longer counts, unless the draft was accepted, which costs nothing by any cost.

    Returns:
        What the store's costs are, and a line about what was done, if anything was.

    Raises:
        StoreError: They are measured by another cost and are not to be measured anew; or the database does
            not answer.
        BanditError: A cost is not a number that an edit can cost.
    """
    function = get_cost(cost)
    with store_errors(), store.transaction() as connection:
        version = CostVersion.of(reads.facts_named(connection, (COST, REPRICED)))
        if reprice:
            measured, lost = _reprice(connection, function)
            version = CostVersion(cost, 1 + (version.repriced if version else 0))
            _write_version(connection, version)
            note = f"{measured} costs were counted again, by {cost}"
            if lost:
                note += f"; {lost} whose texts were removed count for nothing any more"
            return version, note
        if version is None:
            version = CostVersion(cost, 0)
            _write_version(connection, version)
            count = reads.count_costs(connection)
            note = f"the store does not say what its {count} costs are counted by: taken to be {cost}"
            return version, note if count else None
        if version.name != cost:
            raise StoreError(
                f"the edits of this store are counted by {version.name}, not by {cost}",
                do=f"--cost {version.name}, or --reprice to count them again",
            )
        return version, None


def _write_version(connection: Connection, version: CostVersion) -> None:
    """Write what all costs are measured by, into every epoch too."""
    writes.set_fact(connection, COST, version.name)
    writes.set_fact(connection, REPRICED, str(version.repriced))
    writes.name_costs(connection, version.name)


def _reprice(connection: Connection, cost: Cost) -> tuple[int, int]:
    """Measure all edits anew; returns how many had their texts, and how many had lost them."""
    measured = lost = after = 0
    while rows := reads.costed_events(connection, after, BATCH_ROWS):
        after = rows[-1].seq
        with_texts = [row for row in rows if row.revision is not None and row.response is not None]
        edited = [row for row in with_texts if row.edit is not None]
        new = cost([row.response for row in edited], [row.edit for row in edited])
        costs = {row.seq: 0.0 for row in with_texts}
        costs |= {row.seq: float(each) for row, each in zip(edited, new, strict=True)}
        for each in costs.values():
            check_cost(each, "edited")
        changes: list[tuple[int, str, float | None]] = [
            (row.seq, row.kind, costs[row.seq]) for row in with_texts
        ]
        without = [row for row in rows if row.seq not in costs and row.kind != "accepted"]
        for row in without:
            changes.append((row.seq, row.kind if row.kind == "external" else "expired", None))
        writes.set_costs(connection, changes)
        measured, lost = measured + len(with_texts), lost + len(without)
    return measured, lost
