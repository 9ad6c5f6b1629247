"""The items of an input as the messages of a chat completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from editloop.serve.problem import Problem

__all__ = ["messages_of"]

Messages = list[dict[str, Any]]
Item = Mapping[str, Any]

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
"""The roles of a message; models with a chat template of their own know no developer."""

TEXTS = ("input_text", "output_text", "text")
"""The types of parts of content that are texts."""


def messages_of(instructions: str | None, items: str | Sequence[Item]) -> Messages:
    """The messages that instructions and an input stand for.

    Raises:
        Problem: 400, naming the item that is not known or not complete.
    """
    messages: Messages = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(items, str):
        return [*messages, {"role": "user", "content": items}]
    for place, item in enumerate(items):
        where = f"input.{place}"
        kind = item.get("type") or ("message" if "role" in item else None)
        handle = ITEMS.get(kind) if isinstance(kind, str) else None
        if handle is None:
            raise _problem(f"an item of the type `{str(kind)[:40]}` is not supported here", f"{where}.type")
        handle(item, where, messages)
    if not messages:
        raise _problem("an input without a message", "input")
    return messages


def _problem(what: str, param: str) -> Problem:
    return Problem(400, what, code="unsupported_input", param=param)


def _text_of(item: Item, name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise Problem(400, f"`{name}` is not a text", code="invalid_request", param=f"{where}.{name}")
    return value


def _add_message(item: Item, where: str, messages: Messages) -> None:
    role = ROLES.get(str(item.get("role")))
    if role is None:
        raise _problem(f"the role is none of {', '.join(ROLES)}", f"{where}.role")
    messages.append({"role": role, "content": _content(item.get("content"), f"{where}.content")})


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """Content as one text, if all of its parts are texts; else the parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Problem(400, "`content` is no text and no list", code="invalid_request", param=where)
    parts = [_part(each, f"{where}.{place}") for place, each in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in TEXTS:
        return {"type": "text", "text": _text_of(part, "text", where)}
    if kind == "refusal":
        return {"type": "text", "text": _text_of(part, "refusal", where)}
    if kind == "input_image" and part.get("file_id") is None:
        image = {"url": _text_of(part, "image_url", where)}
        if part.get("detail") is not None:
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}
    if kind == "input_file" and part.get("file_id") is None and part.get("file_url") is None:
        names = ("file_data", "filename")
        return {"type": "file", "file": {name: part[name] for name in names if part.get(name) is not None}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.get("input_audio")}
    if kind in ("input_image", "input_file"):
        raise _problem("no files are kept here: send the data itself", where)
    raise _problem(f"content of the type `{str(kind)[:40]}` is not supported here", f"{where}.type")


def _add_call(item: Item, where: str, messages: Messages) -> None:
    """Add a call to the message of the assistant; calls that follow one another are of one message."""
    function = {"name": _text_of(item, "name", where), "arguments": _text_of(item, "arguments", where)}
    call = {"id": _text_of(item, "call_id", where), "type": "function", "function": function}
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _add_call_output(item: Item, where: str, messages: Messages) -> None:
    output = _content(item.get("output"), f"{where}.output")
    messages.append({"role": "tool", "tool_call_id": _text_of(item, "call_id", where), "content": output})


def _leave_out(item: Item, where: str, messages: Messages) -> None:
    """Add nothing: what another model thought is no message."""


ITEMS: Mapping[str, Callable[[Item, str, Messages], None]] = {
    "message": _add_message,
    "function_call": _add_call,
    "function_call_output": _add_call_output,
    "reasoning": _leave_out,
}
"""How items are added to the messages, by their types."""
