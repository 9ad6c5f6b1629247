"""The Responses API: its mapping to chat completions, its events, and what it goes on from."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Parrot, Service, error, run, serving, sqlite

from editloop.edits import Record
from editloop.serve.backends.base import BackendUnavailableError, Chunk, Completion, UpstreamRejectedError
from editloop.serve.backends.capabilities import IN_PROCESS, check_request

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "12 degrees"}


async def create(service: Service, asked: Any = "Write.", **more: Any) -> httpx.Response:
    return await service.http.post("/v1/responses", json={"model": "editloop", "input": asked, **more})


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each under its own name and with its number."""
    found = []
    for number, block in enumerate(answer.text.strip().split("\n\n")):
        name, data = block.split("\n")
        body = json.loads(data.removeprefix("data: "))
        assert name == f"event: {body['type']}" and body["sequence_number"] == number
        found.append(body)
    return found


class Caller(Parrot):
    """A backend that calls a tool until it has a result."""

    finish = "tool_calls"

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        if request["messages"][-1]["role"] == "tool":
            return await super().complete(arm, request, response_id)
        self.asked.append((arm, request))
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return Completion(None, self.finish, message)

    async def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}
        yield Chunk({"role": "assistant", "tool_calls": [first]})
        yield Chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"at"'}}]})
        yield Chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]})
        yield Chunk({}, "tool_calls")


def test_a_response_is_answered_and_its_edit_learned_from(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            answer = await create(
                service,
                user="ada",
                instructions="Be kind.",
                metadata={"page": "3"},
                temperature=0.5,
                max_output_tokens=9,
            )
            body = answer.json()
            assert body["object"] == "response" and body["status"] == "completed" and body["model"] == "a@1"
            assert body["id"].startswith("resp_") and body["id"] == answer.headers["X-EditLoop-Response-Id"]
            (item,) = body["output"]
            assert item["type"] == "message" and item["role"] == "assistant" and item["status"] == "completed"
            part = {"type": "output_text", "text": "Hello from a@1", "annotations": [], "logprobs": []}
            assert item["content"] == [part]
            assert (body["instructions"], body["metadata"], body["store"]) == (
                "Be kind.",
                {"page": "3"},
                True,
            )
            assert body["usage"]["total_tokens"] == 0 and body["incomplete_details"] is None
            ((arm, request),) = service.backend.asked
            messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Write."}]
            expected = {"model": "editloop", "messages": messages, "temperature": 0.5, "max_tokens": 9}
            assert (arm, request) == ("a@1", expected)
            edited = (await service.edit(body["id"], "Hello from me")).json()
            assert edited["cost"] == pytest.approx(1 / 3) and edited["policy"] == "a@1"
            line = (await service.http.get("/v1/edits", params={"format": "ndjson"})).text
            record = Record.model_validate_json(line)
            assert [each.content for each in record.context] == ["Be kind.", "Write."]  # type: ignore[union-attr]
            assert (record.user, record.metadata) == ("ada", {"page": "3"})

    run(work())


def test_items_become_messages(tmp_path: Path) -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Wea"}, {"type": "input_text", "text": "ther?"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        CALL,
        {**CALL, "call_id": "c2"},
        OUTPUT,
        {**OUTPUT, "call_id": "c2", "output": [{"type": "input_text", "text": "rain"}]},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "content": [{"type": "output_text", "text": "Rain."}],
        },
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "This?"},
                {"type": "input_image", "image_url": "data:,", "detail": "low"},
            ],
        },
    ]
    function = {"name": "look", "arguments": "{}"}
    calls = [{"id": name, "type": "function", "function": function} for name in ("c1", "c2")]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "12 degrees"},
        {"role": "tool", "tool_call_id": "c2", "content": "rain"},
        {"role": "assistant", "content": "Rain."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "This?"},
                {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}},
            ],
        },
    ]
    schema = {"type": "json_schema", "name": "weather", "schema": {"type": "object"}, "strict": True}

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            answer = await create(
                service,
                items,
                tools=[TOOL],
                tool_choice={"type": "function", "name": "look"},
                parallel_tool_calls=False,
                text={"format": schema},
                reasoning={"effort": "low"},
                top_logprobs=2,
                prompt_cache_key="k",
                top_k=5,
                truncation="disabled",
            )
            assert answer.status_code == 200, answer.text
            ((_, request),) = service.backend.asked
            assert request == {
                "model": "editloop",
                "messages": messages,
                "tools": [
                    {"type": "function", "function": {name: TOOL[name] for name in TOOL if name != "type"}}
                ],
                "tool_choice": {"type": "function", "function": {"name": "look"}},
                "parallel_tool_calls": False,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {name: schema[name] for name in schema if name != "type"},
                },
                "reasoning_effort": "low",
                "logprobs": True,
                "top_logprobs": 2,
                "prompt_cache_key": "k",
                "top_k": 5,
            }
            assert answer.json()["tools"] == [TOOL] and answer.json()["text"] == {"format": schema}

    run(work())


def test_a_stream_has_all_events_in_their_order(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            answer = await create(service, stream=True)
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = events_of(answer)
            assert [each["type"].removeprefix("response.") for each in events] == [
                "created",
                "in_progress",
                "output_item.added",
                "content_part.added",
                *["output_text.delta"] * 3,
                "output_text.done",
                "content_part.done",
                "output_item.done",
                "completed",
            ]
            begun, ended = events[0]["response"], events[-1]["response"]
            assert (begun["status"], begun["output"], ended["status"]) == ("in_progress", [], "completed")
            assert begun["id"] == ended["id"] == answer.headers["X-EditLoop-Response-Id"]
            assert events[2]["item"]["content"] == [] and events[3]["part"]["text"] == ""
            deltas = [each["delta"] for each in events if each["type"] == "response.output_text.delta"]
            assert deltas == ["Hello ", "from ", "a@1 "]
            assert events[7]["text"] == events[8]["part"]["text"] == "Hello from a@1 "
            assert ended["output"] == [events[9]["item"]]
            for each in events[3:9]:
                place = each["item_id"], each["output_index"], each["content_index"]
                assert place == (ended["output"][0]["id"], 0, 0)
            ((_, request),) = service.backend.asked
            assert request["stream_options"] == {"include_usage": True}
            assert (await service.edit(ended["id"])).json()["status"] == "accepted"

    run(work())


def test_a_call_of_a_tool_is_an_item_with_events_of_its_own(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, backend=Caller()) as service:
            events = events_of(await create(service, stream=True, tools=[TOOL]))
            assert [each["type"].removeprefix("response.") for each in events] == [
                "created",
                "in_progress",
                "output_item.added",
                *["function_call_arguments.delta"] * 2,
                "function_call_arguments.done",
                "output_item.done",
                "completed",
            ]
            (call,) = events[-1]["response"]["output"]
            assert call == events[-2]["item"] and events[2]["item"]["arguments"] == ""
            names = ("type", "call_id", "name", "arguments", "status")
            whole = ("function_call", "c1", "look", '{"at": 1}', "completed")
            assert tuple(call[name] for name in names) == whole
            assert events[-3]["arguments"] == '{"at": 1}' and events[-3]["item_id"] == call["id"]
            (same,) = (await create(service, tools=[TOOL])).json()["output"]
            assert {**same, "id": ""} == {**call, "id": ""}
            error(await service.edit(events[0]["response"]["id"], "x"), 410, "response_tool_calls")

    run(work())


def test_a_text_and_its_calls_are_items_one_after_the_other(tmp_path: Path) -> None:
    async def both(arm: str, request: Any, response_id: str) -> AsyncIterator[Chunk]:
        yield Chunk({"content": "Let me look."})
        for index in (0, 1):
            call = {"index": index, "id": f"c{index}", "function": {"name": "look", "arguments": "{}"}}
            yield Chunk({"tool_calls": [call]})
        yield Chunk({}, "tool_calls", {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12})

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            service.backend.stream = both  # type: ignore[method-assign]
            events = events_of(await create(service, stream=True))
            items = events[-1]["response"]["output"]
            assert [each["type"] for each in items] == ["message", "function_call", "function_call"]
            done = [each["item"]["id"] for each in events if each["type"] == "response.output_item.done"]
            assert done == [each["id"] for each in items] and len(set(done)) == 3
            places = [each["output_index"] for each in events if "output_index" in each]
            assert places == sorted(places)
            usage = events[-1]["response"]["usage"]
            assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 5, 12)
            # The items can be sent back as references, as some clients do.
            references = [{"type": "item_reference", "id": each} for each in done]
            results = [{**OUTPUT, "call_id": "c0"}, OUTPUT]
            await create(service, [{"role": "user", "content": "Hi"}, *references, *results])
            message = service.backend.asked[-1][1]["messages"][1]
            assert message["content"] == "Let me look." and [c["id"] for c in message["tool_calls"]] == [
                "c0",
                "c1",
            ]

    run(work())


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_is_cut_says_why(tmp_path: Path, stream: bool) -> None:
    class Cut(Parrot):
        async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
            return Completion("Dear", "length", {"role": "assistant", "content": "Dear"})

        async def stream(self, arm: str, request: Any, response_id: str) -> AsyncIterator[Chunk]:
            yield Chunk({"content": "Dear"}, "length")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, backend=Cut()) as service:
            answer = await create(service, stream=stream)
            body = events_of(answer)[-1]["response"] if stream else answer.json()
            assert not stream or events_of(answer)[-1]["type"] == "response.incomplete"
            assert (body["status"], body["output"][0]["status"]) == ("incomplete", "incomplete")
            assert body["incomplete_details"] == {"reason": "max_output_tokens"}

    run(work())


def test_a_stream_that_breaks_off_ends_with_the_error(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            service.backend.fails["a@1"] = BackendUnavailableError("error", "too late")
            events = events_of(await create(service, stream=True))
            last = events[-1]
            assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
            assert "could not answer" in last["response"]["error"]["message"]
            error(await service.edit(last["response"]["id"], "x"), 410, "response_failed")
            shown = (await service.http.get(f"/v1/responses/{last['response']['id']}")).json()
            assert shown["status"] == "failed"

    run(work())


def test_a_response_goes_on_from_an_earlier_one(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            first = (await create(service, "One", user="ada", instructions="Be kind.")).json()
            second = (
                await create(
                    service,
                    "Two",
                    user="ada",
                    previous_response_id=first["id"],
                    instructions="Be brief.",
                    stream=False,
                )
            ).json()
            assert second["previous_response_id"] == first["id"]
            await create(service, "Three", user="ada", previous_response_id=second["id"])
            said = ["Hello from a@1", "Hello from b@2"]
            turns = [("user", "One"), ("assistant", said[0]), ("user", "Two"), ("assistant", said[1])]
            asked = [
                [(each["role"], each["content"]) for each in request["messages"]]
                for _, request in service.backend.asked
            ]
            assert asked[1] == [("system", "Be brief."), *turns[:3]]
            assert asked[2] == [*turns, ("user", "Three")]
            chat = (await service.ask("Four", user="ada")).json()["id"]  # of a chat completion, too
            await create(service, "Five", user="ada", previous_response_id=chat)
            assert service.backend.asked[-1][1]["messages"][0]["content"] == "Four"

    run(work())


def test_a_tool_call_can_be_gone_on_from(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        for stream in (False, True):
            async with serving(url, tmp_path, backend=Caller()) as service:
                answer = await create(service, "Weather?", tools=[TOOL], stream=stream)
                call = answer.headers["X-EditLoop-Response-Id"]
                done = await create(service, [OUTPUT], previous_response_id=call)
                assert done.status_code == 200, done.text
                messages = service.backend.asked[-1][1]["messages"]
                assert [each["role"] for each in messages] == ["user", "assistant", "tool"]
                function = messages[1]["tool_calls"][0]["function"]
                assert function == {"name": "look", "arguments": '{"at": 1}'}
                shown = (await service.http.get(f"/v1/responses/{call}")).json()
                assert shown["output"][0]["arguments"] == '{"at": 1}'

    run(work())


def test_what_cannot_be_gone_on_from_is_refused(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        code, param = "previous_response_not_found", "previous_response_id"
        async with serving(url, tmp_path) as service:
            mine = (await create(service, user="ada")).json()["id"]
            unstored = (await create(service, user="ada", store=False)).json()["id"]
            for user, response_id, shown in (
                ("bo", mine, "no such response of this user"),
                (None, mine, "no such response of this user"),
                ("ada", "resp_unknown", "no such response of this user"),
                ("ada", unstored, "not kept"),
            ):
                more = {} if user is None else {"user": user}
                refused = await create(service, previous_response_id=response_id, **more)
                found = error(refused, 400, code)
                assert shown in found["message"] and found["param"] == param
            reference = [{"type": "item_reference", "id": f"msg_{mine}~0"}]
            assert error(await create(service, reference, user="bo"), 400, code)["param"] == "input.0.id"
            assert (await create(service, reference, user="ada")).status_code == 200
            for name in (f"fc_{mine}~0", f"msg_{mine}", "nonsense", f"fc_{mine}~" + "9" * 99):
                asked = [{"type": "item_reference", "id": name}]
                error(await create(service, asked, user="ada"), 400, code)
            await service.http.delete("/v1/users/ada")
            refused = await create(service, previous_response_id=mine, user="ada")
            assert "were removed" in error(refused, 400, code)["message"]
            error(await service.http.get(f"/v1/responses/{mine}"), 410, "response_removed")
            await service.edit("ext-1", "Hi", context="c", response="Hello")
            error(await create(service, previous_response_id="ext-1"), 400, code)
            assert service.loop.bandit.state.decisions == 3  # those that were answered

    run(work())


def test_a_response_can_be_read_again(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            made = (await create(service, metadata={"a": "b"})).json()
            shown = (await service.http.get(f"/v1/responses/{made['id']}")).json()
            for name in ("id", "object", "model", "status", "output", "metadata"):
                assert shown[name] == made[name], name
            chat = (await service.ask()).json()["id"]
            for name in ("resp_unknown", chat, "%00"):
                error(await service.http.get(f"/v1/responses/{name}"), 404, "response_not_found")

    run(work())


BAD: list[tuple[dict[str, Any], str]] = [
    ({"input": []}, "input"),
    ({"input": ""}, "input"),
    ({"input": 5}, "input"),
    ({"input": ["text"]}, "input"),
    ({"input": None}, "input"),
    ({"input": [{"type": "computer_call_output"}]}, "input.0.type"),
    ({"input": [{}]}, "input.0.type"),
    ({"input": [{"type": ["message"]}]}, "input.0.type"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input.0.role"),
    ({"input": [{"role": "user"}]}, "input.0.content"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input.0.content.0.text"),
    ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input.0.content.0.type"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input.0.content.0",
    ),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input.0.call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input.0.output"),
    ({"input": [{"type": "reasoning"}]}, "input"),
    ({"input": "nul \0"}, "input"),
    ({"input": "half \ud800"}, "input"),
    ({"instructions": "nul \0"}, "instructions"),
    ({"temperature": 3}, "temperature"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"metadata": {"editloop_key": 5}}, "metadata"),
    ({"previous_response_id": "no spaces"}, "previous_response_id"),
    ({"tools": [{"type": "web_search"}]}, "tools.0"),
    ({"tools": [{"type": "function"}]}, "tools.0"),
    ({"tools": [TOOL], "tool_choice": {"type": "mcp"}}, "tool_choice"),
    ({"tool_choice": "some"}, "tool_choice"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
    ({"text": {"format": "json"}}, "text.format"),
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"truncation": "auto"}, "truncation"),
    ({"include": ["file_search_call.results"]}, "include.0"),
]


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for change, param in BAD:
                content = json.dumps({"model": "editloop", "input": "x", **change})
                answer = await service.http.post("/v1/responses", content=content)
                assert answer.status_code == 400, (change, answer.text)
                found = answer.json()["error"]
                assert found["param"] == param and "\n" not in found["message"], (change, found)
            long = await create(service, "x" * 1_000_000)
            assert error(long, 413, "text_too_long")["param"] == "input"
            error(await create(service, model="nobody"), 404, "model_not_found")
            assert service.backend.asked == [] and service.loop.bandit.state.decisions == 0

    run(work())


def test_what_policies_in_this_process_cannot_do_is_named(tmp_path: Path) -> None:
    class InProcess(Parrot):
        def check(self, request: Mapping[str, Any]) -> None:
            check_request(request, IN_PROCESS)

    image = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]
    schema = {"format": {"type": "json_schema", "name": "n", "schema": {}}}

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, backend=InProcess()) as service:
            for asked, more, param in (
                ("x", {"tools": [TOOL]}, "tools"),
                ("x", {"text": schema}, "text.format"),
                (image, {}, "input"),
                ("x", {"reasoning": {"effort": "high"}}, "reasoning.effort"),
            ):
                for stream in (False, True):
                    answer = await create(service, asked, stream=stream, **more)
                    found = error(answer, 400, "unsupported_parameter")
                    assert found["param"] == param and "--upstream" in found["message"]
            more = {"tools": [], "tool_choice": "auto", "text": {"format": {"type": "text"}}, "stream": True}
            assert events_of(await create(service, **more))[-1]["type"] == "response.completed"

    run(work())


def test_a_rejection_of_the_model_server_is_passed_on(tmp_path: Path) -> None:
    body = {"error": {"message": "too long", "type": "x", "param": "messages.0.content", "code": "long"}}

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            service.backend.fails["a@1"] = UpstreamRejectedError(400, body, "7")
            answer = await create(service)
            assert answer.status_code == 400 and answer.headers["Retry-After"] == "7"
            assert answer.json() == {"error": {**body["error"], "param": "input"}}

    run(work())


@pytest.mark.parametrize("calls", [["x"], [{"index": "x"}], [{"function": {"arguments": {"a": 1}}}], 5])
def test_an_answer_in_another_form_is_an_error_of_the_model_server(tmp_path: Path, calls: Any) -> None:
    class Odd(Parrot):
        async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
            message = {"role": "assistant", "content": None, "tool_calls": calls}
            return Completion(None, "tool_calls", message, {"prompt_tokens": "x"}, {"content": 5})

        async def stream(self, arm: str, request: Any, response_id: str) -> AsyncIterator[Chunk]:
            yield Chunk({"content": "One"}, logprobs={"content": None})
            yield Chunk({"tool_calls": calls})
            yield Chunk({}, "tool_calls")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, backend=Odd()) as service:
            error(await create(service), 502, "upstream_error")
            assert events_of(await create(service, stream=True))[-1]["type"] == "response.failed"
            assert service.loop.bandit.state.pending == 0

    run(work())
