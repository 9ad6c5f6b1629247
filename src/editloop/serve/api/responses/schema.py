"""The request: its fields, what cannot be done here, and the chat completion that it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from editloop.serve.api.schemas import ID, check_client_key
from editloop.serve.problem import Problem

__all__ = ["ResponsesRequest", "chat_body", "check_supported", "echo", "rejected_param"]

Choice = Literal["none", "auto", "required"]


class ResponsesRequest(BaseModel):
    """A request for a response, as in OpenAI's API; fields that it does not have go to the model's server."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1, max_length=200, description="`editloop`, or the name of an arm")
    input: str | list[dict[str, Any]] = Field(description="A text, or a list of items")
    instructions: str | None = None
    previous_response_id: str | None = Field(None, pattern=ID, description="What this response goes on from")
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    store: bool | None = Field(None, description="false: no text is kept, see the documentation")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    max_output_tokens: int | None = Field(None, ge=1, le=1_000_000)
    text: dict[str, Any] | None = Field(None, description="`format`, as in OpenAI's API")
    tools: list[dict[str, Any]] | None = Field(None, description="Functions")
    tool_choice: Choice | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[str, Any] | None = None
    include: list[str] | None = None
    user: str | None = Field(
        None, min_length=1, max_length=256, description="Who edits; it counts in the choice"
    )
    metadata: dict[str, Any] | None = None
    id: str | None = Field(None, pattern=ID, description="The response's id, if the client chooses it")

    _key = field_validator("metadata")(check_client_key)

    @field_validator("input", mode="before")
    @classmethod
    def _items(cls, value: Any) -> Any:
        """Say what is wrong in one line, and not for each of the two types."""
        if not isinstance(value, (str, list)) or not value:
            raise PydanticCustomError("items", "a text or a list of items, not empty")
        if isinstance(value, list) and not all(isinstance(each, dict) for each in value):
            raise PydanticCustomError("items", "each item is an object")
        return value

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _chosen(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, dict) and value not in get_args(Choice):
            raise PydanticCustomError("choice", f"one of {', '.join(get_args(Choice))}, or a function")
        return value


LOGPROBS = "message.output_text.logprobs"
"""What `include` names to get log-probabilities."""

INCLUDED = (LOGPROBS, "reasoning.encrypted_content")
"""What `include` may name. There are no reasoning items, so that the second one adds nothing."""

NEUTRAL: Mapping[str, Sequence[Any]] = {
    "background": (False,),
    "conversation": (),
    "context_management": ([],),
    "prompt": (),
    "truncation": ("disabled",),
}
"""Fields that a chat completion has nothing for, each with the values that ask for nothing."""

MAPPED = frozenset(ResponsesRequest.model_fields) - {"temperature", "top_p", "parallel_tool_calls"}
"""Fields that are not passed on as they are."""

UNUSED = frozenset({*NEUTRAL, "max_tool_calls"})
"""Fields that are not passed on at all; the second kind limits tools that the service itself would call."""

NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}
"""The fields of a request by their names in a chat completion, where these differ."""


def rejected_param(name: object) -> object:
    """The field of a request that the field of its chat completion comes from."""
    first = str(name).partition(".")[0]
    return NAMES.get(first, name)


def check_supported(given: Mapping[str, Any]) -> None:
    """Refuse what a chat completion cannot do, because leaving it out would look as if it had been done.

    Raises:
        Problem: 400, naming the field.
    """
    for name, neutral in NEUTRAL.items():
        value = given.get(name)
        if value is not None and value not in neutral:
            raise _unsupported(f"`{name}` is not supported here", name, "leave it out")
    for place, name in enumerate(given.get("include") or ()):
        if name not in INCLUDED:
            what = f"`include` of anything but {' and '.join(INCLUDED)} is not supported here"
            raise _unsupported(what, f"include.{place}", "leave it out")
    for place, tool in enumerate(given.get("tools") or ()):
        if tool.get("type") != "function":
            shown = str(tool.get("type"))[:40]
            raise _unsupported(
                f"tools of the type `{shown}` are not supported here", f"tools.{place}", "send functions"
            )


def _unsupported(what: str, param: str, do: str) -> Problem:
    return Problem(400, what, code="unsupported_parameter", param=param, do=do)


def chat_body(
    asked: ResponsesRequest, given: Mapping[str, Any], messages: list[dict[str, Any]]
) -> dict[str, Any]:
    """The chat completion that a request asks for.

    Args:
        asked: The request.
        given: Its fields that were given.
        messages: Its messages.

    Raises:
        Problem: 400, a field has not the form of OpenAI's API.
    """
    body = {name: value for name, value in given.items() if name not in MAPPED | UNUSED and value is not None}
    body |= {"model": asked.model, "messages": messages}
    if asked.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if asked.max_output_tokens is not None:
        body["max_tokens"] = asked.max_output_tokens  # every server knows this name, not each the newer one
    if asked.tools:
        body["tools"] = [_nested(each, "function", f"tools.{i}") for i, each in enumerate(asked.tools)]
    if asked.tools and asked.tool_choice is not None:
        body["tool_choice"] = asked.tool_choice
        if isinstance(asked.tool_choice, dict):
            if asked.tool_choice.get("type") != "function":
                raise _unsupported(
                    "this `tool_choice` is not supported here", "tool_choice", "name a function"
                )
            body["tool_choice"] = _nested(asked.tool_choice, "function", "tool_choice")
    body |= _text_options(asked.text or {})
    if (effort := (asked.reasoning or {}).get("effort")) is not None:
        body["reasoning_effort"] = effort
    if asked.top_logprobs or LOGPROBS in (asked.include or ()):
        body |= {"logprobs": True, "top_logprobs": asked.top_logprobs or 0}
    return body


def _nested(flat: Mapping[str, Any], kind: str, param: str) -> dict[str, Any]:
    """A function or a schema in the form of chat completions, which have it under the name of its type."""
    if not isinstance(flat.get("name"), str) or not flat["name"]:
        raise Problem(400, "it has no name", code="invalid_request", param=param)
    return {
        "type": kind,
        kind: {name: each for name, each in flat.items() if name != "type" and each is not None},
    }


def _text_options(text: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a text: its format, and how long it should be."""
    options: dict[str, Any] = {}
    if text.get("verbosity") is not None:
        options["verbosity"] = text["verbosity"]
    form = text.get("format")
    if form is None:
        return options
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_schema":
        options["response_format"] = _nested(form, "json_schema", "text.format")
    elif kind == "json_object":
        options["response_format"] = {"type": "json_object"}
    elif kind != "text":
        raise _unsupported(
            "this format is not known", "text.format", "use text, json_object or json_schema as its type"
        )
    return options


def echo(asked: ResponsesRequest) -> dict[str, Any]:
    """The fields of a request that its response repeats."""
    return {
        "background": False,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": None,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "reasoning": {"effort": None, "summary": None, **(asked.reasoning or {})},
        "service_tier": "default",
        "store": asked.store is not False,
        "temperature": asked.temperature,
        "text": {"format": {"type": "text"}, **(asked.text or {})},
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": asked.top_p,
        "truncation": "disabled",
        "user": asked.user,
    }
