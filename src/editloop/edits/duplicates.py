"""Whether a row was in the log before, in 16 to 32 bytes per row, and as many again for a row with an id.

Logs are streamed and may be larger than the memory, so 64-bit hashes are kept instead of the rows. By the
birthday bound, n² / 2 / 2^64, the chance that any two of a million different rows have one hash is 3 in 10^8.
Where it is known which rows may be repeated (`on_disk.py`), only theirs are kept.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from editloop.edits.record import Record, fingerprint


class HashSet:
    """A set of 64-bit hashes in 16 to 32 bytes each, a fifth of what a Python set of integers takes.

    It is an open-addressing table: a flat array whose length is a power of two, at most half full. The low
    bits of a key are its first place, which is good only for keys that are hashes. 0 marks a free place.
    """

    def __init__(self) -> None:
        self._size = 0
        self._places = array("Q", bytes(8 * 1024))

    def __len__(self) -> int:
        return self._size

    def add(self, key: int) -> bool:
        """Add a key below 2^64 and return whether it is new."""
        key = key or 1  # 0 is taken by the mark; that it equals 1 is one more collision in 2^64
        place = self._place(key)
        if self._places[place]:
            return False
        self._places[place] = key
        self._size += 1
        if 2 * self._size > len(self._places):
            keys, self._places = self._places, array("Q", bytes(16 * len(self._places)))
            for each in keys:
                if each:
                    self._places[self._place(each)] = each
        return True

    def __contains__(self, key: int) -> bool:
        return self._places[self._place(key or 1)] != 0

    def _place(self, key: int) -> int:
        """Return where the key is, or the free place where it belongs."""
        # Linear probing ends, because half of the places are free. Nothing is ever removed, so a free place
        # means that the key is not there.
        places = self._places
        mask = len(places) - 1
        place = key & mask
        while places[place] not in (0, key):
            place = (place + 1) & mask
        return place


def hash64(text: str) -> int:
    """Return 64 bits of a text's hash. Unlike `hash`, it is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class Suspects:
    """The rows whose content or id another row may have, too: a bit for each row of the log.

    Only these have to be compared with each other. A row that is not among them is new.
    """

    def __init__(self, rows: int) -> None:
        self._bits = np.zeros(rows // 8 + 1, np.uint8)

    def add(self, rows: NDArray[np.int64]) -> None:
        """Mark rows, by their numbers from 0."""
        np.bitwise_or.at(self._bits, rows >> 3, (1 << (rows & 7)).astype(np.uint8))

    def __contains__(self, row: int) -> bool:
        return bool(self._bits[row >> 3] >> (row & 7) & 1)


class Duplicates:
    """The rows of a log that were seen so far: their contents, and the ids that came with them.

    Args:
        suspects: The numbers of the rows, from 0, that may have the content or the id of another one; None if
            any row may.
    """

    def __init__(self, suspects: Suspects | None = None) -> None:
        self._suspects = suspects
        self._contents = HashSet()
        self._ids = HashSet()

    def see(self, record: Record, row: int = 0) -> Literal["new", "duplicate", "conflict"]:
        """Add a record, and return whether it is new, an exact duplicate, or in conflict.

        In a conflict, an earlier record with other content has the same id. The record is not added then, so
        that a later record with the same content is still new.

        Args:
            record: The record.
            row: The number of its row.
        """
        if self._suspects is not None and row not in self._suspects:
            return "new"
        content = fingerprint(record)
        key = int(content[:16], 16)
        if key in self._contents:
            return "duplicate"
        # A derived id is the fingerprint itself, which was just found to be new; it need not be remembered.
        if record.id != content and not self._ids.add(hash64(record.id)):
            return "conflict"
        self._contents.add(key)
        return "new"
