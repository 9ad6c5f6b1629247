"""How much memory and time it takes to inspect a log of a million rows.

A synthetic log of about 1 kB per row is written and then inspected in a process of its own, as
`editloop inspect` does it: reading, checking, duplicates, costs, summary and plots. That process's peak
memory and speed are measured. The goal for the memory, `GOAL_MB`, is about that of one browser tab.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from editloop.edits import iter_records, plot_costs, summarize
from editloop.errors import RunError
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import write_result

GOAL_MB = 400
CONTEXT_WORDS, RESPONSE_WORDS = 40, 36
BATCH = 2000


def run(
    out: str | Path, *, rows: int = 1_000_000, seed: int = 0, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure, and write `log-scale.json` and `log-scale.md`.

    Args:
        out: The folder for the results.
        rows: Rows of the log, about 1 kB each; its file is written to the system's temporary folder.
        seed: Seed of the synthetic log.
        callback: Receives progress.

    Raises:
        RunError: The inspection failed.
    """
    callback = callback or WarningCallback()
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary) / "log.jsonl"
        with log.open("w", encoding="utf-8") as file:
            for done, row in enumerate(synthetic_rows(rows, seed), start=1):
                file.write(json.dumps(row) + "\n")
                if done % BATCH == 0:
                    callback.progress("writing", done, rows)
        size = log.stat().st_size
        measured: dict[str, Any] = {"log_bytes": size, "goal_mb": GOAL_MB}
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(log), temporary], stdout=subprocess.PIPE, text=True
        ) as child:
            for line in child.stdout or ():
                content = json.loads(line)
                if isinstance(content, int):
                    callback.progress("inspecting", content, size)
                else:
                    measured |= content
        if child.returncode:
            raise RunError("the inspection failed", seen=child.returncode, do="see its message above")
    write_result("log-scale", measured, _markdown(measured), out)
    return measured


def inspect(log: str, folder: str) -> dict[str, Any]:
    """Inspect a log in this process, print the progress as integers, and return time and memory."""
    printed = 0

    def print_progress(done: int, total: int) -> None:
        nonlocal printed
        if done - printed > total / 200:
            printed = done
            print(done, flush=True)

    start = time.perf_counter()
    summary = summarize(
        iter_records(log, quarantine=Path(folder) / "quarantine.jsonl", progress=print_progress)
    )
    read = time.perf_counter()
    plot_costs(summary, folder)
    plotted = time.perf_counter()
    rows = summary.report.rows_read if summary.report else 0
    return {
        "rows": rows,
        "records": summary.rows,
        "duplicates": summary.report.duplicates if summary.report else 0,
        "bad_rows": summary.report.bad_rows if summary.report else 0,
        "mean_cost": summary.all.mean_cost,
        "seconds": plotted - start,
        "seconds_plots": plotted - read,
        "seconds_processor": time.process_time(),  # With start-up; far below `seconds` on a busy machine.
        "rows_per_second": rows / (plotted - start),
        "peak_mb": peak_memory() / 1e6,
    }


_CHILD = """
import json, sys
from benchmarks.log_scale import inspect
print(json.dumps(inspect(*sys.argv[1:])))
"""


def peak_memory() -> int:
    """Return the peak memory of this process in bytes.

    On Linux it is read from `/proc`, because `getrusage` there also counts what the parent held when it
    started this process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def synthetic_rows(rows: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield log rows of made-up words with Zipf's distribution, some of them edited.

    Of the rows, 10% are unedited, 5% are pending, 1% are duplicates and 0.1% are bad.
    """
    random = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfw"))
    words = ["".join(random.choice(letters, random.integers(2, 12))) for _ in range(20_000)]
    rank = 1 / np.arange(1.0, len(words) + 1)
    cumulative = (rank / rank.sum()).cumsum()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    previous: dict[str, Any] | None = None
    for row in range(rows):
        if row % BATCH == 0:
            size = BATCH, CONTEXT_WORDS + 2 * RESPONSE_WORDS
            picked = np.minimum(np.searchsorted(cumulative, random.random(size)), len(words) - 1).tolist()
            chances = random.random(size)
        text = [words[index] for index in picked[row % BATCH]]
        chance = chances[row % BATCH]
        context, response = text[:CONTEXT_WORDS], text[CONTEXT_WORDS : CONTEXT_WORDS + RESPONSE_WORDS]
        kind, changed = chance[0], chance[-RESPONSE_WORDS:] < 0.6 * chance[1]
        edit = [
            other if change else word
            for word, other, change in zip(response, text[-RESPONSE_WORDS:], changed, strict=True)
        ]
        made: dict[str, Any] = {
            "id": f"row-{row}",
            "context": " ".join(context),
            "response": " " if kind > 0.999 else " ".join(response),
            "edit": None if kind < 0.05 else " ".join(response if kind < 0.15 else edit),
            "user": f"user-{int(500 * chance[2] ** 2)}",
            "policy": f"policy-{int(3 * chance[3])}",
            "propensity": 0.25,
            "time": (start + timedelta(seconds=30 * row)).isoformat(),
        }
        if previous is not None and 0.98 < kind < 0.99:
            made = {**previous, "id": made["id"]}
        previous = made
        yield made


def _markdown(measured: dict[str, Any]) -> str:
    each = measured
    return "\n".join(
        [
            "A synthetic log, inspected in one process as `editloop inspect` does it: reading, checking, "
            "duplicates, costs, summary, plots.",
            "",
            "| rows | file | rows per second | seconds | of processor | peak memory | goal |",
            "|--:|--:|--:|--:|--:|--:|--:|",
            f"| {each['rows']:,} | {each['log_bytes'] / 1e6:,.0f} MB | {each['rows_per_second']:,.0f} "
            f"| {each['seconds']:.0f} | {each['seconds_processor']:.0f} | {each['peak_mb']:.0f} MB "
            f"| < {each['goal_mb']} MB |",
            "",
            f"Of these rows {each['bad_rows']:,} were bad and {each['duplicates']:,} exact duplicates.",
        ]
    )
