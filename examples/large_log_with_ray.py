"""What the edits of each user cost in a log that many machines read, and its pairs in TRL's format.

    python examples/large_log_with_ray.py FOLDER OUT

FOLDER has Parquet files, here or in an object store (s3://bucket/log); OUT receives the pairs as JSONL. Ray
Data (pip install 'ray[data]') reads the files, moves the rows and adds up; EditLoop, in each worker, makes
records and counts what an edit costs. On a cluster: ray job submit -- python ... FOLDER OUT
"""

import sys
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray
from pydantic import ValidationError

from editloop.edits import Record, costs, get_cost, preferences

FIELDS = ["id", "context", "response", "edit", "status", "user", "policy", "time"]
BATCH_ROWS = 2000


def records_of(table: pa.Table) -> Iterator[Record]:
    """The records of a batch; rows that are none are left out, as they are from a summary."""
    for row in table.select([name for name in FIELDS if name in table.column_names]).to_pylist():
        try:
            yield Record.model_validate(row)
        except ValidationError:
            continue


def sums_by_user(table: pa.Table) -> pa.Table:
    """What the edits of each user in a batch cost together, and how many there are."""
    records = [record for record in records_of(table) if record.is_observed]
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for record, priced in zip(records, costs(records, get_cost()).rows, strict=True):
        sums[record.user or ""] += (1, priced.cost)
    counts, totals = np.array(list(sums.values())).reshape(-1, 2).T
    return pa.table({"user": pa.array(list(sums), pa.string()), "edits": counts, "cost": totals})


def pairs(table: pa.Table) -> pa.Table:
    """The preferences of a batch, in TRL's format."""
    rows = preferences(list(records_of(table))).rows
    columns = {"prompt": "context", "chosen": "chosen", "rejected": "rejected"}
    return pa.table({name: pa.array([getattr(row, own) for row in rows]) for name, own in columns.items()})


if __name__ == "__main__":
    folder, out = sys.argv[1:]
    log = ray.data.read_parquet(folder)
    batches = {"batch_format": "pyarrow", "batch_size": BATCH_ROWS}
    for row in log.map_batches(sums_by_user, **batches).groupby("user").sum(["edits", "cost"]).take_all():
        edits, cost = row["sum(edits)"], row["sum(cost)"]
        print(f"{row['user']:<12} {edits:>8.0f} edits cost {cost / edits:.4f} on average")
    log.map_batches(pairs, **batches).write_json(out)
