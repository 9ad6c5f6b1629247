"""Splits: sizes, disjointness, and independence of the order of rows."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.edits import Record, split
from editloop.errors import ConfigError, LogError


def records(n: int, **each: Any) -> list[Record]:
    return [Record(context="c", response=f"r{i}", user=f"u{i % 7}", time=i * 60, **each) for i in range(n)]


def sizes(*args: Any, **kwargs: Any) -> tuple[int, ...]:
    return tuple(map(len, split(*args, **kwargs)))


@pytest.mark.parametrize(
    ("n", "validation", "test", "expected"),
    [
        (100, 0.1, 0.0, (90, 10, 0)),
        (100, 0.1, 0.2, (70, 10, 20)),
        (1, 0.1, 0.1, (1, 0, 0)),  # train first,
        (2, 0.1, 0.1, (1, 1, 0)),  # then validation,
        (3, 0.1, 0.1, (1, 1, 1)),  # and none empty as soon as that can be
        (3, 0.5, 0.4, (1, 1, 1)),
        (5, 0.0, 0.0, (5, 0, 0)),
        (0, 0.1, 0.1, (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("by", ["record", "time"])
def test_sizes(n: int, validation: float, test: float, expected: tuple[int, ...], by: Any) -> None:
    assert sizes(records(n), by=by, validation=validation, test=test) == expected


@given(
    st.integers(0, 40),
    st.floats(0, 0.49),
    st.floats(0, 0.5),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_every_record_is_in_one_part_whatever_the_order(
    n: int, validation: float, test: float, seed: int, shuffle: random.Random
) -> None:
    log = records(n)
    parts = split(log, validation=validation, test=test, seed=seed)
    assert sorted(r.id for part in parts for r in part) == sorted(r.id for r in log)
    assert all([r for r in log if r in part] == list(part) for part in parts)  # in the order given
    shuffled = log.copy()
    shuffle.shuffle(shuffled)
    again = split(shuffled, validation=validation, test=test, seed=seed)
    assert [{r.id for r in part} for part in parts] == [{r.id for r in part} for part in again]


def test_another_seed_is_another_split() -> None:
    log = records(100)
    assert {r.id for r in split(log, seed=0).validation} != {r.id for r in split(log, seed=1).validation}


def test_contexts_stay_together_and_without_repeats_it_is_the_split_by_record() -> None:
    chats = [[{"role": "user", "content": f"c{i % 20}"}] for i in range(60)]
    log = [Record(context=chat, response=f"r{i}") for i, chat in enumerate(chats)]
    parts = split(log, by="context", validation=0.2, test=0.1)
    contexts = [{r.context for r in part} for part in parts]
    assert [len(each) for each in contexts] == [14, 4, 2]
    assert len(set.union(*contexts)) == 20
    assert [len(part) for part in parts] == [42, 12, 6]
    unique = [Record(context=f"c{i}", response="r") for i in range(60)]
    assert split(unique, by="context", validation=0.2) == split(unique, by="record", validation=0.2)


def test_users_stay_together() -> None:
    parts = split(records(70), by="user", validation=0.2, test=0.2)
    users = [{r.user for r in part} for part in parts]
    assert [len(each) for each in users] == [5, 1, 1]
    assert len(set.union(*users)) == 7
    assert [len(part) for part in parts] == [50, 10, 10]


def test_the_latest_are_the_test() -> None:
    log = records(10)
    random.Random(0).shuffle(log)
    train, validation, test = split(log, by="time", validation=0.2, test=0.3)

    def minutes(part: tuple[Record, ...]) -> list[float]:
        return sorted(r.time.timestamp() / 60 for r in part if r.time is not None)

    assert minutes(train) == [0, 1, 2, 3, 4]
    assert minutes(validation) == [5, 6]
    assert minutes(test) == [7, 8, 9]


def test_what_cannot_be_split_says_so() -> None:
    nobody = [Record(context="c", response="r")]
    with pytest.raises(LogError, match="without a user"):
        split(nobody, by="user")
    with pytest.raises(LogError, match="without a time"):
        split(nobody, by="time")
    with pytest.raises(LogError, match="fewer users than parts"):
        split([r for r in records(10) if r.user == "u1"], by="user", validation=0.1)
    with pytest.raises(ConfigError, match="unknown split: 'week'"):
        split(records(3), by="week")  # type: ignore[arg-type]
    for validation, test in [(0.5, 0.5), (1.0, 0.0), (-0.1, 0.0)]:
        with pytest.raises(ConfigError, match="leave some for train"):
            split(records(3), validation=validation, test=test)
