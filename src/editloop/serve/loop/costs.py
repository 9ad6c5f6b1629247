"""The cost by which a store's edits are measured: one at a time, whose name the store keeps.

Numbers of two different costs must never be added up. A server is started with the name of a cost. If the
store's edits are measured by another one, the server refuses to start, or measures all of them again from
their texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from editloop.edits import get_cost
from editloop.edits.cost import DEFAULT_COST, PAPER_COST, Cost
from editloop.errors import StoreError, StoreUnreachableError
from editloop.online.events import check_cost
from editloop.serve.loop.appender import PRICES, Prices
from editloop.store import reads, writes
from editloop.store.database import Connection, Store, store_errors
from editloop.store.schema import COST, REPRICED

__all__ = ["CostVersion", "measured_again", "settle_cost", "usual_cost"]

BATCH_ROWS = 1000
"""Events that are read and measured at a time."""


class CostVersion(NamedTuple):
    """The cost by which a store's edits are measured, and the version of that.

    Attributes:
        name: The name of the cost.
        repriced: How many times all edits were measured again. It changes even if the name does not, because
            a cost of that name may compute other numbers in a later version of a program.
    """

    name: str
    repriced: int

    @classmethod
    def of(cls, facts: Mapping[str, str]) -> CostVersion | None:
        """The version of a store with these facts; None if they do not name a cost."""
        return None if COST not in facts else cls(facts[COST], int(facts.get(REPRICED, 0)))


def measured_again(name: str | None) -> StoreError:
    """Return the error of a replica that knows costs which its store does not have any more.

    Args:
        name: The cost by which the store's edits are measured now.
    """
    what = f"the costs of the store were measured again, by {name or 'no cost'}"
    return StoreError(what, do="restart this server")


def usual_cost(store: Store, folder: Path) -> str:
    """Return the cost for a server that was started without one: what the store's edits are measured by.

    A new store gets the default cost. A store that names none, although it has edits, was made when the cost
    of the paper was the only one. While the database is down, the snapshot decides.

    Args:
        store: It is opened if it exists, and not claimed.
        folder: The state folder, with the snapshot.

    Raises:
        StoreError: The store cannot be used.
    """
    file = store.url.database
    if store.is_sqlite and not (file and Path(file).is_file()):
        return DEFAULT_COST
    try:
        store.open(claim=False)
        version = CostVersion.of(store.read(lambda c: reads.facts_named(c, (COST, REPRICED))))
        if version is not None:
            return version.name
        return PAPER_COST if store.read(reads.count_costs) else DEFAULT_COST
    except StoreUnreachableError:
        with suppress(OSError, ValueError, KeyError, TypeError):
            row = json.loads((folder / "snapshot.json").read_text(encoding="utf-8"))
            return str(row["bandit"]["config"]["cost"])
        return DEFAULT_COST
    finally:
        store.close()  # the server opens it in its own time, or ends with an error before it does


def settle_cost(
    store: Store, cost: str, *, reprice: bool = False, prices: Prices = PRICES
) -> tuple[CostVersion, str | None]:
    """Make sure that a store's edits are measured by a cost.

    Args:
        store: An open one.
        cost: The cost's name.
        reprice: Whether all edits are measured again, from the texts that are kept. An edit whose text was
            removed then no longer counts, unless the draft was accepted, which costs nothing by any cost, or
            thrown away.
        prices: What costs something whatever the texts are.

    Returns:
        The store's cost and its version, and a line about what was done, if anything was.

    Raises:
        StoreError: The edits are measured by another cost, and `reprice` is false; or the database does not
            answer.
        BanditError: The cost of an edit is not a number of 0 or more.
    """
    function = get_cost(cost)
    # All in one transaction: a kill in the middle must not leave numbers of two costs in one store.
    with store_errors(), store.transaction(patient=True) as connection:
        version = CostVersion.of(reads.facts_named(connection, (COST, REPRICED)))
        if reprice:
            measured, lost = _reprice(connection, function, prices)
            version = CostVersion(cost, 1 + (version.repriced if version else 0))
            _write_version(connection, version)
            note = f"{measured} costs were measured again, by {cost}"
            if lost:
                note += f"; no longer counted, because their texts were removed: {lost}"
            return version, note
        if version is None:
            version = CostVersion(cost, 0)
            _write_version(connection, version)
            note = f"the store does not name the cost by which its edits are measured: assuming {cost}"
            return version, note if reads.count_costs(connection) else None
        if version.name != cost:
            raise StoreError(
                f"the edits of this store are measured by {version.name}, not by {cost}",
                do=f"use --cost {version.name}, or --reprice to measure them again",
            )
        return version, None


def _write_version(connection: Connection, version: CostVersion) -> None:
    """Write the cost and its version as facts, and the cost's name into every epoch."""
    writes.set_fact(connection, COST, version.name)
    writes.set_fact(connection, REPRICED, str(version.repriced))
    writes.name_costs(connection, version.name)


def _reprice(connection: Connection, cost: Cost, prices: Prices) -> tuple[int, int]:
    """Measure all edits again; return how many still had their texts, and how many had lost them."""
    measured = lost = after = 0
    # Batches continue after the last number, because rows that lose their cost are no longer found.
    while rows := reads.costed_events(connection, after, BATCH_ROWS):
        after = rows[-1].seq
        # `revision` and `response` come from outer joins: without them, the edit or the draft has no texts.
        with_texts = [row for row in rows if row.revision is not None and row.response is not None]
        edited = [row for row in with_texts if row.edit is not None]
        new = cost([row.response for row in edited], [row.edit for row in edited])
        costs = dict.fromkeys((row.seq for row in with_texts), 0.0)
        costs |= {row.seq: float(each) for row, each in zip(edited, new, strict=True)}
        costs |= {row.seq: max(costs[row.seq], prices.non_answer) for row in with_texts if row.non_answer}
        thrown_away = (row.seq for row in rows if row.discarded or row.kind == "discarded")
        costs |= dict.fromkeys(thrown_away, prices.discarded)
        for each in costs.values():
            check_cost(each, "edited")
        changes: list[tuple[int, str, float | None]] = [
            (row.seq, row.kind, costs[row.seq]) for row in rows if row.seq in costs
        ]
        without = [row for row in rows if row.seq not in costs and row.kind != "accepted"]
        for row in without:  # the bandit is to leave out an edit whose cost is not known
            changes.append((row.seq, row.kind if row.kind == "external" else "void", None))
        writes.set_costs(connection, changes)
        measured, lost = measured + len(costs), lost + len(without)
    return measured, lost
