"""Contexts as callers and JSON give them: a text, or a chat whose messages are plain dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from editloop.edits.record import Context, Message
from editloop.errors import ConfigError

__all__ = ["ContextLike", "as_context", "as_contexts", "context_json"]

ContextLike = Context | Sequence[Message | Mapping[str, Any]]
"""A context as a caller may give it: a text, or messages as objects or mappings."""


def as_context(given: ContextLike) -> Context:
    """Return a context in the form that records have.

    Raises:
        ConfigError: It is neither a text nor messages that have a role and a text.
    """
    if isinstance(given, str):
        return given
    do = "give text, or a list of {role, content} messages"
    messages: object = given  # callers without a type checker may give anything
    if not isinstance(messages, list | tuple) or not messages:
        raise ConfigError("a context is text or a chat of at least one message", seen=given, do=do)
    try:
        return tuple(m if isinstance(m, Message) else Message.model_validate(m) for m in messages)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "a message"
        raise ConfigError(
            f"the context is not a chat: {where}: {error.errors()[0]['msg']}", seen=given, do=do
        ) from error


def as_contexts(given: Sequence[ContextLike]) -> list[Context]:
    """Return contexts in the form that records have.

    Raises:
        ConfigError: The list is a single text, or a context is neither a text nor a chat.
    """
    if isinstance(given, str):
        raise ConfigError("contexts come as a list", seen=given, do="give one text as [text]")
    return [as_context(context) for context in given]


def context_json(context: Context) -> str | list[dict[str, str]]:
    """Return a context as JSON types: a text, or a list of `{role, content}`."""
    if isinstance(context, str):
        return context
    return [{"role": message.role, "content": message.content} for message in context]
