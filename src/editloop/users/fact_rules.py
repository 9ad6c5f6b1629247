"""Rules about what a text says: that it states the notes, in few sentences, and nothing that is not in them.

They know a fact by its words alone: a sentence states a fact if all of the fact's words are in it. See
`text_rules.py` for what all rules have in common.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from editloop.users.text_rules import Facts, Rule, join_parts, leave_out, sentences, split_parts

__all__ = ["Stated", "at_most", "keeps_to", "listed", "right_facts", "states", "without_inventions"]

Stated = tuple[str, ...]
"""The names of facts that one sentence states together, such as `("first", "first_state")`."""

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# Numbers, addresses, placeholders, and times that are relative to a day which the notes do not name.
_MADE_UP = re.compile(
    r"[\d@\[]|https?:|\b(?:today|tomorrow|yesterday|tonight|(?:next|last|this) (?:week|month|year))\b", re.I
)

_OWN_WORDS = {"I", "Alex"}
"""Capitalised words that need not be in the notes."""


def right_facts(text: str, facts: Facts) -> str:
    """Placeholders are filled, and the weekday is the one that the context names."""
    if "name" in facts:
        text = re.sub(r"\[(?:recipient|first|their)?(?:'s)? ?name\]", facts["name"], text, flags=re.I)
    text = re.sub(r"\[(?:your|my|sender)(?:'s)? ?(?:full )?name\]", "Alex", text, flags=re.I)
    if "day" in facts:
        text = re.sub(rf"\b(?:{'|'.join(_DAYS)})\b", facts["day"], text)
    return text


def without_inventions(text: str, facts: Facts) -> str:
    """No sentence has a number, a name or a date that the notes do not have; one that does is left out."""
    known = _OWN_WORDS | {word for value in facts.values() for word in re.findall(r"\w+", value)}

    def invented(sentence: str) -> bool:
        # The first word, and that after a colon or a quotation mark, has a capital whatever it is. "I'm" and
        # "Ada's" are I and Ada.
        names = re.findall(r"\b[A-Z]\w*", re.sub(r"(?:\A|[:\"])\W*\w+", "", sentence))
        return _MADE_UP.search(sentence) is not None or not known.issuperset(names)

    return leave_out(text, invented)


def keeps_to(*notes: Stated, also: Collection[str] = ()) -> Rule:
    """Each sentence states one of the notes at least, or is among `also`; one that does not is left out."""

    def apply(text: str, facts: Facts) -> str:
        def unwanted(sentence: str) -> bool:
            return sentence not in also and not any(_is_in(sentence, each, facts) for each in notes)

        return leave_out(text, unwanted)

    return apply


def states(note: Stated, sentence: str, *, first: bool = False) -> Rule:
    """Some sentence states this note; if none does, one is added, at the end or as the first."""

    def apply(text: str, facts: Facts) -> str:
        start, body, end = split_parts(text)
        if any(_is_in(each, note, facts) for each in sentences(body)):
            return text
        added, body = sentence.format_map(facts), body.rstrip()
        if not body:
            return join_parts(start, added, end)
        if first:
            return join_parts(
                start, added + ("\n" if body.startswith("- ") or added.endswith(":") else " ") + body, end
            )
        # A sentence that follows a list, or a line without an end mark, stands on a line of its own.
        apart = body.rpartition("\n")[2].startswith("- ") or body[-1].isalnum()
        return join_parts(start, body + ("\n" if apart else " ") + added, end)

    return apply


def listed(*items: tuple[Stated, str]) -> Rule:
    """These notes are a list, in place of the sentences that state one of them.

    Args:
        items: For each item the note that it states, and its form, such as `- {first}: {first_state}`.
    """

    def apply(text: str, facts: Facts) -> str:
        lines = [form.format_map(facts) for _, form in items]
        if set(lines) <= {line.strip() for line in text.split("\n")}:
            return text
        start, body, end = split_parts(text)
        pieces = sentences(body)
        stated = [any(_is_in(piece, note, facts) for note, _ in items) for piece in pieces]
        place = stated.index(True) if True in stated else len(pieces)
        before, after = (
            "".join(piece for piece, out in zip(part, outs, strict=True) if not out)
            for part, outs in ((pieces[:place], stated[:place]), (pieces[place:], stated[place:]))
        )
        parts = (before.rstrip(), "\n".join(lines), after.lstrip())
        return join_parts(start, "\n".join(part for part in parts if part), end)

    return apply


def at_most(count: int, *notes: Stated) -> Rule:
    """Between greeting and closing there are at most so many sentences, and those behind them are left out.

    The first sentence that states one of the notes is kept as long as there are others.
    """

    def apply(text: str, facts: Facts) -> str:
        start, body, end = split_parts(text)
        pieces = sentences(body)
        said = [i for i, piece in enumerate(pieces) if piece.strip()]
        if len(said) <= count:
            return text
        needed = set(_first_statements(pieces, notes, facts))
        ranked = sorted(said, key=lambda i: (i not in needed, i))
        dropped = set(ranked[count:])
        return join_parts(start, "".join(p for i, p in enumerate(pieces) if i not in dropped), end)

    return apply


def _first_statements(pieces: list[str], notes: Iterable[Stated], facts: Facts) -> Iterable[int]:
    for note in notes:
        yield from [i for i, piece in enumerate(pieces) if _is_in(piece, note, facts)][:1]


def _is_in(sentence: str, note: Stated, facts: Facts) -> bool:
    """Whether a sentence has all words of a note, as whole words in any case; an unknown note is nowhere."""
    return all(
        name in facts and re.search(rf"(?<!\w){re.escape(facts[name])}(?!\w)", sentence, re.I) is not None
        for name in note
    )
