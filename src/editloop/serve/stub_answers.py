"""What the stub model server says: always the same text, a call of the first tool, or JSON as asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["RESPONSE", "body_of"]

RESPONSE = (
    "Dear Ada, I would like to invite you to the demo of our new editor on Friday at ten. It takes half an "
    "hour, and there will be time for questions afterwards. Please let me know whether you can come, so "
    "that I can reserve a seat for you. Kind regards, Bob"
)
"""The text of every response that is a text."""

USAGE = {"prompt_tokens": 60, "completion_tokens": 50, "total_tokens": 110}

SPECIAL = re.compile(rb'(?<!\\)"(?:stream": ?true|tools": ?\[\{|response_format": ?\{)')
"""What is in the body of a request that gets another answer than the plain text.

By this alone most requests are recognised, so that the stub stays quicker than what is in front of it.
"""


def body_of(request: bytes) -> bytes:
    """The body of the answer to a request for a chat completion; a stream has one chunk for each word."""
    if not SPECIAL.search(request):
        return PLAIN
    asked = json.loads(request)
    message, finish = _message(asked)
    if not asked.get("stream"):
        return _completion(message, finish)
    events = [json.dumps(chunk) for chunk in _chunks(message, finish, asked.get("stream_options") or {})]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()


def _completion(message: Mapping[str, Any], finish: str) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    whole = {"id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": "stub"}
    return json.dumps({**whole, "choices": [choice], "usage": USAGE}).encode()


PLAIN = _completion({"role": "assistant", "content": RESPONSE}, "stop")


def _message(asked: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The message, and why it ends. A tool is called once: with its result, the text is written."""
    tools, choice = asked.get("tools") or [], asked.get("tool_choice")
    has_result = any(each.get("role") == "tool" for each in asked["messages"])
    if tools and choice != "none" and (not has_result or choice == "required" or isinstance(choice, dict)):
        function = tools[0]["function"]
        arguments = json.dumps(instance(function.get("parameters") or {}))
        called = {"name": function["name"], "arguments": arguments}
        call = {"id": "call_0", "type": "function", "function": called}
        return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    form = asked.get("response_format") or {}
    if form.get("type") == "json_schema":
        return {"role": "assistant", "content": json.dumps(instance(form["json_schema"]["schema"]))}, "stop"
    text = "{}" if form.get("type") == "json_object" else RESPONSE
    return {"role": "assistant", "content": text}, "stop"


def _chunks(message: Mapping[str, Any], finish: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    frame = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "stub"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for index, call in enumerate(message.get("tool_calls") or ()):
        arguments = call["function"]["arguments"]
        begun = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        # In two parts, as servers send them.
        for part in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    deltas += [{"content": word} for word in re.findall(r"\S+\s*", message.get("content") or "")]
    for delta in deltas:
        yield {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    if options.get("include_usage"):
        yield {**frame, "choices": [], "usage": USAGE}


def instance(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """A value that a JSON schema allows, for the schemas that clients make of classes."""
    root = schema if root is None else root
    if "$ref" in schema:
        found: Any = root
        for name in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found[name]
        return instance(found, root)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return instance(schema[name][0], root)
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: instance(each, root) for name, each in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [instance(schema.get("items") or {"type": "string"}, root)]
    return {"string": "Ada", "integer": 1, "number": 1.5, "boolean": True}.get(str(kind))
