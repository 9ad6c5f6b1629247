"""The three views: which rows each keeps, and why the others are dropped."""

from __future__ import annotations

import pytest

from editloop.edits import (
    CostObservation,
    Demonstration,
    Preference,
    Record,
    costs,
    get_cost,
    preferences,
    supervision,
)

RECORDS = [
    Record(id="edited", context="c", response="a b", edit="a x"),
    Record(id="accepted", context="c", response="a b", status="accepted"),
    Record(id="deleted", context="c", response="a b", edit=""),
    Record(id="pending", context="c", response="a b"),
    Record(id="expired", context="c", response="a b", status="expired"),
    Record(id="expired too", context="c", response="a b", status="expired"),
]


def test_supervision_keeps_what_was_left_as_it_was() -> None:
    view = supervision(RECORDS)
    assert view.rows == (
        Demonstration("edited", "c", "a x"),
        Demonstration("accepted", "c", "a b"),
        Demonstration("deleted", "c", ""),
    )
    assert view.dropped == {"pending": 1, "expired": 2}


def test_preferences_leave_it_out() -> None:
    view = preferences(RECORDS)
    assert view.rows == (Preference("edited", "c", "a x", "a b"), Preference("deleted", "c", "", "a b"))
    assert view.dropped == {"unedited": 1, "pending": 1, "expired": 2}


def test_costs_never_take_pending_for_zero() -> None:
    view = costs(iter(RECORDS), get_cost())
    assert view.rows == (
        CostObservation("edited", "c", "a b", 0.5),
        CostObservation("accepted", "c", "a b", 0.0),
        CostObservation("deleted", "c", "a b", 1.0),
    )
    assert view.dropped == {"pending": 1, "expired": 2}


@pytest.mark.parametrize("records", [[], RECORDS[1:2], RECORDS[3:], RECORDS])
def test_every_record_is_kept_or_accounted_for(records: list[Record]) -> None:
    for view in (supervision(records), preferences(records), costs(records, get_cost())):
        assert len(view.rows) + view.dropped.total() == len(records)
