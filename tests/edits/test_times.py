"""Times as logs write them; one that cannot be read costs the time, never the row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from editloop.edits import Record, read_log

MOMENT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)  # 1772600767 seconds since 1970
ROW = {"context": "c", "response": "r", "edit": "e"}


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-04T05:06:07Z",
        "2026-03-04 05:06:07",
        "2026-03-04 05:06:07 UTC",
        "2026-03-04T05:06:07utc",
        "2026-03-04T06:06:07+01:00",
        "Wed, 04 Mar 2026 05:06:07 GMT",
        "Wed, 4 Mar 2026 05:06:07 +0000",
        "4 Mar 2026 06:06:07 +0100",
        1772600767,
        1772600767.0,
        "1772600767",
        1772600767_000,
        "1772600767000000",
        1772600767_000000,
        1772600767_000000_000,
    ],
)
def test_ways_to_write_one_moment(text: Any) -> None:
    assert Record(**ROW, time=text).time == MOMENT


def test_fractions_and_dates_alone() -> None:
    assert Record(**ROW, time="2026-03-04T05:06:07.000250Z").time == MOMENT.replace(microsecond=250)
    assert Record(**ROW, time=1772600767_000250).time == MOMENT.replace(microsecond=250)
    assert Record(**ROW, time="2026-03-04").time == datetime(2026, 3, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["yesterday", "04/03/26", "31 Foo 2026 00:00", [1], {}, True, 1e300, "1e999"]
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_time_that_cannot_be_read_costs_no_row(write: Any, name: str, text: Any) -> None:
    import json

    if name == "a.csv":
        cell = str(text).replace('"', "'")
        path = write("context,response,edit,time", f'c,r,e,"{cell}"', "c,s,e,2026-03-04", name=name)
    else:
        path = write(
            {**ROW, "time": text}, json.dumps({**ROW, "response": "s", "time": "2026-03-04"}), name=name
        )
    log = read_log(path)
    assert [record.response for record in log] == ["r", "s"]
    assert log.records[0].time is None and log.records[1].time is not None
    assert (log.report.times_dropped, log.report.bad_rows) == (1, 0)


def test_a_row_that_is_bad_otherwise_stays_bad(write: Any) -> None:
    log = read_log(write({**ROW, "response": 3, "time": "yesterday"}, ROW), max_bad_share=0.5)
    assert (log.report.times_dropped, log.report.bad_rows) == (0, 1)
