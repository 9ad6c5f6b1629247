"""How fast logs that are larger than memory are read, and what a columnar engine adds.

A synthetic log of short rows is written in Parquet files of up to a million rows. Engines do the same work
on them: reading rows, and finding repeated ones. Then the verbs' own functions run on a quarter of the files
and on all of them, each in a process of its own, so that a memory that grows with the log shows. Rates are
rows per second of processor time, since other programs may use the machine meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.log_scale import peak_memory
from editloop.edits import on_disk, splitting
from editloop.errors import ConfigError, RunError
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import write_result

FILES, FILE_ROWS = 4, 1_000_000
ROW_BYTES = 80
"""About what a row takes in a file, compressed; of the free disk at most half is taken."""

COLUMNS = ["context", "response", "edit", "user", "time", "id"]
ENGINES = ("today", "duckdb", "polars")
VERBS = ("inspect", "split by user", "split by time", "export")


def run(out: str | Path, *, rows: int = 400_000, callback: ProgressCallback | None = None) -> dict[str, Any]:
    """Measure, and write `large-log.json` and `large-log.md`.

    Args:
        out: The folder for the results.
        rows: Rows of the log; with 100,000,000 it takes about 8 GB of the temporary folder.
        callback: Receives progress.

    Raises:
        ConfigError: The log would take more than half of the free disk.
        RunError: A measurement failed.
    """
    callback = callback or WarningCallback()
    with tempfile.TemporaryDirectory() as temporary:
        free = shutil.disk_usage(temporary).free
        if rows * ROW_BYTES > free / 2:
            raise ConfigError(
                "the log would take more than half of the free disk",
                seen=rows,
                do=f"at most {free // 2 // ROW_BYTES}",
            )
        whole, quarter = Path(temporary) / "whole", Path(temporary) / "quarter"
        files = _write_log(whole, rows, callback)
        quarter.mkdir()
        for file in files[: max(1, len(files) // 4)]:
            (quarter / file.name).symlink_to(file)
        jobs = [(f"{task}: {engine}", whole) for task in ("read", "repeated") for engine in ENGINES]
        jobs += [(verb, folder) for verb in VERBS for folder in (quarter, whole)]
        found: dict[str, Any] = {}
        for done, (name, folder) in enumerate(jobs):
            callback.progress("measuring", done, len(jobs), name)
            found[f"{name}, {folder.name}"] = _measured(name, folder, Path(temporary))
        measured = {
            "rows": rows,
            "files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
            "measured": found,
        }
    write_result("large-log", measured, _markdown(measured), out)
    return measured


def _write_log(folder: Path, rows: int, callback: ProgressCallback) -> list[Path]:
    """Write a log of made-up sentences: 15% of the rows are unedited, 5% pending, 1% repeat another."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfw"))
    words = ["".join(letters[random.integers(0, 16, random.integers(2, 9))]) for _ in range(5000)]
    phrases = [
        pa.array(
            [" ".join([words[i] for i in row]) for row in random.integers(0, 5000, (20_000, length)).tolist()]
        )
        for length in (4, 4, 5, 5, 5)
    ]
    folder.mkdir()
    files = []
    size = min(
        FILE_ROWS, -(-rows // FILES)
    )  # a short log has as many files, of which a quarter is measured, too
    for begin in range(0, rows, size):
        count = min(size, rows - begin)
        number = np.arange(begin, begin + count)
        number = np.where(random.random(count) < 0.01, random.integers(0, number + 1), number)
        # A row follows from its number alone, so that one with an earlier number repeats that row.
        mixed = number * 2_654_435_761 % 2**32
        picked = [phrases[i].take(pa.array(mixed * (2 * i + 3) % 20_011 % 20_000)) for i in range(5)]
        tail = pa.array(number.astype(str))
        response = pc.binary_join_element_wise(picked[2], picked[3], tail, " ")
        changed = pc.binary_join_element_wise(picked[2], picked[4], tail, " ")
        kind = mixed % 100
        edit = pc.if_else(pa.array(kind < 20), response, changed)
        columns = {
            "id": pc.binary_join_element_wise(
                "row", pa.array(np.arange(begin, begin + count).astype(str)), "-"
            ),
            "context": pc.binary_join_element_wise(picked[0], picked[1], " "),
            "response": response,
            "edit": pc.if_else(pa.array(kind < 5), pa.scalar(None, pa.string()), edit),
            "user": pc.binary_join_element_wise("user", pa.array((mixed % 5000).astype(str)), "-"),
            "time": pa.array(1_767_225_600_000_000 + number * 1_000_000, pa.timestamp("us", "UTC")),
        }
        files.append(folder / f"part-{begin // size:05d}.parquet")
        pq.write_table(pa.table(columns), files[-1], compression="zstd")
        callback.progress("writing", begin + count, rows)
    return files


def _measured(name: str, folder: Path, temporary: Path) -> dict[str, Any]:
    """What a job measured in a process of its own.

    Raises:
        RunError: It failed.
    """
    code = "import sys; from benchmarks.large_log import job; job(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(folder), str(temporary)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
    )
    if done.returncode:
        raise RunError(f"{name} failed", seen=done.returncode, do="see its message above")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def job(name: str, folder: str, temporary: str) -> None:
    """Do a job in this process, and print what it took as JSON."""
    on_disk.LARGE_ROWS = splitting.IN_MEMORY = 0  # the way of a large log, however many rows are asked for
    work = {**_engine_jobs(), **_verb_jobs(Path(temporary))}[name]
    begin, cpu = time.perf_counter(), time.process_time()
    rows, seen = work(folder)
    seconds, processor = time.perf_counter() - begin, time.process_time() - cpu
    print(
        json.dumps(
            {
                "rows": rows,
                "seen": seen,
                "seconds": seconds,
                "processor": processor,
                "rows_per_second": rows / processor,
                "peak_mb": peak_memory() / 1e6,
            }
        )
    )


Job = Callable[[str], tuple[int, int]]
"""Takes the log's folder; returns how many rows were read, and a number that all engines have to agree on."""


def _engine_jobs() -> Mapping[str, Job]:
    """The same work by several engines: rows as Python objects, and the number of repeated rows."""
    from editloop.edits.duplicates import Duplicates
    from editloop.edits.formats import open_source
    from editloop.edits.formats.arrow import rows_of
    from editloop.edits.on_disk import database
    from editloop.edits.reading import iter_records

    repeated = (
        "SELECT sum(n), sum(n - 1) FROM (SELECT count(*) AS n FROM {} GROUP BY hash(response, context))"
    )

    def counted(rows: Any) -> tuple[int, int]:
        count = sum(1 for _ in rows)
        return count, count

    def duckdb_read(folder: str) -> tuple[int, int]:
        with database() as connection:
            table = connection.sql(f"SELECT {', '.join(COLUMNS)} FROM '{folder}/*.parquet'")
            return counted(rows_of(iter(table.to_arrow_reader(256))))

    def duckdb_repeated(folder: str) -> tuple[int, int]:
        with database() as connection:
            (found,) = connection.sql(repeated.format(f"'{folder}/*.parquet'")).fetchall()
            return int(found[0]), int(found[1])

    def polars_read(folder: str) -> tuple[int, int]:
        import polars

        frames = polars.scan_parquet(f"{folder}/*.parquet").select(COLUMNS).collect_batches(chunk_size=256)
        return counted(row for frame in frames for row in frame.iter_rows(named=True))

    def polars_repeated(folder: str) -> tuple[int, int]:
        import polars

        key = polars.struct("response", "context").hash()
        groups = polars.scan_parquet(f"{folder}/*.parquet").group_by(key).len()
        sums = groups.select(polars.col("len").sum(), (polars.col("len") - 1).sum().alias("more"))
        found = sums.collect(engine="streaming").row(0)
        return int(found[0]), int(found[1])

    def today_repeated(folder: str) -> tuple[int, int]:
        seen, records = Duplicates(), iter_records(folder, keep_duplicates=True)
        more = sum(seen.see(record) == "duplicate" for record in records)
        return records.report.rows_read, more

    return {
        "read: today": lambda folder: counted(open_source(Path(folder), wanted=COLUMNS).rows),
        "read: duckdb": duckdb_read,
        "read: polars": polars_read,
        "repeated: today": today_repeated,
        "repeated: duckdb": duckdb_repeated,
        "repeated: polars": polars_repeated,
    }


def _verb_jobs(temporary: Path) -> Mapping[str, Job]:
    """What the verbs do, each from the files to its result."""
    from editloop.edits import SplitBy, export, iter_records, split_log, summarize

    def inspect(folder: str) -> tuple[int, int]:
        summary = summarize(iter_records(folder))
        assert summary.report is not None
        return summary.report.rows_read, summary.rows

    def split_by(by: SplitBy) -> Job:
        def work(folder: str) -> tuple[int, int]:
            files = {name: temporary / f"{name}.parquet" for name in ("train", "validation", "test")}
            counts = split_log(lambda: iter_records(folder), files, by=by, test=0.1)
            for file in files.values():
                file.unlink()
            return sum(counts.values()), counts["train"]

        return work

    def export_pairs(folder: str) -> tuple[int, int]:
        records = iter_records(folder)
        done = export(records, temporary / "pairs.jsonl", "trl-dpo")
        (temporary / "pairs.jsonl").unlink()
        return records.report.rows_read, done.rows

    return {
        "inspect": inspect,
        "split by user": split_by("user"),
        "split by time": split_by("time"),
        "export": export_pairs,
    }


def _markdown(measured: Mapping[str, Any]) -> str:
    found = measured["measured"]
    rows = measured["rows"]
    lines = [
        f"A synthetic log of {rows:,} short rows in {measured['files']} Parquet files, "
        f"{measured['bytes'] / 1e6:,.0f} MB. Rates are rows per second of processor time, with "
        "one thread. All of it goes the way of a log that is larger than memory, whatever its size.",
        "",
        "What the engines do with the files: rows as Python objects, and the number of rows whose context "
        "and response an earlier row has. Today's way to find repeated rows makes records first.",
        "",
        "| | rows per second | peak memory |",
        "|---|--:|--:|",
    ]
    for task, title in (("read", "rows of six columns"), ("repeated", "repeated rows")):
        for engine in ENGINES:
            each = found[f"{task}: {engine}, whole"]
            name = {"today": "pyarrow" if task == "read" else "records and a set of hashes"}.get(
                engine, engine
            )
            lines.append(f"| {title}: {name} | {each['rows_per_second']:,.0f} | {each['peak_mb']:,.0f} MB |")
    lines += [
        "",
        f"What the verbs take for a quarter of the files and for all of them ({rows:,} rows):",
        "",
        "| | rows per second | seconds of processor | peak memory, a quarter | peak memory, all |",
        "|---|--:|--:|--:|--:|",
    ]
    for verb in VERBS:
        some, each = found[f"{verb}, quarter"], found[f"{verb}, whole"]
        lines.append(
            f"| {verb} | {each['rows_per_second']:,.0f} | {each['processor']:,.0f} "
            f"| {some['peak_mb']:,.0f} MB | {each['peak_mb']:,.0f} MB |"
        )
    return "\n".join(lines)
