"""A log in a database that is not a store: whatever its times are, it is read within its bounds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from editloop.edits import read_log

SECONDS = [1767225600.0 + 86400 * day for day in range(3)]  # the first days of 2026
TEXTS = ["2026-01-01 00:00:00", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00+00:00"]


def database(path: Path, kind: str, times: list[object]) -> str:
    """Write a table `log` whose column `time` has a type, and return its address."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE log (context TEXT, response TEXT, edit TEXT, time {kind})")
        rows = [("c", f"r{i}", "e", time) for i, time in enumerate(times)]
        connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", rows)
    return f"sqlite:///{path}"


@pytest.mark.parametrize(
    ("kind", "times"), [("REAL", SECONDS), ("INTEGER", SECONDS), ("", SECONDS), ("TEXT", TEXTS), ("", TEXTS)]
)
def test_times_are_numbers_or_texts(tmp_path: Path, kind: str, times: list[object]) -> None:
    address = database(tmp_path / "other.db", kind, times)
    assert [record.response for record in read_log(address)] == ["r0", "r1", "r2"]
    bounded = read_log(f"{address}?since=2026-01-02&until={SECONDS[2]}")
    assert [record.response for record in bounded] == ["r1"]


def test_a_time_that_cannot_be_read_costs_no_row(tmp_path: Path) -> None:
    log = read_log(database(tmp_path / "other.db", "TEXT", [TEXTS[0], "soon"]))
    assert [record.time is None for record in log] == [False, True]
    assert log.report.times_dropped == 1
