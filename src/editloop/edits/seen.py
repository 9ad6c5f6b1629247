"""Which rows of a log were seen before, told by what they say: whatever file, order, ids or users they have.

Only hashes are kept. They tell whether a row that one has was there, and nothing of a row that one has not.
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
    """64 bits of the hash of each record's context, response and edit [n].

    Texts that differ in white space or in Unicode's forms of a character alone are the same. The chance that
    one row of a million is taken for any of another million by mistake is 5 in 10^8.
    """
    return np.array([hash64(_normalised(record)) for record in records], np.uint64)


def _normalised(record: Record) -> str:
    context = record.context
    parts = [context] if isinstance(context, str) else [text for m in context for text in (m.role, m.content)]
    texts = [*parts, record.response, record.edit]
    plain = [None if each is None else " ".join(unicodedata.normalize("NFC", each).split()) for each in texts]
    return json.dumps(plain, ensure_ascii=False)
