"""`/v1/chat/completions`: the route that most clients of OpenAI's API use."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from editloop.serve.api.models import arm_named
from editloop.serve.api.schemas import ChatRequest, check_texts, documented, parse
from editloop.serve.api.state import ServerState, get_state
from editloop.serve.backends.base import BackendUnavailableError
from editloop.serve.loop.choices import complete_choices, stream_choices
from editloop.serve.loop.completion import CompletionRequest, CompletionResult, CompletionStream
from editloop.serve.loop.completions import backend_problem
from editloop.serve.loop.streams import merged
from editloop.serve.problem import Problem
from editloop.serve.telemetry.spans import CompletionSpan, begin_span

__all__ = ["router"]

OWN_FIELDS = ("id", "user", "metadata", "n")
"""Fields of a request that are not passed on to the model."""

router = APIRouter()


@router.post("/v1/chat/completions", tags=["chat"], openapi_extra=documented(ChatRequest))
async def complete(request: Request) -> Response:
    """Generate a response by the policy that is best for this user, as far as is known."""
    state, started = get_state(request), time.perf_counter()
    asked = parse(ChatRequest, await request.body())
    given = check_texts(asked, state.limits.text)
    wanted = CompletionRequest(
        {key: value for key, value in given.items() if key not in OWN_FIELDS},
        asked.id,
        asked.user,
        arm_named(state, asked.model, asked.user),
        asked.metadata,
    )
    span = begin_span(state.spans, asked.model, request.headers)
    if asked.stream:
        with span.ended_by_errors():
            streams = await stream_choices(state.completions, wanted, asked.n or 1)
        _count(state, streams, started)
        with_usage = bool((asked.stream_options or {}).get("include_usage"))
        tokens = [state.tokens.issue(each.response_id) for each in streams]
        events = _events(streams, tokens, span, with_usage=with_usage)
        return StreamingResponse(
            events, headers=headers(streams[0], tokens[0]), media_type="text/event-stream"
        )
    with span.ended_by_errors():
        results = await complete_choices(state.completions, wanted, asked.n or 1)
    _count(state, results, started)
    tokens = [state.tokens.issue(each.response_id) for each in results]
    done = [each.completion for each in results]
    usage = _usage([each.usage for each in done])
    span.end(results, usage, [each.finish for each in done])
    return JSONResponse(_body(results, tokens, usage), headers=headers(results[0], tokens[0]))


def _count(
    state: ServerState, answers: Sequence[CompletionResult | CompletionStream], started: float
) -> None:
    """Count a request, with the time that it took apart from the model's."""
    waited = max(each.model_seconds for each in answers)
    state.metrics.count_completion(time.perf_counter() - started - waited)


def headers(answer: CompletionResult | CompletionStream, token: str | None) -> dict[str, str]:
    """The headers by which a client learns which policy answered, and with what edits are sent."""
    about = {"X-EditLoop-Policy": answer.arm, "X-EditLoop-Response-Id": answer.response_id}
    return about | ({} if token is None else {"X-EditLoop-Edit-Token": token})


def token_field(token: str | None) -> dict[str, str]:
    """The edit token as a field of a body; none if there is no token."""
    return {} if token is None else {"edit_token": token}


def _frame(answer: CompletionResult | CompletionStream, kind: str) -> dict[str, Any]:
    """What the body and every chunk begin with, from the first choice.

    Some frameworks drop the id and keep the fingerprint, which therefore holds it, too.
    """
    return {
        "id": answer.response_id,
        "object": kind,
        "created": int(time.time()),
        "model": answer.arm,
        "system_fingerprint": answer.response_id,
    }


def _choice(index: int, answer: CompletionResult | CompletionStream) -> dict[str, Any]:
    return {"index": index, "response_id": answer.response_id, "policy": answer.arm}


def _body(
    results: Sequence[CompletionResult], tokens: Sequence[str | None], usage: Mapping[str, Any] | None
) -> dict[str, Any]:
    choices = [
        _choice(index, each)
        | {
            "message": each.completion.message,
            "finish_reason": each.completion.finish,
            "logprobs": each.completion.logprobs,
        }
        | token_field(token)
        for index, (each, token) in enumerate(zip(results, tokens, strict=True))
    ]
    frame = _frame(results[0], "chat.completion")
    return {**frame, "choices": choices, "usage": usage or NO_USAGE, **token_field(tokens[0])}


NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def _usage(found: Sequence[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """The tokens of all choices. The prompt counts as often as it was sent, once for each choice."""
    if len(found) == 1:
        return found[0]
    known = [each for each in found if each is not None]
    return {name: sum(each.get(name) or 0 for each in known) for name in NO_USAGE} if known else None


async def _events(
    streams: Sequence[CompletionStream],
    tokens: Sequence[str | None],
    span: CompletionSpan,
    *,
    with_usage: bool,
) -> AsyncIterator[str]:
    """Streams' chunks as server-sent events; the first chunk of each choice has its edit token.

    If a stream breaks off, the last event holds the error. The status was 200 when they began and cannot be
    changed any more.
    """
    frame, first = _frame(streams[0], "chat.completion.chunk"), token_field(tokens[0])
    tokens = list(tokens)
    choices = [_choice(index, each) for index, each in enumerate(streams)]
    usages: list[dict[str, Any] | None] = [None] * len(streams)
    finishes: list[str | None] = [None] * len(streams)
    failed = "cancelled"  # by a client that has gone, unless the end is reached

    def event(body: dict[str, Any]) -> str:
        return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"

    try:
        async for index, chunk in merged([each.chunks for each in streams]):
            usages[index] = chunk.usage or usages[index]
            finishes[index] = chunk.finish or finishes[index]
            if chunk.delta or chunk.finish:
                part = {"delta": chunk.delta, "finish_reason": chunk.finish, "logprobs": chunk.logprobs}
                choice = {**choices[index], **part, **token_field(tokens[index])}
                yield event({**frame, "choices": [choice], **first})
                first, tokens[index] = {}, None
    except (BackendUnavailableError, Problem) as error:
        if isinstance(error, BackendUnavailableError):
            error = backend_problem(error, streams[0].arm, streams[0].response_id)
        failed = error.code
        yield event(error.body())
        return
    else:
        failed = ""
    finally:
        span.end(streams, _usage(usages), finishes, failed)
    if with_usage:
        yield event({**frame, "choices": [], "usage": _usage(usages)})
    yield "data: [DONE]\n\n"
