"""An edit as people read it: what was kept, deleted and inserted, unit by unit.

The units are those that a cost counts, and they are aligned as in the cost (`Breakdown`): a replaced unit is
shown as deleted, with its replacement inserted. Without a breakdown they are the words, aligned as in the
default cost.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from editloop.edits.cost.alignment import align
from editloop.edits.cost.breakdown import Alignment, Breakdown
from editloop.edits.cost.steps import alignment_steps
from editloop.edits.cost.units import in_pieces

__all__ = ["Span", "count_changes", "redline"]


class Span(NamedTuple):
    """A piece of text that was kept, deleted or inserted."""

    kind: Literal["kept", "deleted", "inserted"]
    text: str


def count_changes(response: str, edit: str) -> Alignment:
    """Return how many words an edit kept, replaced, deleted and inserted: those that `redline` shows."""
    return align(response.split(), edit.split())


def redline(response: str, edit: str, breakdown: Breakdown | None = None) -> list[Span]:
    """Return an edit as pieces that were kept, deleted and inserted, in reading order.

    The kept and deleted pieces make up the response exactly, and the kept and inserted pieces the edit.

    Args:
        response: The draft.
        edit: What the user left.
        breakdown: Of the cost of this edit; None for the words. Of a cost that counts the policy's tokens,
            whose places in the text are not known, the words are shown, too.
    """
    unit = "word" if breakdown is None else breakdown.unit
    before, after = in_pieces(response, unit), in_pieces(edit, unit)
    if before is None or after is None:
        return redline(response, edit)
    steps = alignment_steps(before.units, after.units) if breakdown is None else breakdown.steps
    pieces: list[_Piece] = []
    for step in steps:
        gaps = [
            "" if i is None else side.gaps[i] for i, side in ((step.response, before), (step.edit, after))
        ]
        old = "" if step.response is None else before.units[step.response]
        new = "" if step.edit is None else after.units[step.edit]
        if old and new:
            pieces += [*_gap(*gaps), *([_Piece("kept", old)] if step.kept else _change(old, new))]
        else:
            pieces += _change(gaps[0] + old, gaps[1] + new)
    return _tidy([*pieces, *_gap(before.end, after.end)])


class _Piece(NamedTuple):
    kind: Literal["kept", "deleted", "inserted"]
    text: str
    is_gap: bool = False


def _gap(old: str, new: str) -> list[_Piece]:
    """Return white space as kept if it is the same on both sides; the cost does not count it otherwise."""
    if old == new:
        return [_Piece("kept", old, is_gap=True)] if old else []
    return _change(old, new)


def _tidy(pieces: list[_Piece]) -> list[Span]:
    """Join pieces of one kind, and changes that have only a gap between them, with the deletion first.

    Two words that were replaced by two others are read as one change. The kept white space between them is
    then both deleted and inserted, so that the pieces still make up both texts.
    """
    tidy: list[Span] = []
    kept = deleted = inserted = ""
    for i, piece in enumerate(pieces):
        following = pieces[i + 1].kind if i + 1 < len(pieces) else "kept"
        if piece.kind == "deleted":
            deleted += piece.text
        elif piece.kind == "inserted":
            inserted += piece.text
        elif piece.is_gap and (deleted or inserted) and following != "kept":
            deleted, inserted = deleted + piece.text, inserted + piece.text
        else:
            if deleted or inserted:
                tidy += _spans(kept, deleted, inserted)
                kept = deleted = inserted = ""
            kept += piece.text
    return [*tidy, *_spans(kept, deleted, inserted)]


def _spans(kept: str, deleted: str, inserted: str) -> list[Span]:
    changed = [Span(piece.kind, piece.text) for piece in _change(deleted, inserted)]
    return [Span("kept", kept), *changed] if kept else changed


def _change(deleted: str, inserted: str) -> list[_Piece]:
    found = [_Piece("deleted", deleted), _Piece("inserted", inserted)]
    return [piece for piece in found if piece.text]
