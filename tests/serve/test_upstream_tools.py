"""Tool calls and structured output pass through an upstream server that knows chat completions only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from serving import run, serving, sqlite

from editloop.serve.backends.base import BackendUnavailableError
from editloop.serve.backends.upstream import UpstreamBackend
from editloop.serve.backends.upstream_answers import completion_of
from editloop.serve.loop.tool_calls import ToolCalls
from editloop.serve.stub_answers import RESPONSE
from editloop.serve.testing import stub_server


def test_an_empty_text_beside_a_tool_call_is_no_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for content, calls, text in (
        ("", [call], None),
        ("Wait.", [call], None),
        ("", [], ""),
        ("Hi", None, "Hi"),
    ):
        message = {"role": "assistant", "content": content, "tool_calls": calls}
        body = json.dumps({"choices": [{"message": message}]}).encode()
        found = completion_of(body)
        assert (found.text, found.message) == (text, message)


def test_parts_of_calls_are_put_together() -> None:
    calls = ToolCalls()
    calls.add([{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}}])
    calls.add(
        [{"index": 0, "id": "a", "function": {"name": "f"}}, {"index": 1, "function": {"arguments": "}"}}]
    )
    first, second = calls.whole
    assert (first["id"], first["function"]) == ("a", {"name": "f", "arguments": ""})
    assert (second["id"], second["function"]) == ("b", {"name": "g", "arguments": "{}"})
    bad: list[Any] = ["x", {"index": "x"}, {"index": 0, "function": {"arguments": {"a": 1}}}, {"function": 5}]
    for part in bad:
        with pytest.raises(BackendUnavailableError):
            calls.add([part])


TOOL = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}},
}
CITY = {"city": "Ada", "days": [1]}


@pytest.mark.parametrize("stream", [False, True])
def test_tools_and_schemas_pass_through(tmp_path: Path, stream: bool) -> None:
    tool = {"name": "weather", "parameters": TOOL}
    form = {"name": "city", "schema": TOOL, "strict": True}

    async def work() -> None:
        with stub_server(tmp_path / "stub.log") as port:
            upstream = UpstreamBackend(f"http://127.0.0.1:{port}/v1", base="stub")
            async with serving(sqlite(tmp_path), tmp_path, backend=upstream) as service:

                async def answer(path: str, **body: Any) -> Any:
                    asked = {"model": "editloop", "stream": stream, **body}
                    found = await service.http.post(path, json=asked)
                    if not stream:
                        return found.json()
                    lines = [line for line in found.text.split("\n") if line.startswith("data: {")]
                    return [json.loads(line.removeprefix("data: ")) for line in lines]

                chat = {"messages": [{"role": "user", "content": "Hi"}]}
                found = await answer(
                    "/v1/chat/completions", tools=[{"type": "function", "function": tool}], **chat
                )
                if stream:
                    calls = ToolCalls()
                    for each in found:
                        calls.add(each["choices"][0]["delta"].get("tool_calls") or ())
                    (call,) = calls.whole
                    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"
                else:
                    (call,) = found["choices"][0]["message"]["tool_calls"]
                assert json.loads(call["function"]["arguments"]) == CITY
                found = await answer("/v1/responses", input="Hi", tools=[{"type": "function", **tool}])
                response = found[-1]["response"] if stream else found
                assert json.loads(response["output"][0]["arguments"]) == CITY
                assert response["usage"]["total_tokens"] == 110
                wanted = {"type": "json_schema", "json_schema": form}
                found = await answer("/v1/chat/completions", response_format=wanted, **chat)
                if stream:
                    text = "".join(each["choices"][0]["delta"].get("content", "") for each in found)
                else:
                    text = found["choices"][0]["message"]["content"]
                assert json.loads(text) == CITY
                text_format = {"format": {"type": "json_schema", **form}}
                found = await answer("/v1/responses", input="Hi", text=text_format)
                response = found[-1]["response"] if stream else found
                assert json.loads(response["output"][0]["content"][0]["text"]) == CITY
                found = await answer("/v1/responses", input="Hi")
                response = found[-1]["response"] if stream else found
                assert response["output"][0]["content"][0]["text"] == RESPONSE

    run(work())
