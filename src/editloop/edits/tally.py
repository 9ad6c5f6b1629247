"""The one pass over a log that its summary is made of: running sums, groups by name, and a sample.

The memory does not grow with the log: only so many groups are kept in detail, and only so many rows as a
sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits.cost import Cost
from editloop.edits.duplicates import HashSet, hash64
from editloop.edits.record import Record
from editloop.edits.views import View, costs, preferences, supervision

__all__ = ["PARTS", "SAMPLE_ROWS", "Group", "LogTally", "batches"]

SAMPLE_ROWS = 1_000_000
"""The most rows of the sample: 48 MB."""

GROUPS_TRACKED = 10_000
"""The most users, and the most policies, that are kept by name."""

GROUPS_SHOWN = 100
"""The most of them that a summary lists."""

BATCH_ROWS, BATCH_CHARS = 1000, 4_000_000
"""Where a batch ends: costs are computed for a whole batch, which is in memory meanwhile."""

PARTS = ("context", "response", "edit")

SAMPLE_TYPE = np.dtype(
    [
        ("row", np.int64),
        ("time", np.float64),  # epoch seconds; nan where there is none
        ("user", np.int32),  # index into `users_tracked`; -1 for no user, or one that is not tracked
        ("cost", np.float32),  # nan where no edit was seen; means are summed in float64 beside it
        *((f"{part}_{unit}", np.int32) for part in PARTS for unit in ("words", "chars")),  # -1: no edit
    ]
)


@dataclass
class Group:
    """The records of one user or one policy. Costs are those of its observed records."""

    name: str
    rows: int = 0
    observed: int = 0
    edited: int = 0
    total_cost: float = 0.0

    @property
    def mean_cost(self) -> float | None:
        """The mean cost of an observed record; None if there is none."""
        return self.total_cost / self.observed if self.observed else None

    @property
    def share_edited(self) -> float | None:
        """The share of observed records that were edited; None if there are none."""
        return self.edited / self.observed if self.observed else None

    def to_json(self) -> dict[str, Any]:
        """Return the group as JSON types."""
        return {
            "name": self.name,
            "rows": self.rows,
            "observed": self.observed,
            "share_edited": self.share_edited,
            "mean_cost": self.mean_cost,
        }


@dataclass
class LogTally:
    """The running sums of one pass over a log."""

    all: Group = field(default_factory=lambda: Group("all"))
    statuses: Counter[str] = field(default_factory=Counter)
    users: _Groups = field(default_factory=lambda: _Groups())
    policies: _Groups = field(default_factory=lambda: _Groups())
    first: datetime | None = None
    last: datetime | None = None
    n_timed: int = 0
    kept: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("supervision", "preferences", "costs"), 0)
    )
    dropped: dict[str, Counter[str]] = field(
        default_factory=lambda: {view: Counter() for view in ("supervision", "preferences", "costs")}
    )
    shared: float = 0.0
    sample: _Sample = field(default_factory=lambda: _Sample(SAMPLE_ROWS))

    def add(self, records: list[Record], cost: Cost) -> None:
        """Add a batch of records; what their edits cost is computed for all of them at once."""
        observed = costs(records, cost)
        views: dict[str, View[Any]] = {
            "supervision": supervision(records),
            "preferences": preferences(records),
            "costs": observed,
        }
        for name, view in views.items():
            self.kept[name] += len(view.rows)
            self.dropped[name] += view.dropped
        # A view keeps the order of its records, so the next cost is that of the next observed record.
        observed_costs = iter(observed.rows)
        rows = np.empty(len(records), dtype=SAMPLE_TYPE)
        for i, record in enumerate(records):
            value = next(observed_costs).cost if record.is_observed else None
            user, policy = self.users.find(record.user), self.policies.find(record.policy)
            for group in (self.all, user, policy):
                if group is not None:
                    group.rows += 1
                    if value is not None:
                        group.observed += 1
                        group.edited += record.edit != record.response
                        group.total_cost += value
            self.statuses[record.status] += 1
            time = np.nan if record.time is None else record.time.timestamp()
            if record.time is not None:
                self.n_timed += 1
                self.first = min(self.first or record.time, record.time)
                self.last = max(self.last or record.time, record.time)
            index = -1 if user is None or record.user is None else self.users.index[record.user]
            words = self._words(record)
            chars = (
                _context_chars(record),
                len(record.response),
                -1 if record.edit is None else len(record.edit),
            )
            lengths = (length for both in zip(words, chars, strict=True) for length in both)
            rows[i] = (self.all.rows - 1, time, index, np.nan if value is None else value, *lengths)
        self.sample.add(rows)

    def _words(self, record: Record) -> tuple[int, int, int]:
        """Return the three lengths in words, and add the share that an edited pair has in common.

        Both are done here, so that each text is split into words only once.
        """
        context, response = _context_words(record), record.response.split()
        if record.edit is None:
            return context, len(response), -1
        if record.edit == record.response:
            return context, len(response), len(response)
        edit = record.edit.split()
        prefix = 0
        for ours, theirs in zip(response, edit, strict=False):
            if ours != theirs:
                break
            prefix += 1
        self.shared += 2 * (context + prefix) / (2 * context + len(response) + len(edit))
        return context, len(response), len(edit)


class _Groups:
    """Groups by name. The first 10,000 are kept in detail; the others are only counted, by their hashes."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self._groups: list[Group] = []
        self._beyond = HashSet()

    def __len__(self) -> int:
        return len(self._groups) + len(self._beyond)

    def find(self, name: str | None) -> Group | None:
        if name is None:
            return None
        if name not in self.index:
            if len(self._groups) >= GROUPS_TRACKED:
                self._beyond.add(hash64(name))
                return None
            self.index[name] = len(self._groups)
            self._groups.append(Group(name))
        return self._groups[self.index[name]]

    def largest(self) -> tuple[Group, ...]:
        ranked = sorted(self._groups, key=lambda group: (-group.rows, group.name))
        return tuple(ranked[:GROUPS_SHOWN])


class _Sample:
    """A uniform sample of fixed size, which holds every row until it is full.

    Algorithm R (Vitter 1985), for many rows at once: row number t, counted from 0, draws a place in 0 to t
    and replaces the row there, if the sample has such a place. Every row then is in the sample with the same
    chance. The seed is fixed, so that a log always has the same summary.
    """

    def __init__(self, size: int) -> None:
        self._rows = np.empty(size, dtype=SAMPLE_TYPE)  # pages that are never written to take no memory
        self._seen = 0
        self._random = np.random.default_rng(0)

    def add(self, rows: NDArray[np.void]) -> None:
        size, seen = len(self._rows), self._seen
        fits = max(0, min(len(rows), size - seen))
        self._rows[seen : seen + fits] = rows[:fits]
        places = self._random.integers(0, np.arange(seen + fits, seen + len(rows)) + 1)
        taken = places < size
        # Of two rows of this batch with one place the later one stays, as if they had been added one by one.
        self._rows[places[taken]] = rows[fits:][taken]
        self._seen += len(rows)

    def rows(self) -> NDArray[np.void]:
        kept = self._rows[: self._seen]
        # Replaced rows are out of order; plots over time need them in the order of the log.
        return kept[np.argsort(kept["row"], kind="stable")] if self._seen > len(kept) else kept


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield records in lists of at most `BATCH_ROWS` records and about `BATCH_CHARS` characters."""
    batch: list[Record] = []
    chars = 0
    for record in records:
        batch.append(record)
        chars += _context_chars(record) + len(record.response) + len(record.edit or "")
        if len(batch) >= BATCH_ROWS or chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _context_words(record: Record) -> int:
    context = record.context
    return (
        len(context.split())
        if isinstance(context, str)
        else sum(len(each.content.split()) for each in context)
    )


def _context_chars(record: Record) -> int:
    context = record.context
    return len(context) if isinstance(context, str) else sum(len(each.content) for each in context)
