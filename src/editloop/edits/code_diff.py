"""An edit of code as programmers read it: line by line, with what changed within a line marked.

The words of a redline run through a paragraph, and in code they hide what people look at: which lines are
others, and how far they are indented. A text that reads as code is therefore shown by lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from rapidfuzz.distance import Indel

from editloop.edits.redline import Span

__all__ = ["DiffLine", "diff_lines", "reads_as_code"]

_TOKENS = re.compile(r"\s+|\w+|[^\w\s]")
_CODE_LINE = re.compile(r"^(\s{2,}|\t)\S|[:;{}(\[,]\s*$|^\s*[)}\]]+[;,]?\s*$")
"""A line that is indented, or ends as lines of code do, or only closes what another one opened."""

ALIKE = 0.5
"""How alike two lines are at least that are shown as one that changed, from 0 to 1."""

MOST_PAIRS = 10_000
"""Pairs of lines in a block above which no line in it is compared with another one."""

LONGEST = 2000
"""Lines of a text above which it is not compared line by line, for which the time grows with their square."""


class DiffLine(NamedTuple):
    """A line of a diff.

    Attributes:
        kind: Whether the line stands in both texts, in the response alone, or in the edit alone.
        spans: Its pieces; in a line that was changed, those that are not in its counterpart have its `kind`.
    """

    kind: Literal["kept", "deleted", "inserted"]
    spans: list[Span]

    @property
    def text(self) -> str:
        """The line, without its end."""
        return "".join(span.text for span in self.spans)


def reads_as_code(text: str) -> bool:
    """Return whether a text reads as code: it has lines, and most of them look like those of a program."""
    lines = [line for line in text.splitlines() if line.strip()]
    return len(lines) > 1 and sum(bool(_CODE_LINE.search(line)) for line in lines) > len(lines) / 2


def diff_lines(response: str, edit: str) -> list[DiffLine] | None:
    """Return an edit of code line by line, in reading order; None if it does not read as code.

    The kept and deleted lines are those of the response, the kept and inserted ones those of the edit.
    """
    if not (reads_as_code(response) or reads_as_code(edit)):
        return None
    before, after = response.split("\n"), edit.split("\n")
    if max(len(before), len(after)) > LONGEST:
        return None
    found: list[DiffLine] = []
    for kept, removed, added in _blocks(before, after):
        found += [DiffLine("kept", [Span("kept", line)]) for line in kept]
        found += _changed(removed, added)
    return found


def _blocks(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """What two sequences have in common, each piece with what follows it in only one of them."""
    kept, removed, added = list[str](), list[str](), list[str]()
    for step in Indel.opcodes(before, after):
        if step.tag == "equal":
            if removed or added:
                yield kept, removed, added
                kept, removed, added = [], [], []
            kept += before[step.src_start : step.src_end]
        else:
            removed += before[step.src_start : step.src_end]
            added += after[step.dest_start : step.dest_end]
    yield kept, removed, added


def _changed(before: Sequence[str], after: Sequence[str]) -> Iterator[DiffLine]:
    """Lines that were replaced by others; those that are alike are compared token by token."""
    old = [[Span("deleted", line)] for line in before]
    new = [[Span("inserted", line)] for line in after]
    start = 0
    for i, line in enumerate(before if len(before) * len(after) <= MOST_PAIRS else ()):
        ratios = [Indel.normalized_similarity(line, other) for other in after[start:]]
        best = max(range(len(ratios)), key=ratios.__getitem__, default=0)
        if ratios and ratios[best] >= ALIKE:
            j = start + best
            old[i], new[j] = _within(line, after[j])
            start = j + 1
    yield from (DiffLine("deleted", spans) for spans in old)
    yield from (DiffLine("inserted", spans) for spans in new)


def _within(line: str, other: str) -> tuple[list[Span], list[Span]]:
    """The pieces of two lines that are alike, each with what is not in the other one."""
    old: list[Span] = []
    new: list[Span] = []
    for kept, removed, added in _blocks(_TOKENS.findall(line), _TOKENS.findall(other)):
        if kept:
            old.append(Span("kept", "".join(kept)))
            new.append(Span("kept", "".join(kept)))
        if removed:
            old.append(Span("deleted", "".join(removed)))
        if added:
            new.append(Span("inserted", "".join(added)))
    return old, new
