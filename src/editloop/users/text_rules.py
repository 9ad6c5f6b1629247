"""Rules of style for plain text: each changes what breaks it, and leaves everything else word for word.

A rule is a pure function of a text and of the facts that its context states. Applied to its own result it
changes nothing. The edits are small by construction: a wrong greeting is replaced, not the letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "Facts",
    "Rule",
    "at_most",
    "bullets",
    "closing",
    "contracted",
    "greeting",
    "right_facts",
    "spelled_out",
    "without_phrases",
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

_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?]+|(?=\n)|\Z)[ \t]*")

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

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
        wanted, found = form.format_map(facts), _CLOSING.search(text)
        body = (text[: found.start()] if found else text).rstrip()
        if found and found[0].strip() == wanted:
            return text
        return f"{body}\n\n{wanted}".strip() if wanted else (body if found else text)

    return apply


def at_most(sentences: int) -> Rule:
    """Between greeting and closing there are at most so many sentences; those behind them are left out."""

    def apply(text: str, facts: Facts) -> str:
        start, body, end = _parts(text)
        kept, count = 0, 0
        for found in _SENTENCE.finditer(body):
            if found[0].strip():
                count += 1
                if count > sentences:
                    return start + body[:kept].rstrip() + end
            kept = found.end()
        return text

    return apply


def without_phrases(phrases: Iterable[str]) -> Rule:
    """No sentence contains one of these stock phrases; one that does is left out."""
    stock = re.compile("|".join(map(re.escape, phrases)), re.I)

    def apply(text: str, facts: Facts) -> str:
        if not stock.search(text):
            return text
        start, body, end = _parts(text)
        kept = "".join(each[0] for each in _SENTENCE.finditer(body) if not stock.search(each[0]))
        return start + _tidy(kept) + end

    return apply


def contracted(text: str, facts: Facts) -> str:
    """`do not` is `don't`, and so on."""
    return _replaced(text, _CONTRACTIONS)


def spelled_out(text: str, facts: Facts) -> str:
    """`don't` is `do not`, and so on."""
    return _replaced(
        text.replace("\u2019", "'"),
        {short: long for long, short in _CONTRACTIONS.items() if long != "can not"},
    )


def right_facts(text: str, facts: Facts) -> str:
    """Placeholders are filled, and the weekday is the one that the context names."""
    if "name" in facts:
        text = re.sub(r"\[(?:recipient|first|their)?(?:'s)? ?name\]", facts["name"], text, flags=re.I)
    text = re.sub(r"\[(?:your|my|sender)(?:'s)? ?(?:full )?name\]", "Alex", text, flags=re.I)
    if "day" in facts:
        text = re.sub(rf"\b(?:{'|'.join(_DAYS)})\b", facts["day"], text)
    return text


def bullets(text: str, facts: Facts) -> str:
    """The two findings of the notes are a list, in place of the first sentence that names one of them."""
    items = [f"- {facts[each]}: {facts[f'{each}_state']}" for each in ("first", "second") if each in facts]
    if not items or all(item in text for item in items):
        return text
    start, body, end = _parts(text)
    named = re.compile(rf"\b(?:{re.escape(facts['first'])}|{re.escape(facts['second'])})\b", re.I)
    found = next((each for each in _SENTENCE.finditer(body) if named.search(each[0])), None)
    listed = "\n".join(items)
    if found is None:
        return f"{start}{body.rstrip()}\n{listed}{end or ''}"
    before, after = body[: found.start()].rstrip(), body[found.end() :].lstrip()
    return start + "\n".join(part for part in (before, listed, after) if part) + end


def without_subject(text: str, facts: Facts) -> str:
    """There is no subject line."""
    return re.sub(r"\A\s*\**subject\**:[^\n]*\n*", "", text, flags=re.I)


def _parts(text: str) -> tuple[str, str, str]:
    """Greeting, body and closing, with the white space between them; joined, they are the text."""
    opened = _GREETING.match(text)
    first = opened.end() if opened else 0
    first += len(text[first:]) - len(text[first:].lstrip())
    closed = _CLOSING.search(text, first)
    last = closed.start() if closed else len(text)
    return text[:first], text[first:last], text[last:]


def _tidy(body: str) -> str:
    """A body from which sentences were taken, without the empty lines that they leave."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", body)).strip()


def _replaced(text: str, words: Mapping[str, str]) -> str:
    """The text with these words replaced; a capital at the beginning stays one."""
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})\b", re.I)
    lower = {key.lower(): value for key, value in words.items()}

    def new(found: re.Match[str]) -> str:
        value = lower[found[0].lower()]
        return value[0].upper() + value[1:] if found[0][0].isupper() else value

    return pattern.sub(new, text)
