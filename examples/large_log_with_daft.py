"""What the edits of each user cost in a log that is read in parallel, its pairs, and its parts by user.

    python examples/large_log_with_daft.py FOLDER OUT

FOLDER has Parquet files, here or in an object store (s3://bucket/log); OUT receives pairs in TRL's format.
Daft (pip install daft) reads, drops repeated rows, groups and writes, on all cores of one machine; with
DAFT_RUNNER=ray the same script runs on a Ray cluster. What an edit costs is EditLoop's, in each worker.
"""

import sys

import daft
from daft import col

from editloop.edits import get_cost

ROW = ("context", "response", "edit", "user")
HELD_OUT = 0.1  # the share of the users


@daft.udf(return_dtype=daft.DataType.float64())
def cost(response: daft.Series, edit: daft.Series) -> list[float]:
    """What each edit of a batch cost."""
    costs: list[float] = get_cost()(response.to_pylist(), edit.to_pylist()).tolist()
    return costs


if __name__ == "__main__":
    folder, out = sys.argv[1:]
    log = daft.read_parquet(f"{folder}/**/*.parquet").select(*map(col, ROW))
    edits = log.where(col("edit").not_null()).distinct(*map(col, ROW))
    priced = edits.with_column("cost", cost(col("response"), col("edit")))
    users = priced.groupby("user").agg(col("cost").count().alias("edits"), col("cost").mean()).sort("user")
    for user in users.to_pylist():
        print(f"{user['user']:<12} {user['edits']:>8} edits cost {user['cost']:.4f} on average")
    pairs = edits.where(col("edit") != col("response")).select(
        col("context").alias("prompt"),
        col("edit").alias("chosen"),
        col("response").alias("rejected"),
        (col("user").hash() % 1000 < 1000 * HELD_OUT).if_else("test", "train").alias("part"),
    )
    pairs.write_parquet(out, partition_cols=[col("part")])
