"""Which units of a draft an edit kept, replaced, deleted and inserted: the alignment itself, not its counts.

`align` computes the counts only, which is many times faster. Where several alignments cost the same, the one
that is shown is chosen here: what both texts begin and end with is kept, and in between a unit is kept, else
replaced, else deleted, else inserted, decided from the end. The dashboard's `redline.js` does the same for a
text that is being typed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["INVERSE_WEIGHT", "Step", "Weights", "alignment_steps", "alignment_weights"]

INVERSE_WEIGHT = 4
"""1 / w: how many inserted units weigh as much as one that was taken away."""

MOST_CELLS = 4_000_000
"""The most cells of a table of distances, 32 MB; longer texts are halved first."""

Ids = NDArray[np.int64]

Weights = tuple[int, int, int]
"""What an insertion, a deletion and a replacement weigh."""


class Step(NamedTuple):
    """One step of an alignment.

    Attributes:
        response: The place of the unit in the draft; None for an inserted one.
        edit: The place of the unit in the edit; None for a deleted one.
        kept: Whether both are the same unit.
    """

    response: int | None
    edit: int | None
    kept: bool = False


def alignment_weights(shorter: int) -> Weights:
    """Return the weights of the alignment cost, in whole numbers.

    An insertion weighs a quarter of the others. Each weight is multiplied by more than the number of
    replacements S can be, and a replacement weighs 1 more: the least total T then also has the least S, and
    one number holds both, T M + S.

    Args:
        shorter: The length of the shorter sequence.
    """
    above = shorter + 1
    return above, INVERSE_WEIGHT * above, INVERSE_WEIGHT * above + 1


def alignment_steps(
    response: Sequence[Any], edit: Sequence[Any], weights: Weights | None = None
) -> list[Step]:
    """Return the steps of the alignment that weighs least, in reading order.

    Args:
        response: The units of the draft.
        edit: The units of the edit.
        weights: What the steps weigh; by default as in the alignment cost, which is what is taken away.
    """
    ids: dict[Any, int] = {}
    draft, text = (
        np.array([ids.setdefault(unit, len(ids)) for unit in side], np.int64) for side in (response, edit)
    )
    shorter = min(len(draft), len(text))
    differs = np.flatnonzero(draft[:shorter] != text[:shorter])
    start = int(differs[0]) if len(differs) else shorter
    rest = shorter - start
    differs = np.flatnonzero(draft[::-1][:rest] != text[::-1][:rest])
    end = int(differs[0]) if len(differs) else rest
    middle = _steps(
        draft[start : len(draft) - end],
        text[start : len(text) - end],
        weights or alignment_weights(shorter),
    )
    return [
        *(Step(i, i, kept=True) for i in range(start)),
        *_moved(middle, start, start),
        *(Step(len(draft) - i, len(text) - i, kept=True) for i in range(end, 0, -1)),
    ]


def _steps(draft: Ids, text: Ids, weights: Weights) -> list[Step]:
    """Return the steps between two sequences, by one table, or by halves if that would be too large."""
    if (len(draft) + 1) * (len(text) + 1) <= MOST_CELLS or len(draft) < 2:
        return _traced(draft, text, weights)
    # Hirschberg 1975: the best place to cut the edit, for a cut of the draft in its middle, is where the
    # distances of both halves add up to the least.
    half = len(draft) // 2
    (before,) = deque(_rows(draft[:half], text, weights), maxlen=1)
    (after,) = deque(_rows(draft[half:][::-1], text[::-1], weights), maxlen=1)
    cut = int(np.argmin(before + after[::-1]))
    return [
        *_steps(draft[:half], text[:cut], weights),
        *_moved(_steps(draft[half:], text[cut:], weights), half, cut),
    ]


def _rows(draft: Ids, text: Ids, weights: Weights) -> Iterator[Ids]:
    """Yield the rows i of the table: the distances of the first i units and the first j, int64 [|y'| + 1]."""
    insertion, deletion, replacement = weights
    inserted = insertion * np.arange(len(text) + 1)
    row = inserted
    yield row
    for unit in draft:
        by_pair = row[:-1] + np.where(text == unit, 0, replacement)
        below = row + deletion
        below[1:] = np.minimum(below[1:], by_pair)
        # An insertion continues its own row. What a cell costs without the insertions before it, at the least
        # over all cells to its left, is one running minimum.
        row = np.minimum.accumulate(below - inserted) + inserted
        yield row


def _traced(draft: Ids, text: Ids, weights: Weights) -> list[Step]:
    """Return the steps by the whole table, from its last cell back to its first."""
    _, deletion, replacement = weights
    table = list(_rows(draft, text, weights))
    steps = []
    i, j = len(draft), len(text)
    while i or j:
        here = table[i][j]
        same = bool(i and j and draft[i - 1] == text[j - 1])
        if i and j and here == table[i - 1][j - 1] + (0 if same else replacement):
            i, j = i - 1, j - 1
            steps.append(Step(i, j, kept=same))
        elif i and here == table[i - 1][j] + deletion:
            i -= 1
            steps.append(Step(i, None))
        else:
            j -= 1
            steps.append(Step(None, j))
    return steps[::-1]


def _moved(steps: list[Step], response: int, edit: int) -> list[Step]:
    """Return the steps of a part, with places in the whole texts."""
    return [
        Step(None if i is None else i + response, None if j is None else j + edit, kept)
        for i, j, kept in steps
    ]
