"""Hashes of rows, by which a run knows the rows that it was trained on.

Only the content counts: file, order, ids and users do not matter. A run folder keeps these hashes and no
texts: whoever has a row can find out whether it was there, and nobody else learns anything.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from editloop.edits.duplicates import hash64
from editloop.edits.record import Record

__all__ = ["row_hashes"]


def row_hashes(records: Iterable[Record]) -> NDArray[np.uint64]:
    """Return 64 bits of the hash of each record's context, response and edit [n].

    Texts that differ only in white space, or in Unicode's forms of a character, have the same hash. The
    chance that one given row is mistaken for any of a million others is 5 in 10^14.
    """
    return np.array([hash64(_normalised(record)) for record in records], np.uint64)


def _normalised(record: Record) -> str:
    context = record.context
    parts = [context] if isinstance(context, str) else [text for m in context for text in (m.role, m.content)]
    texts = [*parts, record.response, record.edit]
    # A run's rows must be recognised in a copy of its log that another tool has formatted.
    plain = [None if each is None else " ".join(unicodedata.normalize("NFC", each).split()) for each in texts]
    # As a JSON list, which keeps the texts apart: joined, ["a b", "c"] and ["a", "b c"] would be the same.
    return json.dumps(plain, ensure_ascii=False)
