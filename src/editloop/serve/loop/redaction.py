"""What the redaction hook is given: every text of a JSON value as it reads, not as it is written down.

A hook for "José" would pass over `Jos\\u00e9`, which is what a JSON writer makes of the name, so a value is
redacted before it is serialised, and JSON that stands inside a text (the arguments of a tool call, the result
of one) is read first. Which texts are kept at all is not known here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Set
from typing import Any

__all__ = ["WORDS", "Redact", "redact_leaves", "redact_text"]

Redact = Callable[[str], str]

WORDS = frozenset(
    {"role", "content", "name", "type", "text", "refusal", "reasoning_content"}
    | {"system", "developer", "user", "assistant", "tool", "function"}
    | {"id", "tool_calls", "tool_call_id", "function_call", "arguments"}
    | {"image_url", "url", "detail", "audio", "input_audio", "data", "format"}
    | {"file", "file_id", "file_data", "filename", "input_text", "output_text"}
)
"""Words that OpenAI's API gives to messages: nobody's secret, and without them a log cannot be read."""

# A JSON string inside a text, or the beginning of one that was cut off. Both end whatever stands in the text,
# so that one pass is enough for it: a pattern that may fail would begin again at each quotation mark.
_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_ESCAPES = re.compile(r"(?<!\\)(\\*)((?:\\u[0-9a-fA-F]{4})+)")


def redact_leaves(value: Any, redact: Redact, *, words: Set[str] = frozenset()) -> Any:
    """Redact every text in a JSON value, the keys of objects too.

    A number that the hook changes when it is written out becomes the text that the hook makes of it. Keys
    that are equal once redacted are told apart by a number, so that no value is lost.

    Args:
        value: Of JSON types.
        redact: The hook.
        words: Texts that are left as they are where they stand alone.

    Raises:
        TypeError: The hook does not return a text.
    """
    if isinstance(value, str):
        return value if value in words else redact_text(value, redact)
    if isinstance(value, dict):
        return _redact_object(value, redact, words)
    if isinstance(value, (list, tuple)):
        return [redact_leaves(each, redact, words=words) for each in value]
    if isinstance(value, bool) or value is None:
        return value
    written = json.dumps(value)
    redacted = redact_text(written, redact)
    return value if redacted == written else redacted


def _redact_object(value: dict[str, Any], redact: Redact, words: Set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    times: Counter[str] = Counter()
    names = [key if key in words else redact_text(key, redact) for key in value]
    taken = set(names)
    for name, each in zip(names, value.values(), strict=True):
        free = name
        while free in found or (free != name and free in taken):
            times[name] += 1
            free = f"{name} ({times[name] + 1})"
        found[free] = redact_leaves(each, redact, words=words)
    return found


def redact_text(text: str, redact: Redact) -> str:
    """Redact a text, and what it says in JSON's escapes.

    The hook sees each JSON string inside the text as it reads, then the whole. Where it changes nothing, the
    text stays as it is, letter by letter.

    Args:
        text: Any.
        redact: The hook; it should leave alone what it made itself.

    Raises:
        TypeError: The hook does not return a text.
    """
    if "\\" in text:
        text = _LITERAL.sub(lambda found: _redact_literal(found[0], redact), text)
        plain = _ESCAPES.sub(_plain, text)
        if plain != text and _checked(plain, redact) != plain:
            text = plain
    return _checked(text, redact)


def _redact_literal(literal: str, redact: Redact) -> str:
    """A JSON string inside a text, with its quotation marks, redacted if the hook has anything against it."""
    if "\\" not in literal:
        return literal  # the hook sees it with the rest of the text
    whole = len(literal) > 1 and literal.endswith('"') and not _ends_escaped(literal[:-1])
    begun = literal[:-1] if _ends_escaped(literal) else literal
    try:
        says = json.loads(literal if whole else f'{begun}"', strict=False)
    except ValueError:
        return literal
    redacted = redact_text(says, redact)
    if redacted == says:
        return literal
    written = _storable(json.dumps(redacted, ensure_ascii=False))
    return written if whole else written[:-1]


def _ends_escaped(text: str) -> bool:
    """Whether the character after this text would be an escaped one."""
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _plain(found: re.Match[str]) -> str:
    """The characters that escapes stand for, without those that no database takes.

    JSON that the text may be stays JSON: of the backslashes before them an even number is left, and what has
    to be escaped in it is.
    """
    before, escapes = found.groups()
    characters = _storable(json.loads(f'"{escapes}"')).replace("\0", "")
    return before[: len(before) // 2 * 2] + json.dumps(characters, ensure_ascii=False)[1:-1]


def _storable(text: str) -> str:
    """A text without halves of a pair that stands for a character."""
    return text.encode("utf-8", "ignore").decode()


def _checked(text: str, redact: Redact) -> str:
    redacted = redact(text)
    if not isinstance(redacted, str):
        raise TypeError(f"the redaction returns {type(redacted).__name__} in place of a text")
    return redacted
