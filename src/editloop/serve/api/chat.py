"""`/v1/chat/completions` and `/v1/models`: what an OpenAI client talks to."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from editloop.serve.api.schemas import ChatRequest, check_texts, documented, parse
from editloop.serve.api.state import Room, room_of
from editloop.serve.backends.base import Refused, Unanswered
from editloop.serve.loop.completions import Answered, Question, Streamed, unanswered
from editloop.serve.problem import Problem

__all__ = ["ANY", "router"]

ANY = "editloop"
"""The model's name that lets the bandit choose."""

OWN = ("id", "user", "metadata")
"""Fields of a request that are not for the model."""

router = APIRouter()


@router.get("/v1/models", tags=["chat"])
async def models(request: Request) -> dict[str, Any]:
    """The names that a request may ask for."""
    room = room_of(request)
    names = [ANY, *room.live.bandit.arms]
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "editloop"} for name in names],
    }


@router.post("/v1/chat/completions", tags=["chat"], openapi_extra=documented(ChatRequest))
async def complete(request: Request) -> Response:
    """A response of the policy that is best for this user, as far as is known."""
    room, started = room_of(request), time.perf_counter()
    asked = parse(ChatRequest, await request.body())
    given = check_texts(asked, room.limits.text)
    question = Question(
        {key: value for key, value in given.items() if key not in OWN},
        asked.id,
        asked.user,
        _arm(room, asked.model),
        asked.metadata,
    )
    try:
        if asked.stream:
            streamed = await room.desk.stream(question)
            room.metrics.overhead(time.perf_counter() - started - streamed.model_seconds)
            with_usage = bool((asked.stream_options or {}).get("include_usage"))
            events = _events(streamed, with_usage=with_usage)
            return StreamingResponse(events, headers=_headers(streamed), media_type="text/event-stream")
        answered = await room.desk.answer(question)
    except Refused as error:
        body = error.body if isinstance(error.body, dict) else {"error": {"message": str(error.body)}}
        wait = {"Retry-After": error.retry_after} if error.retry_after else None
        return JSONResponse(body, error.status, wait)
    room.metrics.overhead(time.perf_counter() - started - answered.model_seconds)
    return JSONResponse(_completion(answered), headers=_headers(answered))


def _arm(room: Room, model: str) -> str | None:
    """The arm that a model's name means.

    Raises:
        Problem: 404, none.
    """
    arms = room.live.bandit.arms
    if model == ANY:
        return None
    named = [arm for arm in arms if arm == model or arm.partition("@")[0] == model]
    if not named:
        raise Problem(
            404,
            "no such model",
            code="model_not_found",
            param="model",
            seen=model,
            do=f"use {', '.join([ANY, *arms])}",
        )
    return named[-1]


def _headers(answer: Answered | Streamed) -> dict[str, str]:
    return {"X-EditLoop-Policy": answer.arm, "X-EditLoop-Response-Id": answer.response_id}


def _completion(answered: Answered) -> dict[str, Any]:
    done = answered.completion
    choice = {"index": 0, "message": done.message, "finish_reason": done.finish}
    return {
        "id": answered.response_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answered.arm,
        "choices": [choice | {"logprobs": done.logprobs}],
        "usage": done.usage or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


async def _events(streamed: Streamed, *, with_usage: bool) -> AsyncIterator[str]:
    """A stream's chunks as server-sent events; a stream that breaks off says so in its last."""
    frame = {
        "id": streamed.response_id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": streamed.arm,
    }

    def event(body: dict[str, Any]) -> str:
        return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"

    usage = None
    try:
        async for chunk in streamed.chunks:
            usage = chunk.usage or usage
            if chunk.delta or chunk.finish:
                choice = {"index": 0, "delta": chunk.delta, "finish_reason": chunk.finish}
                yield event({**frame, "choices": [choice | {"logprobs": chunk.logprobs}]})
    except (Unanswered, Problem) as error:
        if isinstance(error, Unanswered):
            error = unanswered(error, streamed.arm, streamed.response_id)
        yield event(error.body())
        return
    if with_usage:
        yield event({**frame, "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"
