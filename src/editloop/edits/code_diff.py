"""An edit of code as programmers read it: line by line, with what changed within a line marked.

The words of a redline run through a paragraph, and in code they hide what people look at: which lines are
others, and how far they are indented. A text that reads as code is therefore shown by lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from editloop.edits.redline import Span

__all__ = ["DiffLine", "diff_lines", "reads_as_code"]

_TOKENS = re.compile(r"\s+|\w+|[^\w\s]")
_CODE_LINE = re.compile(r"^(\s{2,}|\t)\S|[:;{}(\[,]\s*$|^\s*[)}\]]+[;,]?\s*$")
"""A line that is indented, or ends as lines of code do, or only closes what another one opened."""

ALIKE = 0.5
"""How alike two lines are at least that are shown as one that changed, from 0 to 1."""

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
    for tag, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            found += [DiffLine("kept", [Span("kept", line)]) for line in before[a:b]]
        else:
            found += _changed(before[a:b], after[c:d])
    return found


def _changed(before: Sequence[str], after: Sequence[str]) -> Iterator[DiffLine]:
    """Lines that were replaced by others; those that are alike are compared token by token."""
    old = [[Span("deleted", line)] for line in before]
    new = [[Span("inserted", line)] for line in after]
    start = 0
    for i, line in enumerate(before):
        ratios = [SequenceMatcher(None, line, other, autojunk=False).ratio() for other in after[start:]]
        best = max(range(len(ratios)), key=ratios.__getitem__, default=0)
        if ratios and ratios[best] >= ALIKE:
            j = start + best
            old[i], new[j] = _within(line, after[j])
            start = j + 1
    yield from (DiffLine("deleted", spans) for spans in old)
    yield from (DiffLine("inserted", spans) for spans in new)


def _within(line: str, other: str) -> tuple[list[Span], list[Span]]:
    """The pieces of two lines that are alike, each with what is not in the other one."""
    x, y = _TOKENS.findall(line), _TOKENS.findall(other)
    old: list[Span] = []
    new: list[Span] = []
    for tag, a, b, c, d in SequenceMatcher(None, x, y, autojunk=False).get_opcodes():
        if tag == "equal":
            old.append(Span("kept", "".join(x[a:b])))
            new.append(Span("kept", "".join(y[c:d])))
            continue
        if a < b:
            old.append(Span("deleted", "".join(x[a:b])))
        if c < d:
            new.append(Span("inserted", "".join(y[c:d])))
    return old, new
