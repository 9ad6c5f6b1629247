"""Which rows of a log were seen before, by their content: file, order, ids and users do not matter.

Only hashes are kept. With a row in hand they show whether it was there; without it they reveal nothing.
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

    Texts that differ only in white space, or in Unicode's forms of a character, are the same. The chance
    that one given row is mistaken for any of a million others is 5 in 10^14.
    """
    return np.array([hash64(_normalised(record)) for record in records], np.uint64)


def _normalised(record: Record) -> str:
    context = record.context
    parts = [context] if isinstance(context, str) else [text for m in context for text in (m.role, m.content)]
    texts = [*parts, record.response, record.edit]
    plain = [None if each is None else " ".join(unicodedata.normalize("NFC", each).split()) for each in texts]
    return json.dumps(plain, ensure_ascii=False)
