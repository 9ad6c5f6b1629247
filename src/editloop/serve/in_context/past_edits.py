"""A user's past edits, out of the store, and the k of them whose requests are most similar to a new one.

They are read anew for each request, so that what is removed from the store is in no prompt from then on, and
an edit is in the next one. The last `MOST_EDITS` are looked at; their requests are compared in memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from editloop.edits import Context
from editloop.online.features.parts import asked as asked_in
from editloop.serve.in_context.base import LONGEST_REQUEST, PastEdit, shortened
from editloop.serve.in_context.similarity import Similarity
from editloop.serve.loop.logged_text import logged_context, spoken_text
from editloop.store import reads
from editloop.store.database import Connection

__all__ = ["MOST_EDITS", "asked_text", "nearest", "past_edits"]

MOST_EDITS = 200
"""How many of a user's last edits are compared with a request."""

LONGEST_CONTEXT = 20_000
"""The characters of a context, as it is kept, beyond which its edit is not looked at."""


def past_edits(connection: Connection, user: str, longest: int) -> list[PastEdit]:
    """Return a user's last edits, the newest first: of drafts that were kept, changed or not.

    Args:
        connection: To the store.
        user: Whose edits.
        longest: The most characters of a text, and of its request as far as it is shown; an edit that is
            longer has no place in a prompt.
    """
    rows = reads.last_edits(connection, user, MOST_EDITS, longest=longest, context=LONGEST_CONTEXT)
    found = []
    for row in rows:
        asked = asked_in(_context_of(row.context)).text
        edit = PastEdit(row.response_id, row.revision, row.time, asked, row.edit, bool(row.changed))
        if asked.strip() and edit.text.strip():
            found.append(edit)
    return found


def _context_of(text: str) -> Context:
    try:
        return spoken_text(json.loads(text))
    except (ValueError, AttributeError, TypeError):  # written by an earlier version
        return text


def asked_text(messages: Any) -> str:
    """Return what a request asks: the user's last message."""
    return asked_in(spoken_text(logged_context(messages, str))).text


def nearest(
    asked: str, past: Sequence[PastEdit], k: int, similarity: Similarity, *, characters: int
) -> list[PastEdit]:
    """Return past edits of the most similar requests, the most similar first; of equal ones the newest.

    Args:
        asked: What is asked.
        past: The user's past edits.
        k: How many are returned at most. Of two with the same request and the same text one counts.
        similarity: Compares requests.
        characters: The most characters of all of them, with their requests as far as these are shown. An edit
            that would exceed them makes room for the next.
    """
    scores = similarity(asked, [each.asked for each in past])
    by_age = np.argsort([-each.time for each in past], kind="stable")
    # Rounded, so that of requests that are alike the newest comes first, whatever the order of a sum.
    order = by_age[np.argsort(-np.round(scores[by_age], 9), kind="stable")]
    found: dict[tuple[str, str], PastEdit] = {}
    left = characters
    for place in order.tolist():
        edit = past[place]
        length = len(shortened(edit.asked, LONGEST_REQUEST)) + len(edit.text)
        if length <= left and (edit.asked, edit.text) not in found:
            found[edit.asked, edit.text] = edit
            left -= length
        if len(found) == k:
            break
    return list(found.values())
