"""Rules of style for plain text: each changes what breaks it, and leaves everything else word for word.

A rule is a pure function of a text and of the facts that its context states. Applied to its own result it
changes nothing. The edits are small by construction: a wrong greeting is replaced, not the letter. The rules
about what a text says are in `fact_rules.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "Facts",
    "Rule",
    "closing",
    "contracted",
    "ending",
    "greeting",
    "join_parts",
    "leave_out",
    "sentences",
    "short_sentences",
    "spelled_out",
    "split_parts",
    "whole_sentences",
    "without_phrases",
    "without_preamble",
    "without_subject",
]

Facts = Mapping[str, str]
"""What the context states, by name, such as `name` and `day`."""

Rule = Callable[[str, Facts], str]

_WORDS = "dear|hi|hello|hey|greetings|good morning|good afternoon|good evening|to whom it may concern"
# Up to four words after the first, so that "Hi Ada, the plan is ready" loses nothing but "Hi Ada,".
_GREETING = re.compile(rf"\A(?:{_WORDS})\b(?:[ \t]+[^\s,!:.]+\.?){{0,4}}?[ \t]*(?:[,!:]|(?=\n)|\Z)", re.I)

_FAREWELLS = (
    r"(?:best|kind|warm|warmest|with best)(?: regards| wishes)?|regards|sincerely"
    r"|yours(?: sincerely| truly| faithfully)?|many thanks|thanks(?: again)?|thank you(?: again| in advance)?"
    r"|cheers|respectfully|take care"
)
# A farewell that ends its line, and the short lines of a signature after it.
_CLOSING = re.compile(
    rf"(?:\A|\s*\n)(?:{_FAREWELLS})[,!.]?(?:[ \t]+[\w.\[\]' -]{{1,30}})?(?:\n+[^\n]{{1,40}}){{0,5}}\s*\Z",
    re.I,
)

# A sentence with the space after it, the rest of a line without an end mark, or line breaks: joined, they are
# the text. A mark before a letter ends nothing ("editloop.toml", "2.5").
_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?=\w))*[.!?]+(?!\w)[\"')\]]*[ \t]*|[^\n]+|\n+")

_PREAMBLE_LINES = 6
"""The lines among which a greeting is looked for."""

_CONTRACTIONS = {
    "do not": "don't",
    "does not": "doesn't",
    "did not": "didn't",
    "is not": "isn't",
    "are not": "aren't",
    "was not": "wasn't",
    "will not": "won't",
    "would not": "wouldn't",
    "can not": "can't",
    "cannot": "can't",
    "could not": "couldn't",
    "should not": "shouldn't",
    "have not": "haven't",
    "has not": "hasn't",
    "i am": "I'm",
    "i have": "I've",
    "i will": "I'll",
    "we are": "we're",
    "we have": "we've",
    "we will": "we'll",
    "you are": "you're",
    "you will": "you'll",
    "it is": "it's",
    "that is": "that's",
    "let us": "let's",
}


def greeting(form: str) -> Rule:
    """The text begins with this greeting, such as `Dear {name},`."""

    def apply(text: str, facts: Facts) -> str:
        wanted, found = form.format_map(facts), _GREETING.match(text)
        if found:
            return text if found[0].rstrip() == wanted else wanted + text[found.end() :]
        return f"{wanted}\n\n{text.lstrip()}".rstrip() if not text.startswith(wanted) else text

    return apply


def closing(form: str) -> Rule:
    """The text ends with this closing, such as `Cheers,\\nAlex`; with an empty one it has none."""

    def apply(text: str, facts: Facts) -> str:
        wanted, (start, body, end) = form.format_map(facts), split_parts(text)
        if end.strip() == wanted:
            return text
        return f"{(start + body).rstrip()}\n\n{wanted}".strip()

    return apply


def ending(form: str) -> Rule:
    """The last sentence before the closing is this one."""

    def apply(text: str, facts: Facts) -> str:
        wanted, (start, body, end) = form.format_map(facts), split_parts(text)
        if body.endswith(wanted):
            return text
        return join_parts(start, f"{body.rstrip()}\n{wanted}".strip(), end)

    return apply


def short_sentences(words: int) -> Rule:
    """No sentence has more words than these; one that has is left out."""

    def apply(text: str, facts: Facts) -> str:
        return leave_out(text, lambda sentence: len(sentence.split()) > words)

    return apply


def without_phrases(phrases: Iterable[str]) -> Rule:
    """No sentence contains one of these stock phrases; one that does is left out."""
    stock = re.compile("|".join(map(re.escape, phrases)), re.I)

    def apply(text: str, facts: Facts) -> str:
        return leave_out(text, lambda sentence: stock.search(sentence) is not None)

    return apply


def whole_sentences(text: str, facts: Facts) -> str:
    """A text that breaks off loses its last, unfinished sentence; nobody completes it."""
    start, body, end = split_parts(text)
    pieces = sentences(body)
    last = pieces[-1].strip() if pieces else ""
    # An item of a list needs no end mark, and after a closing nothing has broken off.
    if end.strip() or last[:1] in "-*\u2022" or not re.search(r"[\w,;]\Z", last):
        return text
    return join_parts(start, "".join(pieces[:-1]), end)


def contracted(text: str, facts: Facts) -> str:
    """`do not` is `don't`, and so on."""
    return _replaced(text, _CONTRACTIONS)


def spelled_out(text: str, facts: Facts) -> str:
    """`don't` is `do not`, and so on."""
    return _replaced(
        text.replace("\u2019", "'"),
        {short: long for long, short in _CONTRACTIONS.items() if long != "can not"},
    )


def without_subject(text: str, facts: Facts) -> str:
    """There is no subject line."""
    return re.sub(r"\A\s*\**subject\**:[^\n]*\n*", "", text, flags=re.I)


def _replaced(text: str, words: Mapping[str, str]) -> str:
    """The text with these words replaced; a capital at the beginning stays one."""
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})\b", re.I)
    lower = {key.lower(): value for key, value in words.items()}

    def new(found: re.Match[str]) -> str:
        value = lower[found[0].lower()]
        return value[0].upper() + value[1:] if found[0][0].isupper() else value

    return pattern.sub(new, text)


def without_preamble(text: str, facts: Facts) -> str:
    """Nothing stands before the greeting, where one begins a later line."""
    lines = text.split("\n")
    for i, line in enumerate(lines[:_PREAMBLE_LINES]):
        if _GREETING.match(line):
            return "\n".join(lines[i:])
    return text


def sentences(body: str) -> list[str]:
    """The sentences of a body, and the line breaks between them as pieces of their own; joined, the body."""
    return _SENTENCE.findall(body)


def leave_out(text: str, unwanted: Callable[[str], bool]) -> str:
    """The text without those sentences between greeting and closing that are unwanted."""
    start, body, end = split_parts(text)
    pieces = sentences(body)
    kept = [piece for piece in pieces if not (piece.strip() and unwanted(piece.strip()))]
    return text if len(kept) == len(pieces) else join_parts(start, "".join(kept), end)


def split_parts(text: str) -> tuple[str, str, str]:
    """Greeting, body and closing, with the white space between them; joined, they are the text."""
    opened = _GREETING.match(text)
    first = opened.end() if opened else 0
    first += len(text[first:]) - len(text[first:].lstrip())
    closed = _CLOSING.search(text[first:])
    last = first + closed.start() if closed else len(text)
    return text[:first], text[first:last], text[last:]


def join_parts(start: str, body: str, end: str) -> str:
    """The text of these parts, without the empty lines that sentences left behind."""
    body = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", body)).strip()
    if not body:
        return "\n\n".join(part for part in (start.rstrip(), end.lstrip()) if part)
    if start and not start[-1].isspace():
        start += "\n\n"
    if end and not end[0].isspace():
        end = "\n\n" + end
    return start + body + end
