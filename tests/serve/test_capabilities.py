"""What policies in this process cannot do is answered with a 400 that names it, and leaves no trace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from serving import Parrot, error, run, serving, sqlite
from sqlalchemy import func, select

from editloop.serve.backends.base import UpstreamRejectedError
from editloop.serve.backends.capabilities import IN_PROCESS, check_request
from editloop.store.schema import drafts, events

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def parts(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


class InProcess(Parrot):
    def check(self, request: Mapping[str, Any]) -> None:
        check_request(request, IN_PROCESS)


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_named_and_leaves_no_trace(tmp_path: Path, stream: bool) -> None:
    asked = [
        ({"tools": [TOOL]}, "tools", "cannot do `tools`"),
        ({"tool_choice": "auto"}, "tool_choice", 'cannot do `tool_choice` other than "none"'),
        ({"functions": [{"name": "f"}]}, "functions", "cannot do `functions`"),
        (
            {"response_format": {"type": "json_object"}},
            "response_format",
            'cannot do `response_format` other than {"type": "text"}',
        ),
        ({"logprobs": True}, "logprobs", "cannot do `logprobs`"),
        ({"top_logprobs": 3}, "top_logprobs", "cannot do `top_logprobs`"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "cannot do `frequency_penalty`"),
        ({"logit_bias": {"5": 100}}, "logit_bias", "cannot do `logit_bias`"),
        ({"modalities": ["text", "audio"]}, "modalities", "cannot do `modalities`"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "cannot do `reasoning_effort`"),
        ({"seed": "x"}, "seed", "cannot do `seed` other than a whole number"),
        ({"seed": 2**64}, "seed", "cannot do `seed` other than a whole number"),
        ({"stop": ["a", ""]}, "stop", "cannot do `stop` that is empty"),
        ({"top_k": 5}, "top_k", "does not know `top_k`"),
        (
            parts({"type": "text", "text": "x"}, IMAGE),
            "messages.0.content.1",
            "content of the type `image_url`",
        ),
        (parts(AUDIO), "messages.0.content.0", "content of the type `input_audio`"),
        (parts({"text": "x"}), "messages.0.content.0", "content of the type `?`"),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [CALL]}]},
            "messages.0.tool_calls",
            "cannot do `tool_calls` of a message",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "a message without a text"),
        ({"n": 9}, "n", "at most 8 choices"),
    ]

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, backend=InProcess()) as service:
            for more, param, shown in asked:
                answer = await service.ask(stream=stream, **more)
                code = "invalid_request" if param == "n" else "unsupported_parameter"
                found = error(answer, 400, code)
                assert shown in found["message"] and found["param"] == param
            assert service.backend.asked == [] and service.loop.bandit.state.pending == 0
            for table in (drafts, events):
                query = select(func.count()).select_from(table)
                kept = await service.loop.read(lambda c, query=query: c.scalar(query))
                assert kept == (0 if table is drafts else 1)  # the epoch

    run(work())


def test_what_asks_for_nothing_is_taken(tmp_path: Path) -> None:
    """Clients send the defaults, and null for what they leave out."""
    more = {
        "n": 1,
        "tools": [],
        "tool_choice": "none",
        "parallel_tool_calls": True,
        "response_format": {"type": "text"},
        "logprobs": False,
        "top_logprobs": None,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": None,
        "modalities": ["text"],
        "store": False,
        "service_tier": "auto",
        "seed": 7,
        "stop": ["\n\n"],
        "stream_options": None,
        "whatever": None,
    }

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, backend=InProcess()) as service:
            answer = await service.ask(**more)
            assert answer.status_code == 200, answer.text
            answer = await service.ask(**parts({"type": "text", "text": "a"}, {"type": "text", "text": "b"}))
            assert answer.status_code == 200, answer.text

    run(work())


def test_numbers_are_no_truth_values() -> None:
    for more in ({"logprobs": 0}, {"frequency_penalty": False}, {"n": True}):
        with pytest.raises(UpstreamRejectedError):
            check_request(more, IN_PROCESS)


def test_other_servers_say_for_themselves_what_they_cannot_do(tmp_path: Path) -> None:
    given = {"tools": [TOOL], "tool_choice": "auto", "top_k": 5, "logprobs": True, **parts(IMAGE)}

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            assert (await service.ask(**given)).status_code == 200
            ((_, request),) = service.backend.asked
            assert {name: request[name] for name in given} == given

    run(work())
