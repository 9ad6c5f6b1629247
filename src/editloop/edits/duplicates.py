"""Whether a row was in the log before, from 16 to 32 bytes per row, and as many for an id of its own.

Two sets of 64-bit hashes instead of the rows themselves: with a million rows the chance that any two
different ones are taken for the same is 3 in 10^8.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import Literal

from editloop.edits.record import Record, fingerprint


class HashSet:
    """A set of 64-bit integers in at most 32 bytes each, a fifth of what a Python set of them takes.

    Open addressing over a flat array, at most half full; 0 marks a free place.
    """

    def __init__(self) -> None:
        self._size = 0
        self._places = array("Q", bytes(8 * 1024))

    def __len__(self) -> int:
        return self._size

    def add(self, key: int) -> bool:
        """Add a key below 2^64 and return whether it is new."""
        key = key or 1
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
        places = self._places
        mask = len(places) - 1
        place = key & mask
        while places[place] not in (0, key):
            place = (place + 1) & mask
        return place


def hash64(text: str) -> int:
    """Return 64 bits of a text's hash, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class Duplicates:
    """What was seen of a log so far: contents, and the ids that the rows brought along."""

    def __init__(self) -> None:
        self._contents = HashSet()
        self._ids = HashSet()

    def see(self, record: Record) -> Literal["new", "duplicate", "conflict"]:
        """Add a record: new, an exact duplicate, or in `conflict`: its id belongs to other content.

        A conflict is not added, so that a later record with the same content is still new.
        """
        content = fingerprint(record)
        key = int(content[:16], 16)
        if key in self._contents:
            return "duplicate"
        if record.id != content and not self._ids.add(hash64(record.id)):
            return "conflict"
        self._contents.add(key)
        return "new"
