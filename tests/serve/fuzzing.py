"""Hostile requests: to each route, in each field of a valid request, with what JSON and URLs can hide."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from fastapi.routing import APIRoute
from site_server import Site
from starlette.routing import Route

MARK = "@@here@@"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

VALUES = (
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1e400",
    "-1e400",
    "1e308",
    "NaN",
    "-Infinity",
    "9" * 250,
    "9" * 5000,
    '""',
    '" "',
    r'"\u0000"',
    r'"\ud800"',
    r'"\udfff\ud800"',
    r'"\ud83d\ude00"',
    '"' + "x" * 100_000 + '"',
    '"</script><img src=x onerror=alert(1)>"',
    r'"\r\nX-Evil: 1"',
    '"\u2028\u202e\ufeff\ufffe"',
    "[]",
    "[[[]]]",
    "[" * 200 + "]" * 200,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 60_000 + "1" + "}" * 60_000,
    "{}",
    '{"a": 1, "a": 2}',
    '{"a": {"b": [1e400]}}',
    r'{"\ud800": 1}',
    r'{"\u0000": "\u0000"}',
    '{"": {"__proto__": {"toString": 1}, "constructor": null}}',
    '{"a": ' + "9" * 300 + "}",
)
"""Values as they are written in a document; some are not JSON."""

BODIES = (
    b"",
    b" ",
    b"{",
    b"nonsense",
    b"null",
    b"[]",
    b'"text"',
    b"0",
    b"\xff\xfe\xfd",
    b"\xef\xbb\xbf{}",
    b"\x00",
    '{"model": "editloop"}'.encode("utf-16"),
    b'{"edit": "\xed\xa0\x80"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"{}",
    b'{"model": "editloop", "model": "editloop", "messages": []}',
)

WORDS = (
    "",
    " ",
    "nan",
    "inf",
    "-1",
    "0",
    "1e400",
    "1e308",
    "9" * 400,
    "9" * 5000,
    "1e308:x",
    "inf:x",
    "-inf:",
    "\0",
    "a\0b",
    "\r\nX: 1",
    "../..",
    "'; DROP TABLE drafts; --",
    "%",
    "_%\\",
    "x" * 4000,
    "\u202e\u2028",
    "\U0001f600",
    "null",
    "[]",
)
RAW = ("%ff", "%ed%a0%80", "%00", "%2e%2e%2f", "%")
"""Texts as they are written in a URL; some are not UTF-8."""


GEN_AI = {
    "gen_ai.operation.name": "chat",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "Write."}]}]',
    "gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "text", "content": "Dear all,"}]}]',
}


class Hostile(NamedTuple):
    """A request."""

    method: str
    url: str
    body: bytes | None = None


def valid(response_id: str) -> dict[str, list[dict[str, Any]]]:
    """A valid body for each route, with all fields."""
    message = {"role": "user", "content": "Write.", "name": "ada"}
    chat = {
        "model": "editloop",
        "messages": [message, {"role": "user", "content": [{"type": "text", "text": "More."}]}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "max_completion_tokens": 5,
        "temperature": 1.0,
        "top_p": 1.0,
        "n": 1,
        "stop": ["x"],
        "user": "ada",
        "metadata": {"topic": "x", "nested": {"list": [1, "two", None]}},
        "id": "mine-1",
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    whole = {name: chat[name] for name in ("model", "messages", "user", "metadata")}
    own = {"response_id": response_id, "edit": "Mine.", "revision": 3, "key": "k", "reason": "#tone"}
    by_key = {"metadata": {"editloop_key": "fuzz"}, "edit": "Mine.", "response": "Hello"}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    response = {
        "model": "editloop",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Write."}]},
            call,
            {"type": "function_call_output", "call_id": "c", "output": "x"},
        ],
        "instructions": "Be kind.",
        "stream": True,
        "store": False,
        "temperature": 1.0,
        "top_logprobs": 0,
        "max_output_tokens": 5,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "tool_choice": {"type": "function", "name": "f"},
        "reasoning": {"effort": "low"},
        "include": ["message.output_text.logprobs"],
        "user": "ada",
        "metadata": {"editloop_key": "fuzz"},
        "id": "mine-2",
    }
    continued = {"model": "editloop", "input": "More.", "previous_response_id": response_id, "user": "ada"}
    reference = {"type": "item_reference", "id": f"msg_{response_id}~0"}
    elsewhere = {
        "context": [message],
        "response": "Dear all,",
        "edit": "Hi all,",
        "policy": "other",
        "user": "bo",
        "metadata": {"a": [1]},
    }
    shown = [{"key": name, "value": {"stringValue": text}} for name, text in GEN_AI.items()]
    listed = {"arrayValue": {"values": [{"intValue": "1"}, {"kvlistValue": {"values": shown[:1]}}]}}
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
        "endTimeUnixNano": "1772600001500000000",
        "attributes": [*shown, {"key": "gen_ai.response.finish_reasons", "value": listed}],
        "events": [{"name": "gen_ai.content.prompt", "attributes": shown[:1]}],
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "letters"}}]}
    run = {"run": "/nowhere", "policies": ["sft"], "replace": False, "force": False}
    return {
        "/v1/chat/completions": [chat, whole],
        "/v1/responses": [response, continued, {**continued, "input": [reference]}],
        "/v1/edits": [own, {"response_id": response_id, "accepted": True}, elsewhere, by_key],
        "/v1/edits:batch": [{**elsewhere, "time": "2026-03-04T05:06:07Z"}],
        "/v1/traces": [{"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}],
        "/v1/arms": [run],
        "/v1/stages": [{"subject": "nobody@1", "stage": "arm", "reason": "Try it."}],
        "/v1/autopilot": [{"paused": False}],
        "/v1/keys": [{"name": "shop", "role": "app"}],  # refused: the first key would close the server
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values in a document."""
    yield path
    for key, each in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(each, (*path, key))


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at a path."""
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = put(document[path[0]], path[1:], value)
    return copy


def documents(document: dict[str, Any]) -> Iterator[bytes]:
    """The document with each hostile value in each place, with duplicate keys, and with unknown keys."""
    for number, path in enumerate(places(document)):
        marked = put(document, path, MARK)
        if isinstance(marked, dict) and "id" in marked and path != ("id",):
            marked["id"] = f"mine-{number}"
        text = json.dumps(marked)
        for value in VALUES:
            yield text.replace(json.dumps(MARK), value).encode("utf-8", "surrogatepass")
    whole = json.dumps(document)
    for key in document:
        yield f'{whole[:-1]}, "{key}": null}}'.encode()
    for key in ("", r"\ud800", r"\u0000", "x" * 10_000, "__proto__", r"a\r\nb"):
        yield f'{whole[:-1]}, "{key}": 1}}'.encode()


def body_requests(response_id: str) -> Iterator[Hostile]:
    """Requests with a hostile body."""
    for path, examples in valid(response_id).items():
        for example in examples:
            for body in documents(example):
                yield Hostile("POST", path, body)


def url_requests(routes: list[Route], response_id: str) -> Iterator[Hostile]:
    """Requests with a hostile method, path or query, or a body that is hostile as a whole."""
    for route in routes:
        template = route.path.replace(":path}", "}")
        names = re.findall(r"{(\w+)}", template)
        path = re.sub(r"{\w+}", response_id, template)
        for method in METHODS:
            yield from (Hostile(method, path, body) for body in (None, *BODIES))
        queries = [each.alias for each in route.dependant.query_params] if isinstance(route, APIRoute) else []
        for method in route.methods or ():
            for word in (*(quote(each, safe="") for each in WORDS), *RAW):
                for name in names:
                    yield Hostile(method, template.replace(f"{{{name}}}", word))
                for query in queries:
                    yield Hostile(method, f"{path}?{query}={word}")
                    yield Hostile(method, f"{path}?{query}=1&{query}={word}")
                yield Hostile(method, f"{path}?{word}")


def routes_of(site: Site) -> list[Route]:
    """All routes of a server that a request can reach."""

    def walk(routes: list[Any]) -> Iterator[Route]:
        for each in routes:
            if isinstance(each, Route):
                yield each
            else:
                yield from walk(each.original_router.routes)

    return list(walk(site.app.routes))
