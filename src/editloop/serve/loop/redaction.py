"""What the redaction hook is given: every text of a JSON value as it reads, not as JSON writes it.

A hook that looks for "José" would miss `Jos\\u00e9`, which is how JSON may write the name. So a value is
redacted before it is serialised, and JSON inside a text (a tool call's arguments or result) is parsed first.
Which texts are kept at all is decided elsewhere (`logged_text`).
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
"""Words of OpenAI's message format: they are nobody's secret, and without them a log cannot be read."""

# A JSON string inside a text, or the beginning of one that was cut off. The pattern matches at each quotation
# mark, so one pass is enough; if it could fail, it would start again at each one, in quadratic time.
_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_ESCAPES = re.compile(r"(?<!\\)(\\*)((?:\\u[0-9a-fA-F]{4})+)")


def redact_leaves(value: Any, redact: Redact, *, words: Set[str] = frozenset()) -> Any:
    """Redact every text in a JSON value, the keys of objects too.

    A number whose decimal form the hook changes becomes the text that the hook returns. Keys that are equal
    after redaction get a number, so that no value is lost.

    Args:
        value: A JSON value.
        redact: The hook.
        words: Texts that are left as they are if they stand alone.

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

    The hook sees each JSON string inside the text as it reads, and then the whole text. If it changes
    nothing, the text stays exactly as it is.

    Args:
        text: Any text.
        redact: The hook; it should leave its own replacements unchanged.

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
    """A JSON string inside a text, with its quotation marks, redacted if the hook changes it."""
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
    """The characters that escapes stand for, without those that no database can store.

    If the text is JSON, it stays JSON: an even number of the backslashes before the escapes is left, and
    characters that JSON requires to be escaped are.
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
