"""Which parts of a request and its response are kept in the log, after redaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from editloop.edits import Context, Message
from editloop.serve.backends.base import Draft
from editloop.serve.loop.redaction import WORDS, Redact, redact_leaves, redact_text

__all__ = [
    "finish_reason",
    "logged_context",
    "logged_drafts",
    "logged_metadata",
    "logged_response",
    "spoken_text",
    "token_count",
]


FINISH_REASONS = ("stop", "length", "tool_calls", "function_call", "content_filter")
"""Why a response ends, in the words of OpenAI's API."""

MAX_TOKENS = 2**31
"""Counts from here on do not fit the store's column, and no request has as many tokens."""


def logged_context(messages: Any, redact: Redact) -> Any:
    """The messages as they are kept: the text alone, if there is a single message by a user, or else all.

    A base model with a chat template gets the same prompt from both forms, and one without a template gets
    the text alone. Every text of a message is redacted, also in tool calls, in the results of tools, and in
    the parts of content that is not plain text.
    """
    joined = [{**each, "content": _joined(each.get("content"))} for each in messages]
    kept: list[Any] = redact_leaves(joined, redact, words=WORDS)
    if len(kept) == 1 and set(kept[0]) == {"role", "content"} and kept[0]["role"] == "user":
        return kept[0]["content"]
    return kept


def spoken_text(context: Any) -> Context:
    """The text alone of what `logged_context` returns: no calls of tools, no images."""
    if isinstance(context, str):
        return context
    said = ((str(each.get("role")), each.get("content")) for each in context)
    texts = [Message(role=role, content=content) for role, content in said if isinstance(content, str)]
    return tuple(texts) or ""


def _joined(content: Any) -> Any:
    """Content whose parts are all texts, joined into one text; any other content unchanged."""
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content


def logged_metadata(metadata: Mapping[str, Any] | None, redact: Redact) -> str | None:
    """Metadata as JSON; None if there is none."""
    if not metadata:
        return None
    return json.dumps(redact_leaves(dict(metadata), redact), ensure_ascii=False, allow_nan=False)


def logged_response(text: str, redact: Redact) -> str:
    """A response as it is kept: redacted, and without NUL, which PostgreSQL cannot store."""
    return redact_text(text.replace("\0", ""), redact)


def logged_drafts(drafts: Sequence[Draft], redact: Redact) -> str | None:
    """The drafts of which a response was chosen, as JSON; None if it is the only one."""
    if not drafts:
        return None
    rows = [
        {"text": logged_response(each.text, redact), "finish": each.finish, "bound": each.bound}
        for each in drafts
    ]
    return json.dumps(rows, ensure_ascii=False, allow_nan=False)


def finish_reason(reason: str) -> str:
    """Return why a response ended, as it is kept: a word of OpenAI's API, `stop` for an unknown one."""
    return reason if reason in FINISH_REASONS else "stop"


def token_count(usage: Mapping[str, Any] | None, name: str) -> int | None:
    """A count of tokens by a model's server, which may write anything there; None if it does not say."""
    found = (usage or {}).get(name)
    is_count = isinstance(found, int) and not isinstance(found, bool) and 0 < found < MAX_TOKENS
    return int(found) if found is not None and is_count else None
