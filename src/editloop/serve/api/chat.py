"""`/v1/chat/completions` and `/v1/models`: the routes that an OpenAI client uses."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from editloop.serve.api.schemas import ChatRequest, check_texts, documented, parse
from editloop.serve.api.state import ServerState, get_state
from editloop.serve.backends.base import BackendUnavailableError, UpstreamRejectedError
from editloop.serve.loop.completion import CompletionRequest, CompletionResult, CompletionStream
from editloop.serve.loop.completions import backend_problem
from editloop.serve.problem import Problem
from editloop.serve.telemetry.spans import CompletionSpan

__all__ = ["ANY_ARM", "router"]

ANY_ARM = "editloop"
"""The name of the model that lets the bandit choose the arm."""

OWN_FIELDS = ("id", "user", "metadata")
"""Fields of a request that are not passed on to the model."""

router = APIRouter()


@router.get("/v1/models", tags=["chat"])
async def models(request: Request) -> dict[str, Any]:
    """The names that a request may use as its model."""
    names = [ANY_ARM, *get_state(request).loop.bandit.arms_of("")]
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "editloop"} for name in names],
    }


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
        _arm(state, asked.model, asked.user),
        asked.metadata,
    )
    span = None if state.spans is None else state.spans.begin(asked.model, request.headers)
    try:
        if asked.stream:
            stream = await state.completions.stream(wanted)
            state.metrics.count_completion(time.perf_counter() - started - stream.model_seconds)
            with_usage = bool((asked.stream_options or {}).get("include_usage"))
            events = _events(stream, span, with_usage=with_usage)
            return StreamingResponse(events, headers=_headers(stream), media_type="text/event-stream")
        result = await state.completions.complete(wanted)
    except UpstreamRejectedError as error:  # passed on as the model's server wrote it
        if span is not None:
            span.fail(str(error.status))
        body = error.body if isinstance(error.body, dict) else {"error": {"message": str(error.body)}}
        wait = {"Retry-After": error.retry_after} if error.retry_after else None
        return JSONResponse(body, error.status, wait)
    except BaseException as error:
        if span is not None:
            span.fail(error.code if isinstance(error, Problem) else type(error).__name__)
        raise
    state.metrics.count_completion(time.perf_counter() - started - result.model_seconds)
    if span is not None:
        completion = result.completion
        span.end(result.response_id, result.arm, completion.usage, completion.finish)
    return JSONResponse(_body(result), headers=_headers(result))


def _arm(state: ServerState, model: str, user: str | None) -> str | None:
    """The arm that a model's name stands for; None if the bandit chooses.

    A name without its hash, such as `sft`, stands for the arm of that name that was promoted last. An arm of
    another user is as if it were not there.

    Raises:
        Problem: 404, there is no such arm.
    """
    arms = state.loop.bandit.arms_of(state.loop.scope_of(user))
    if model == ANY_ARM:
        return None
    named = [arm for arm in arms if arm == model or arm.partition("@")[0] == model]
    if not named:
        raise Problem(
            404,
            "no such model",
            code="model_not_found",
            param="model",
            seen=model,
            do=f"use {', '.join([ANY_ARM, *arms])}",
        )
    return named[-1]


def _headers(answer: CompletionResult | CompletionStream) -> dict[str, str]:
    return {"X-EditLoop-Policy": answer.arm, "X-EditLoop-Response-Id": answer.response_id}


def _body(result: CompletionResult) -> dict[str, Any]:
    completion = result.completion
    choice = {"index": 0, "message": completion.message, "finish_reason": completion.finish}
    return {
        "id": result.response_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": result.arm,
        "choices": [choice | {"logprobs": completion.logprobs}],
        "usage": completion.usage or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


async def _events(
    stream: CompletionStream, span: CompletionSpan | None, *, with_usage: bool
) -> AsyncIterator[str]:
    """A stream's chunks as server-sent events. If the stream breaks off, its last event holds the error.

    The status was 200 when the stream began and cannot be changed any more.
    """
    frame = {
        "id": stream.response_id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": stream.arm,
    }

    def event(body: dict[str, Any]) -> str:
        return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"

    usage, finish, failed = None, None, "cancelled"  # by a client that has gone, unless the end is reached
    try:
        async for chunk in stream.chunks:
            usage, finish = chunk.usage or usage, chunk.finish or finish
            if chunk.delta or chunk.finish:
                choice = {"index": 0, "delta": chunk.delta, "finish_reason": chunk.finish}
                yield event({**frame, "choices": [choice | {"logprobs": chunk.logprobs}]})
    except (BackendUnavailableError, Problem) as error:
        if isinstance(error, BackendUnavailableError):
            error = backend_problem(error, stream.arm, stream.response_id)
        failed = error.code
        yield event(error.body())
        return
    else:
        failed = ""
    finally:
        if span is not None:
            span.end(stream.response_id, stream.arm, usage, finish, failed)
    if with_usage:
        yield event({**frame, "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"
