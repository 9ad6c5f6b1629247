"""The semantic conventions for GenAI spans: what was asked and what was answered, by whom and for whom.

opentelemetry.io/docs/specs/semconv/gen-ai. Texts are in `gen_ai.input.messages`, `gen_ai.output.messages` and
`gen_ai.system_instructions`, of the span or of its event `gen_ai.client.inference.operation.details`. Older
instrumentations have them as events (`gen_ai.content.prompt` and `.completion`, or one for each message), or
as the attributes `gen_ai.prompt` and `gen_ai.completion`, whole or by number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from editloop.edits.formats.messages import text_of
from editloop.serve.telemetry.otlp import Span

__all__ = ["Generation", "generation_of"]

OPERATIONS = ("chat", "text_completion", "generate_content", "completion")
"""The operations that write a text; the others embed, run tools, or hold such spans within them."""

INPUT, OUTPUT, SYSTEM = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
PROMPT, COMPLETION = "gen_ai.prompt", "gen_ai.completion"
MESSAGE_EVENT = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")
NUMBERED = re.compile(r"gen_ai\.(prompt|completion)\.(\d{1,6})\.(role|content)")
USERS = ("enduser.id", "user.id")


class Generation(NamedTuple):
    """A response that a span reports.

    Attributes:
        context: What was asked: messages, or a text.
        response: What was answered.
        response_id: The provider's id of the answer; None if it gave none.
        model: What answered.
        user: For whom.
    """

    context: Any
    response: str
    response_id: str | None
    model: str | None
    user: str | None


def generation_of(span: Span) -> Generation | None:
    """Return the response that a span reports; None if it is of another kind, or without its texts."""
    fields = dict(span.attributes)
    for _, attributes in span.events:
        fields |= {
            name: attributes[name]
            for name in (INPUT, OUTPUT, SYSTEM, PROMPT, COMPLETION)
            if name in attributes
        }
    operation = fields.get("gen_ai.operation.name")
    is_gen_ai = (
        operation in OPERATIONS
        if operation
        else "gen_ai.system" in fields or "gen_ai.provider.name" in fields
    )
    if not is_gen_ai:
        return None
    context, response = _context(span, fields), _response(span, fields)
    if not context or response is None or not response.strip():
        return None
    named = (fields.get("gen_ai.response.model"), fields.get("gen_ai.request.model"))
    user = next((fields[name] for name in USERS if fields.get(name)), None)
    return Generation(
        context,
        response,
        _text(fields.get("gen_ai.response.id")),
        _text(next(filter(None, named), None)),
        _text(user),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _context(span: Span, fields: Mapping[str, Any]) -> Any:
    messages = [_message(each) for each in _list(fields.get(INPUT))]
    if instructions := _list(fields.get(SYSTEM)):
        messages.insert(0, _message({"role": "system", "parts": instructions}))
    messages = messages or _numbered(fields, "prompt") or _from_events(span)
    if messages:
        return messages
    prompt = _parsed(fields.get(PROMPT))
    if isinstance(prompt, list):
        return [_message(each) for each in prompt]
    return prompt if isinstance(prompt, str) else None


def _response(span: Span, fields: Mapping[str, Any]) -> str | None:
    outputs = [_message(each) for each in _list(fields.get(OUTPUT))]
    outputs = outputs or _numbered(fields, "completion")
    if not outputs:
        choices = [attributes for name, attributes in span.events if name == "gen_ai.choice"]
        outputs = [_message(_parsed(each.get("message")) or each) for each in choices]
    if not outputs:
        found = _parsed(fields.get(COMPLETION))
        outputs = [_message(each) for each in found] if isinstance(found, list) else []
        if not outputs:
            return text_of(found)
    # Of several choices the first one: one request has one response here. A call of a tool is no text.
    first = outputs[0]
    return first["content"] if isinstance(first.get("content"), str) and "parts" not in first else None


def _from_events(span: Span) -> list[dict[str, Any]]:
    """The messages of a request that has an event for each."""
    found = [(MESSAGE_EVENT.fullmatch(name), attributes) for name, attributes in span.events]
    return [_message({"role": match[1], **attributes}) for match, attributes in found if match]


def _numbered(fields: Mapping[str, Any], which: str) -> list[dict[str, Any]]:
    parts: dict[int, dict[str, Any]] = {}
    for name, value in fields.items():
        match = NUMBERED.fullmatch(name)
        if match and match[1] == which:
            parts.setdefault(int(match[2]), {})[match[3]] = value
    usual = "user" if which == "prompt" else "assistant"
    return [_message({"role": usual, **parts[i]}) for i in sorted(parts)]


def _message(value: Any) -> dict[str, Any]:
    """A message as OpenAI's API has it. Parts that are no text stay beside the text, so that none is lost."""
    if not isinstance(value, Mapping):
        return {"role": "user", "content": value if isinstance(value, str) else json.dumps(value)}
    role = str(value.get("role") or "assistant")
    if not isinstance(value.get("parts"), list):
        content = value.get("content")
        return {"role": role, "content": content if isinstance(content, str) else text_of(content) or ""}
    texts, others = [], []
    for part in value["parts"]:
        content = part.get("content") if isinstance(part, Mapping) else part
        if isinstance(content, str) and (not isinstance(part, Mapping) or part.get("type") == "text"):
            texts.append(content)
        elif not isinstance(part, Mapping) or part.get("type") != "reasoning":  # thoughts are no answer
            others.append(part)
    message: dict[str, Any] = {"role": role, "content": "".join(texts)}
    return message | ({"parts": others} if others else {})


def _list(value: Any) -> list[Any]:
    """Messages, which are structured in events and JSON in attributes of spans."""
    found = _parsed(value)
    return found if isinstance(found, list) else []


def _parsed(value: Any) -> Any:
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
