"""What policies in this process can do: a table of the API's parameters, with the values that are supported.

A request is checked against it before anything is decided, so that a rejected request leaves no trace. A
parameter that is not in the table is rejected by its name, because ignoring it would give a wrong answer that
looks right. Backends that pass requests on need no table: the server behind them knows what it can do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from editloop.serve.backends.base import UpstreamRejectedError

__all__ = ["IN_PROCESS", "check_request", "rejection"]


class Objection(NamedTuple):
    """What is not supported, and the field of the request that asks for it."""

    what: str
    param: str


Check = Callable[[str, Any], Iterator[Objection]]


def any_value(name: str, value: Any) -> Iterator[Objection]:
    """Allow any value: it is supported, or makes no difference to a text."""
    yield from ()


def only(*values: Any) -> Check:
    """Allow only these values, which ask for nothing special."""

    def check(name: str, value: Any) -> Iterator[Objection]:
        # The types are compared as well, because False == 0 and True == 1 in Python, but not in JSON.
        if not any(value == each and type(value) in _alike(each) for each in values):
            allowed = [json.dumps(each) for each in values if each]
            yield Objection(f"`{name}`" + (f" other than {' or '.join(allowed)}" if allowed else ""), name)

    return check


def _alike(value: Any) -> tuple[type, ...]:
    """The types that JSON does not distinguish from that of a value: it has one type of number."""
    return (int, float) if type(value) in (int, float) else (type(value),)


def whole_number(name: str, value: Any) -> Iterator[Objection]:
    """Allow a whole number of 64 bits, which can seed a generator."""
    if type(value) is not int or not -(2**63) <= value < 2**63:
        yield Objection(f"`{name}` other than a whole number of 64 bits", name)


def texts(name: str, value: Any) -> Iterator[Objection]:
    """Allow one or several texts, none of them empty."""
    several = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) and each for each in several):
        yield Objection(f"`{name}` that is empty", name)


def text_messages(name: str, messages: Any) -> Iterator[Objection]:
    """Allow messages with a role, a text and nothing else."""
    for i, message in enumerate(messages):
        where = f"{name}.{i}"
        for key, value in message.items():
            if key not in ("role", "content") and value is not None:
                yield Objection(f"`{key}` of a message", f"{where}.{key}")
        content = message.get("content")
        if content is None:
            yield Objection("a message without a text", f"{where}.content")
        for j, part in enumerate(content if isinstance(content, list) else ()):
            kind = part.get("type")
            if kind != "text" or not isinstance(part.get("text"), str):
                shown = kind if isinstance(kind, str) else "?"
                yield Objection(f"content of the type `{shown[:40]}`", f"{where}.content.{j}")


IN_PROCESS: Mapping[str, Check] = {
    "model": any_value,
    "messages": text_messages,
    "stream": any_value,
    "stream_options": any_value,
    "max_tokens": any_value,
    "max_completion_tokens": any_value,
    "temperature": any_value,
    "top_p": any_value,
    "seed": whole_number,
    "stop": texts,
    "n": only(1),
    "tools": only([]),
    "tool_choice": only("none"),
    "parallel_tool_calls": any_value,  # there are no tools
    "functions": only([]),
    "function_call": only("none"),
    "response_format": only({"type": "text"}),
    "logprobs": only(False),
    "top_logprobs": only(0),
    "frequency_penalty": only(0),
    "presence_penalty": only(0),
    "logit_bias": only({}),
    "modalities": only(["text"]),
    "audio": only(),
    "reasoning_effort": only("none"),
    "web_search_options": only(),
    "prediction": any_value,  # a hint that only makes an answer faster
    "store": only(False),
    "service_tier": only("auto", "default"),
    "prompt_cache_key": any_value,  # hints for a service with many customers
    "safety_identifier": any_value,
}
"""The checks, by OpenAI's name of a parameter; null is the same as leaving it out."""


def check_request(request: Mapping[str, Any], table: Mapping[str, Check]) -> None:
    """Check a request against a table.

    Raises:
        UpstreamRejectedError: 400, something is not supported; the message names the first such thing.
    """
    for name, value in request.items():
        if value is None:
            continue
        if name not in table:
            raise rejection(f"this backend does not know `{name[:64]}`", name[:64], "unsupported_parameter")
        for objection in table[name](name, value):
            what = f"this backend cannot do {objection.what} (serve the policies by --upstream)"
            raise rejection(what, objection.param, "unsupported_parameter")


def rejection(what: str, param: str, code: str = "invalid_request") -> UpstreamRejectedError:
    """A rejection in the form of OpenAI's API."""
    error = {"message": what, "type": "invalid_request_error", "param": param, "code": code}
    return UpstreamRejectedError(400, {"error": error})
