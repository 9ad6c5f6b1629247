"""Of all autopilots of a store one acts at a time, whatever the clocks say."""

from __future__ import annotations

import pytest

from editloop.autopilot.lease import Lease
from editloop.errors import AutopilotError
from editloop.store import Store


@pytest.fixture
def store(tmp_path):
    opened = Store(str(tmp_path / "edits.db"))
    opened.open(claim=False)
    yield opened
    opened.close()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_second_one_waits_until_the_first_one_is_silent(store):
    clock = Clock()
    first, second = Lease(store, clock=clock, seconds=30), Lease(store, clock=clock, seconds=30)
    assert first.take() and not second.take()
    clock.now = 29
    assert first.take()  # it counts up
    clock.now = 58
    assert not second.take()  # what it sees is new, and its own clock begins here
    clock.now = 87
    assert not second.take()
    clock.now = 89
    assert second.take() and not first.take()


def test_who_lost_the_lease_writes_nothing(store):
    clock = Clock()
    first, second = Lease(store, clock=clock, seconds=5), Lease(store, clock=clock, seconds=5)
    first.take()
    second.take()
    clock.now = 6
    assert second.take()
    with store.transaction() as connection:
        second.check(connection)
        with pytest.raises(AutopilotError, match="another autopilot"):
            first.check(connection)


def test_a_released_lease_is_taken_at_once(store):
    first, second = Lease(store), Lease(store)
    assert first.take()
    second.release()  # it is not its own
    assert not second.take()
    first.release()
    assert second.take()
