"""An edit as people read it: what was kept, deleted and inserted, word by word.

The words are those that the cost counts, and they are aligned as in the cost (`alignment_steps`): a replaced
word is shown as deleted, with its replacement inserted.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from editloop.edits.cost.alignment import Alignment, align
from editloop.edits.cost.steps import alignment_steps

__all__ = ["Span", "count_changes", "redline"]

_WORDS = re.compile(r"\s*\S+")
"""A word with the white space before it."""


class Span(NamedTuple):
    """A piece of text that was kept, deleted or inserted."""

    kind: Literal["kept", "deleted", "inserted"]
    text: str


def count_changes(response: str, edit: str) -> Alignment:
    """Return how many words an edit kept, replaced, deleted and inserted: those that `redline` shows."""
    return align(response.split(), edit.split())


def redline(response: str, edit: str) -> list[Span]:
    """Return an edit as pieces that were kept, deleted and inserted, in reading order.

    The kept and deleted pieces make up the response exactly, and the kept and inserted pieces the edit.
    """
    before, after = _WORDS.findall(response), _WORDS.findall(edit)
    spans: list[Span] = []
    for step in alignment_steps(response.split(), edit.split()):
        old = "" if step.response is None else before[step.response]
        new = "" if step.edit is None else after[step.edit]
        spans += _paired(old, new, step.kept) if old and new else _change(old, new)
    # White space after the last word is of no word.
    ends = response[sum(map(len, before)) :], edit[sum(map(len, after)) :]
    return _tidy([*spans, *_same(*ends)])


def _paired(old: str, new: str, kept: bool) -> list[Span]:
    """Return the spans of a word that was kept or replaced, and of the white space before both."""
    old_word, new_word = old.lstrip(), new.lstrip()
    gap = _same(old.removesuffix(old_word), new.removesuffix(new_word))
    return [*gap, *([Span("kept", old_word)] if kept else _change(old_word, new_word))]


def _same(old: str, new: str) -> list[Span]:
    """Return white space as kept if it is the same on both sides; the cost does not count it otherwise."""
    if old == new:
        return [Span("kept", old)] if old else []
    return _change(old, new)


def _tidy(spans: list[Span]) -> list[Span]:
    """Join pieces of one kind, and changes that have only white space between them, with the deletion first.

    Two words that were replaced by two others are read as one change. The kept white space between them is
    then both deleted and inserted, so that the pieces still make up both texts.
    """
    tidy: list[Span] = []
    kept = deleted = inserted = ""
    for i, span in enumerate(spans):
        following = spans[i + 1].kind if i + 1 < len(spans) else "kept"
        if span.kind == "deleted":
            deleted += span.text
        elif span.kind == "inserted":
            inserted += span.text
        elif span.text.isspace() and (deleted or inserted) and following != "kept":
            deleted, inserted = deleted + span.text, inserted + span.text
        else:
            if deleted or inserted:
                tidy += [*_kept(kept), *_change(deleted, inserted)]
                kept = deleted = inserted = ""
            kept += span.text
    return [*tidy, *_kept(kept), *_change(deleted, inserted)]


def _kept(text: str) -> list[Span]:
    return [Span("kept", text)] if text else []


def _change(deleted: str, inserted: str) -> list[Span]:
    spans = []
    if deleted:
        spans.append(Span("deleted", deleted))
    if inserted:
        spans.append(Span("inserted", inserted))
    return spans
