"""Prompts and answers as tools keep them: texts, OpenAI's messages, LangChain's, or objects around them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["context_of", "text_of"]

ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "model": "assistant"}
"""Other tools' names for the roles of OpenAI's API."""

CALLS = ("tool_calls", "function_call", "tool_call_id")
"""What a message is wrong without: such a context is no chat of texts, and the record says so."""

ANSWERS = ("content", "text", "output", "answer", "response", "completion", "generated_text", "value")
"""The keys under which an object may have the text of an answer."""


def context_of(value: Any) -> str | list[dict[str, Any]]:
    """Return what a policy was asked: a text, or a chat. Any other object becomes its JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        if isinstance(value.get("messages"), list):
            return context_of(value["messages"])
        if "role" in value:
            return context_of([value])
        texts = list(value.values())
        if len(texts) == 1 and isinstance(texts[0], str):
            return texts[0]
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], list):  # LangChain's batches of one
            return context_of(value[0])
        messages = [_message(each) for each in value]
        if messages and all(message is not None for message in messages):
            return [message for message in messages if message is not None]
    return json.dumps(value, ensure_ascii=False)


def text_of(value: Any) -> str | None:
    """Return the text of an answer; None if there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        # Of several messages the last one answers, and of several completions the first.
        messages = [each for each in map(_message, value) if each is not None]
        if messages:
            return messages[-1]["content"] if isinstance(messages[-1]["content"], str) else None
        return text_of(value[0]) if value else None
    if not isinstance(value, Mapping):
        return None
    for key in ("choices", "generations", "messages"):
        if isinstance(value.get(key), list):
            return text_of(value[key])
    message = _message(value) or _message(value.get("message"))
    if message is not None:
        return message["content"] if isinstance(message["content"], str) else None
    named = [value[key] for key in ANSWERS if isinstance(value.get(key), (str, list, Mapping))]
    if named:
        return text_of(named[0])
    only = list(value.values())
    return only[0] if len(only) == 1 and isinstance(only[0], str) else None


def _message(value: Any) -> dict[str, Any] | None:
    """Return a message of any tool as OpenAI's API has it; None for anything else."""
    if not isinstance(value, Mapping):
        return None
    if isinstance(value.get("kwargs"), Mapping):  # LangChain's, as its serialisation writes it
        return _message({**value["kwargs"], "type": str((value.get("id") or [""])[-1])})
    if isinstance(value.get("data"), Mapping) and "type" in value:  # as `messages_to_dict` does
        return _message({"type": value["type"], **value["data"]})
    role = value.get("role") or value.get("type")
    if not isinstance(role, str) or "content" not in value:
        return None
    role = role.removesuffix("Message").lower() if role.endswith("Message") else role
    kept = {key: value[key] for key in CALLS if value.get(key)}
    return {"role": ROLES.get(role, role), "content": _content(value["content"]), **kept}


def _content(content: Any) -> Any:
    """Return the text of a message's parts if all of them are texts; otherwise the content as it is."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    texts = [
        part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        for part in content
    ]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content  # type: ignore[arg-type]
