"""Splitting a log into train, validation and test parts, whatever the order of its rows.

The same shares of the same records give the same split, however the records were stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from editloop.edits.record import Context, Record
from editloop.errors import ConfigError, LogError

SplitBy = Literal["context", "record", "user", "time"]


class Split(NamedTuple):
    """The three parts; each keeps the order in which its records were given."""

    train: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]


def split(
    records: Iterable[Record],
    *,
    by: SplitBy = "record",
    validation: float = 0.1,
    test: float = 0.0,
    seed: int = 0,
) -> Split:
    """Split records by their contexts, one by one, by their users, or by their times.

    Shares are of contexts (`context`), records (`record`, `time`) or users (`user`), rounded, and at least
    one if the share is not zero. With too few of them the train part comes first, then validation; too few
    users are an error.

    Args:
        records: The records; by `context` and `record`, their ids decide.
        by: `context`, `record` and `user` split by a seeded hash. By `context`, records of one context stay
            together; where no context repeats, that is the same as by `record`. `time` puts the latest
            records into test and those before them into validation, and ignores the seed.
        validation: The share of the validation part, in [0, 1).
        test: The share of the test part, in [0, 1).
        seed: The seed of the hash.

    Raises:
        ConfigError: Unknown `by`, or the shares leave nothing for train.
        LogError: By user, a record has no user, or there are fewer users than parts. By time, a record has no
            time.
    """
    check_split(by, validation, test)
    records = tuple(records)
    keys = _context_keys(records) if by == "context" else [key_of(record, by) for record in records]
    # The order of the hashes, not that of the rows, so that the same records give the same parts. Keys are
    # split, not records, so that records of one user, or with one id, are in one part.
    ranked = sorted(set(keys), key=None if by == "time" else lambda key: seeded_hash(key, seed))
    n_train, n_validation = part_sizes(len(ranked), by, validation, test)
    part = {key: (i >= n_train) + (i >= n_train + n_validation) for i, key in enumerate(ranked)}
    chosen: tuple[list[Record], ...] = ([], [], [])
    for record, key in zip(records, keys, strict=True):
        chosen[part[key]].append(record)
    return Split(*map(tuple, chosen))


def check_split(by: SplitBy, validation: float, test: float) -> None:
    """Refuse a split that is none.

    Raises:
        ConfigError: Unknown `by`, or the shares leave nothing for train.
    """
    if by not in get_args(SplitBy):
        raise ConfigError("unknown split", seen=by, do=f"split by {', '.join(get_args(SplitBy))}")
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ConfigError(
            "validation and test shares must leave some for train", seen=(validation, test), do="lower them"
        )


def _context_keys(records: Sequence[Record]) -> list[str]:
    """For each record the least id among the records of its context, so that they stay together.

    An id, and not a hash of the context: a log in which no context repeats is then split as by `record`.
    """
    least: dict[Context, str] = {}
    for record in records:
        least[record.context] = min(record.id, least.get(record.context, record.id))
    return [least[record.context] for record in records]


def key_of(record: Record, by: SplitBy) -> str:
    """Return the key that is split: records with equal keys stay together.

    Args:
        record: The record.
        by: Not `context`, whose keys are those of all its records.

    Raises:
        LogError: By user, it has no user; by time, no time.
    """
    if by == "user":
        if record.user is None:
            raise LogError("a record without a user", seen=record.id, do="split by record, or map user")
        return record.user
    if by == "time":
        if record.time is None:
            raise LogError("a record without a time", seen=record.id, do="split by record, or map time")
        # All times are in UTC and have the same length, so the order of the texts is that of the times. The
        # id decides among equal times.
        return f"{record.time.isoformat(timespec='microseconds')} {record.id}"
    return record.id


def seeded_hash(key: str, seed: int) -> bytes:
    """Return the hash of a key by which keys are put in order."""
    return hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest()


def part_sizes(n: int, by: SplitBy, validation: float, test: float) -> tuple[int, int]:
    """Return how many of n keys go to train and to validation; the rest is test.

    Each part that is wanted gets at least one, as long as that leaves one for each part before it.

    Raises:
        LogError: By user, there are fewer users than parts.
    """
    if by == "user" and n < 1 + (validation > 0) + (test > 0):
        raise LogError("fewer users than parts to split into", seen=n, do="split by record")
    n_test = min(max(1, round(test * n)), max(0, n - 1 - (validation > 0))) if test else 0
    n_validation = min(max(1, round(validation * n)), max(0, n - 1 - n_test)) if validation else 0
    return n - n_validation - n_test, n_validation
