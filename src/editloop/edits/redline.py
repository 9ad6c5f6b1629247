"""An edit as people read it: what was kept, deleted and inserted, word by word."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from rapidfuzz.distance import Levenshtein

__all__ = ["Span", "redline"]

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
"""White space, words and single other characters: every character of a text is in exactly one match."""


class Span(NamedTuple):
    """A piece of text that was kept, deleted or inserted."""

    kind: Literal["kept", "deleted", "inserted"]
    text: str


def redline(response: str, edit: str) -> list[Span]:
    """Return an edit as pieces that were kept, deleted and inserted, in reading order.

    The kept and deleted pieces make up the response exactly, and the kept and inserted pieces the edit.
    """
    before, after = _WORDS.findall(response), _WORDS.findall(edit)
    spans: list[Span] = []
    # Compared by words, not by characters: "Dear" and "Hi Ada" share letters, but nobody kept those.
    for op in Levenshtein.opcodes(before, after):
        old = "".join(before[op.src_start : op.src_end])
        new = "".join(after[op.dest_start : op.dest_end])
        spans += [Span("kept", old)] if op.tag == "equal" else _change(old, new)
    return _tidy(spans)


def _tidy(spans: list[Span]) -> list[Span]:
    """Join changes that have only white space between them, with the deletion first.

    Two words that were replaced by two others are read as one change. The kept white space between them is
    then both deleted and inserted, so that the pieces still make up both texts.
    """
    tidy: list[Span] = []
    deleted = inserted = ""
    for i, span in enumerate(spans):
        following = spans[i + 1].kind if i + 1 < len(spans) else "kept"
        if span.kind == "deleted":
            deleted += span.text
        elif span.kind == "inserted":
            inserted += span.text
        elif span.text.isspace() and (deleted or inserted) and following != "kept":
            deleted, inserted = deleted + span.text, inserted + span.text
        else:
            tidy += _change(deleted, inserted)
            tidy.append(span)
            deleted = inserted = ""
    return tidy + _change(deleted, inserted)


def _change(deleted: str, inserted: str) -> list[Span]:
    spans = []
    if deleted:
        spans.append(Span("deleted", deleted))
    if inserted:
        spans.append(Span("inserted", inserted))
    return spans
