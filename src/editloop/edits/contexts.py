"""A context as it is given by hand: text, or a chat whose messages may be plain dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from editloop.edits.record import Context, Message
from editloop.errors import ConfigError

__all__ = ["ContextLike", "as_context", "as_contexts"]

ContextLike = Context | Sequence[Message | Mapping[str, Any]]
"""What `as_context` takes."""


def as_context(given: ContextLike) -> Context:
    """Return a context as records have it.

    Raises:
        ConfigError: It is neither text nor messages of a role and a text.
    """
    if isinstance(given, str):
        return given
    do = "give text, or a list of {role, content} messages"
    messages: object = given  # whatever it says it is
    if not isinstance(messages, list | tuple) or not messages:
        raise ConfigError("a context is text or a chat of at least one message", seen=given, do=do)
    try:
        return tuple(m if isinstance(m, Message) else Message.model_validate(m) for m in messages)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "a message"
        raise ConfigError(
            f"this is no chat: {where}: {error.errors()[0]['msg']}", seen=given, do=do
        ) from error


def as_contexts(given: Sequence[ContextLike]) -> list[Context]:
    """Return contexts as records have them.

    Raises:
        ConfigError: One text in place of a list, or a context that is neither text nor a chat.
    """
    if isinstance(given, str):
        raise ConfigError("contexts come as a list", seen=given, do="give one text as [text]")
    return [as_context(context) for context in given]
