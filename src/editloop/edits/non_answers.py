"""Responses that do not do what was asked: a refusal, a question back, nothing.

Users often leave them as they are, because there is nothing to edit. Then they cost 0, and the policy that
writes most of them seems best. So they are found by rules, counted by policy, and may be given a price.

A rule is a function of the response that says whether it is such a one. The built-in rules are for English.
They are made to miss rather than to accuse: a long response with a question at its end is an answer, and so
is a letter in which somebody apologises. A program adds a rule by `NON_ANSWERS.register(name, rule)`; an
installed package names one in the entry point group `editloop.non_answers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from editloop.registry import Registry

__all__ = ["NON_ANSWERS", "asks_back", "find_non_answer", "is_empty", "refuses"]

LONGEST = 80
"""The most words of a refusal or of a question back. What is longer has content of its own."""

OPENING = 300
"""The characters at the beginning of a response in which a refusal shows."""

_CANNOT = (
    r"(?:can['’]?t|can ?not|could(?: not|n['’]t)|won['’]t"
    r"|am (?:unable|not able)|['’]m (?:unable|not able))"
)
_HELP = (
    r"(?:help|assist|comply|fulfil+|provide|write|create|generate|answer|complete|produce|translate|respond)"
)
_SORRY = r"(?:i(?:['’]?m| am) (?:very |so )?sorry|sorry|my apologies|i apologi[sz]e|unfortunately)"
REFUSAL = re.compile(
    rf"^\W*(?:{_SORRY}\b[^.!?\n]*?\bi ?{_CANNOT}"
    rf"|i ?{_CANNOT} (?:\w+ )?{_HELP}"
    rf"|as an? (?:ai|language model|assistant)\b[^.!?\n]*{_CANNOT})",
    re.IGNORECASE,
)
PLEASE = re.compile(r"(?:please|kindly)\b", re.IGNORECASE)
ASKING = re.compile(r"\byou(?:r|['’]d)?\b|\bplease\b|\bmore (?:details|information|context)\b", re.IGNORECASE)
"""What a question to the user has, and one in a text of theirs mostly has not."""

SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


def is_empty(response: str) -> bool:
    """Whether there is no word in it."""
    return re.search(r"\w", response) is None


def refuses(response: str) -> bool:
    """Whether it begins by saying that it cannot be done, and says little more."""
    return _is_short(response) and REFUSAL.match(response[:OPENING]) is not None


def asks_back(response: str) -> bool:
    """Whether it asks for more, and says little else: half of its sentences ask, and the last one."""
    text = response.strip()
    if not text or not _is_short(text):
        return False
    sentences = [each.strip() for each in SENTENCE.findall(text) if re.search(r"\w", each)]
    asking = [each for each in sentences if each.endswith("?") or PLEASE.match(each)]
    ends = bool(sentences) and sentences[-1] in asking
    return ends and 2 * len(asking) >= len(sentences) and any(map(ASKING.search, asking))


def _is_short(response: str) -> bool:
    return len(response.split()) <= LONGEST


NON_ANSWERS: Registry[Callable[[str], bool]] = Registry(
    "rule for non-answers",
    "editloop.non_answers",
    {
        "empty": "editloop.edits.non_answers:is_empty",
        "refusal": "editloop.edits.non_answers:refuses",
        "question": "editloop.edits.non_answers:asks_back",
    },
)


def find_non_answer(response: str) -> str | None:
    """Return the name of the first rule by which a response is no answer; None if it is one."""
    for name in NON_ANSWERS:
        if NON_ANSWERS.get(name)(response):
            return name
    return None
