"""What is in a log: one streaming pass that keeps numbers about the records, not their texts.

Counts and means are exact. Quantiles and plots come from `sample`, which holds 48 bytes for each record: all
records of a log of up to a million, and a uniform sample of a million of a longer one. `tally.py` collects
the numbers, and `plots.py` draws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits.cost import Cost, get_cost
from editloop.edits.log import ReadReport
from editloop.edits.reading import iter_records
from editloop.edits.record import Record
from editloop.edits.tally import PARTS, Group, LogTally, batches

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles of costs and lengths that are reported."""


@dataclass(frozen=True)
class LogSummary:
    """What is in a log. Shares are of observed records (edited or accepted), and None if there are none.

    Attributes:
        cost: The name of the cost.
        all: All records as one group.
        statuses: The number of records by status.
        users: The users with the most rows: at most 100 of the first 10,000 that occur.
        policies: The policies, likewise.
        n_users: The number of distinct users.
        n_policies: The number of distinct policies.
        first: The earliest time, if any record has one.
        last: The latest time.
        n_timed: The number of records with a time.
        kept: The number of rows that each view keeps.
        dropped: The number of rows that each view leaves out, by reason.
        shared: How much a context tree saves: the mean share of an edited pair's words (context + response,
            context + edit) that are in the context or in the common beginning of response and edit. A tree
            encodes both once.
        sample: A structured array of `SAMPLE_TYPE` in row order; every record, or a million of them.
        users_tracked: The names of the users, to which the sample's `user` is an index.
        report: The report on reading the log, if one was read.
    """

    cost: str
    all: Group
    statuses: Counter[str]
    users: tuple[Group, ...]
    policies: tuple[Group, ...]
    n_users: int
    n_policies: int
    first: datetime | None
    last: datetime | None
    n_timed: int
    kept: dict[str, int]
    dropped: dict[str, Counter[str]]
    shared: float | None
    sample: NDArray[np.void]
    users_tracked: tuple[str, ...]
    report: ReadReport | None

    @property
    def rows(self) -> int:
        """The number of records."""
        return self.all.rows

    @property
    def sampled(self) -> bool:
        """Whether the quantiles are those of a sample, because the log is longer than it."""
        return len(self.sample) < self.rows

    @property
    def cost_quantiles(self) -> dict[str, float] | None:
        """Quantiles and the maximum of the cost of observed records."""
        return _quantiles(self.sample["cost"][~np.isnan(self.sample["cost"])])

    @property
    def lengths(self) -> dict[str, dict[str, dict[str, float] | None]]:
        """Quantiles and the maximum of each part's length: part, then `words` or `chars`."""
        return {
            part: {unit: _quantiles(_there(self.sample[f"{part}_{unit}"])) for unit in ("words", "chars")}
            for part in PARTS
        }

    def to_json(self) -> dict[str, Any]:
        """Return the summary, without its sample, as JSON types."""
        return {
            "report": None if self.report is None else self.report.to_json(),
            "rows": self.rows,
            "statuses": dict(self.statuses),
            "share_edited": self.all.share_edited,
            "share_accepted": self.statuses["accepted"] / self.all.observed if self.all.observed else None,
            "cost": self.cost,
            "mean_cost": self.all.mean_cost,
            "cost_quantiles": self.cost_quantiles,
            "lengths": self.lengths,
            "quantiles_sampled": self.sampled,
            "shared": self.shared,
            "views": {
                view: {"rows": rows, "dropped": dict(self.dropped[view])} for view, rows in self.kept.items()
            },
            "first": None if self.first is None else self.first.isoformat(),
            "last": None if self.last is None else self.last.isoformat(),
            "rows_with_time": self.n_timed,
            "n_users": self.n_users,
            "users": [group.to_json() for group in self.users],
            "n_policies": self.n_policies,
            "policies": [group.to_json() for group in self.policies],
        }


def summarize(log: Iterable[Record] | str | Path, *, cost: Cost | None = None) -> LogSummary:
    """Summarize a log in one pass.

    Args:
        log: The path of a log whose columns have the names of a record's fields; or records: a `Log`, a
            stream of `iter_records(path, map=...)`, or any others. They are taken once.
        cost: What an edit costs; by default `alignment:word`.

    Raises:
        LogError: The log cannot be read; see `iter_records`.
        CostError: The cost cannot be computed.
    """
    records = iter_records(log) if isinstance(log, (str, Path)) else log
    cost = get_cost() if cost is None else cost
    total = LogTally()
    for batch in batches(records):
        total.add(batch, cost)
    report = getattr(records, "report", None)
    return LogSummary(
        cost=cost.name,
        all=total.all,
        statuses=total.statuses,
        users=total.users.largest(),
        policies=total.policies.largest(),
        n_users=len(total.users),
        n_policies=len(total.policies),
        first=total.first,
        last=total.last,
        n_timed=total.n_timed,
        kept=total.kept,
        dropped=total.dropped,
        shared=total.shared / total.all.edited if total.all.edited else None,
        sample=total.sample.rows(),
        users_tracked=tuple(total.users.index),
        report=report if isinstance(report, ReadReport) else None,
    )


def _there(lengths: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the lengths without those of missing edits, which are −1."""
    return lengths[lengths >= 0]


def _quantiles(values: NDArray[Any]) -> dict[str, float] | None:
    """Return the quantiles by their share, and `max`; None for no values."""
    if not len(values):
        return None
    at = np.quantile(values, (*QUANTILES, 1.0)).tolist()
    return dict(zip((*map(str, QUANTILES), "max"), at, strict=True))
