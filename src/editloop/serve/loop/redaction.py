"""How the redaction hook is applied: to every text of a JSON value as people read it, without JSON's escapes.

A hook that looks for "José" would miss `Jos\\u00e9`, which is one way to write the name in JSON. So a value
is redacted before it is serialised, and JSON inside a text (a tool call's arguments or result) is decoded
first. Which texts are kept at all is decided in `logged_text`.
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
"""Words of OpenAI's message format. They hold nothing private, and without them a log could not be read."""

# A JSON string inside a text, or the beginning of one that was cut off. A match cannot fail once it has begun
# at a quotation mark: it ends at the closing mark or at the end of the text. A pattern that could fail there
# would be tried again from each later mark, in quadratic time.
_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
# A run of backslashes (each pair of which is an escaped backslash), and one or more escapes after it.
_ESCAPES = re.compile(r"(?<!\\)(\\*)((?:\\u[0-9a-fA-F]{4})+)")


def redact_leaves(value: Any, redact: Redact, *, words: Set[str] = frozenset()) -> Any:
    """Redact every text in a JSON value, including the keys of objects.

    A number (it may be that of a telephone) is redacted in its decimal form. If the hook changes that form,
    the text that it returns takes the number's place. Keys that are equal after redaction get a number, so
    that no value is lost.

    Args:
        value: A JSON value.
        redact: The hook.
        words: Texts that are left unchanged if they are the whole value or key.

    Raises:
        TypeError: The hook does not return a text.
    """
    if isinstance(value, str):
        return value if value in words else redact_text(value, redact)
    if isinstance(value, dict):
        return _redact_object(value, redact, words)
    if isinstance(value, (list, tuple)):
        return [redact_leaves(each, redact, words=words) for each in value]
    if isinstance(value, bool) or value is None:  # before the numbers: True is an int in Python
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
    """Redact a text, including what is written in it by JSON's escapes.

    The hook sees each JSON string inside the text, decoded, and then the whole text. A text in which it
    changes nothing stays exactly as it is.

    Args:
        text: Any text.
        redact: The hook. It should leave its own replacements unchanged, because it may see a text twice.

    Raises:
        TypeError: The hook does not return a text.
    """
    if "\\" in text:  # no escape without a backslash; nearly all texts have none and take the short way
        text = _LITERAL.sub(lambda found: _redact_literal(found[0], redact), text)
        plain = _ESCAPES.sub(_plain, text)
        if plain != text and _checked(plain, redact) != plain:
            text = plain
    return _checked(text, redact)


def _redact_literal(literal: str, redact: Redact) -> str:
    """A JSON string inside a text, with its quotation marks, redacted if the hook changes it."""
    if "\\" not in literal:
        return literal  # the hook sees it with the rest of the text
    whole = len(literal) > 1 and literal.endswith('"') and not _ends_escaped(literal[:-1])
    # Of a string that was cut off in the middle of an escape, the lone backslash cannot be decoded.
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
    """The characters that escapes stand for, without those that no database can store.

    A text that is JSON stays JSON: an even number of backslashes is left before the characters, and those
    that must be escaped in JSON, such as a quotation mark, are escaped.
    """
    before, escapes = found.groups()
    characters = _storable(json.loads(f'"{escapes}"')).replace("\0", "")
    return before[: len(before) // 2 * 2] + json.dumps(characters, ensure_ascii=False)[1:-1]


def _storable(text: str) -> str:
    """A text without lone surrogates."""
    return text.encode("utf-8", "ignore").decode()


def _checked(text: str, redact: Redact) -> str:
    redacted = redact(text)
    if not isinstance(redacted, str):
        raise TypeError(f"the redaction returns {type(redacted).__name__} in place of a text")
    return redacted
