"""`/v1/responses`: creating a response, whole or as a stream of events, and reading it again."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from itertools import count
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from editloop.serve.api.chat import headers, token_field
from editloop.serve.api.models import arm_named
from editloop.serve.api.responses.earlier import WHY, earlier_messages, said, with_references
from editloop.serve.api.responses.items import messages_of
from editloop.serve.api.responses.output import Output, status_of, usage_of
from editloop.serve.api.responses.schema import (
    ResponsesRequest,
    chat_body,
    check_supported,
    echo,
    rejected_param,
)
from editloop.serve.api.schemas import check_texts, documented, parse
from editloop.serve.api.state import ServerState, get_state
from editloop.serve.backends.base import BackendUnavailableError, Chunk, UpstreamRejectedError
from editloop.serve.loop.completion import CompletionRequest, CompletionStream
from editloop.serve.loop.completions import backend_problem
from editloop.serve.problem import Problem
from editloop.serve.telemetry.spans import CompletionSpan, begin_span
from editloop.store import reads

__all__ = ["router"]

router = APIRouter()


@router.post("/v1/responses", tags=["chat"], openapi_extra=documented(ResponsesRequest))
async def create(request: Request) -> Response:
    """Generate a response by the policy that is best for this user, as far as is known."""
    state, started = get_state(request), time.perf_counter()
    asked = parse(ResponsesRequest, await request.body())
    given = check_texts(asked, state.limits.text)
    wanted = await _completion_request(state, asked, given)
    span = begin_span(state.spans, asked.model, request.headers)
    try:
        if asked.stream:
            with span.ended_by_errors():
                stream = await state.completions.stream(wanted)
            state.metrics.count_completion(time.perf_counter() - started - stream.model_seconds)
            token = state.tokens.issue(stream.response_id)
            events = _events(stream, echo(asked) | token_field(token), span)
            return StreamingResponse(events, headers=headers(stream, token), media_type="text/event-stream")
        with span.ended_by_errors():
            result = await state.completions.complete(wanted)
    except UpstreamRejectedError as error:
        raise _renamed(error) from error
    state.metrics.count_completion(time.perf_counter() - started - result.model_seconds)
    done = result.completion
    try:
        with span.ended_by_errors():
            output = _whole(result.response_id, done.message, done.finish, done.logprobs)
    except BackendUnavailableError as error:  # it has answered in another form than that of the API
        raise backend_problem(error, result.arm, result.response_id) from error
    span.end([result], done.usage, [done.finish])
    token = state.tokens.issue(result.response_id)
    about = _frame(result.response_id, result.arm) | echo(asked) | token_field(token)
    return JSONResponse(_ended(about, output, done.finish, done.usage), headers=headers(result, token))


async def _completion_request(
    state: ServerState, asked: ResponsesRequest, given: Mapping[str, Any]
) -> CompletionRequest:
    """The request for a completion, whose messages are those of earlier responses, too."""
    check_supported(given)
    arm = arm_named(state, asked.model, asked.user)
    items = asked.input
    if not isinstance(items, str):
        items = [dict(each) for each in await with_references(state.loop, items, asked.user)]
    messages = messages_of(asked.instructions, items)
    if asked.previous_response_id is not None:
        at = 1 if asked.instructions else 0
        messages[at:at] = await earlier_messages(state.loop, asked.previous_response_id, asked.user)
    return CompletionRequest(
        chat_body(asked, given, messages),
        asked.id,
        asked.user,
        arm,
        asked.metadata,
        store=asked.store is not False,
        has_instructions=bool(asked.instructions),
        prefix="resp_",
    )


def _renamed(error: UpstreamRejectedError) -> UpstreamRejectedError:
    """A rejection that names the field as it is in this API."""
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        inner = body["error"]
        body = {**body, "error": {**inner, "param": inner.get("param") and rejected_param(inner["param"])}}
    return UpstreamRejectedError(error.status, body, error.retry_after)


def _frame(response_id: str, arm: str, created: float | None = None) -> dict[str, Any]:
    """What every form of a response begins with."""
    moment = time.time() if created is None else created
    return {"id": response_id, "object": "response", "created_at": int(moment), "model": arm}


def _standing(about: Mapping[str, Any], status: str, **more: Any) -> dict[str, Any]:
    """A response as it stands."""
    nothing: dict[str, Any] = {"error": None, "incomplete_details": None, "output": [], "usage": None}
    return {**about, "status": status, **nothing, **more}


def _ended(
    about: Mapping[str, Any], output: Output, finish: str, usage: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A response that has ended."""
    status, why = status_of(finish)
    return _standing(about, status, incomplete_details=why, output=output.items, usage=usage_of(usage))


def _whole(
    response_id: str, message: Mapping[str, Any], finish: str, logprobs: dict[str, Any] | None = None
) -> Output:
    """The output of a response that came as one message."""
    output = Output(response_id)
    for _ in output.add(Chunk(dict(message), logprobs=logprobs)):
        pass
    for _ in output.end(status_of(finish)[0]):
        pass
    return output


async def _events(
    stream: CompletionStream, echoed: Mapping[str, Any], span: CompletionSpan
) -> AsyncIterator[str]:
    """A stream as server-sent events. The last one holds the whole response, or the error that ended it."""
    about = {**_frame(stream.response_id, stream.arm), **echoed}
    output, numbers = Output(stream.response_id), count()

    def event(kind: str, says: Mapping[str, Any]) -> str:
        body = {"type": kind, "sequence_number": next(numbers), **says}
        return f"event: {kind}\ndata: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"

    yield event("response.created", {"response": _standing(about, "in_progress")})
    yield event("response.in_progress", {"response": _standing(about, "in_progress")})
    usage, finish, failed = None, "stop", "cancelled"  # by a client that has gone, unless the end is reached
    try:
        async for chunk in stream.chunks:
            usage, finish = chunk.usage or usage, chunk.finish or finish
            for each in output.add(chunk):
                yield event(*each)
    except (BackendUnavailableError, Problem) as error:
        if isinstance(error, BackendUnavailableError):
            error = backend_problem(error, stream.arm, stream.response_id)
        failed = error.code
        failure = {"code": "server_error", "message": error.body()["error"]["message"]}
        broken = _standing(about, "failed", error=failure, output=output.items)
        yield event("response.failed", {"response": broken})
        return
    else:
        failed = ""
    finally:
        span.end([stream], usage, [finish], failed)
    status, _ = status_of(finish)
    for each in output.end(status):
        yield event(*each)
    yield event(f"response.{status}", {"response": _ended(about, output, finish, usage)})


@router.get("/v1/responses/{response_id}", tags=["chat"])
async def show(request: Request, response_id: str) -> dict[str, Any]:
    """Read a response again, as it was kept; of what was asked, only the metadata is repeated."""
    missing = Problem(
        404, "no such response", code="response_not_found", param="response_id", seen=response_id
    )
    if "\0" in response_id:
        raise missing
    draft = await get_state(request).loop.read(lambda c: reads.draft(c, response_id))
    if draft is None or draft.has_instructions is None:  # it is of a chat completion
        raise missing
    if draft.finish in WHY and draft.finish != "failed":
        raise Problem(410, WHY[draft.finish], code=f"response_{draft.finish}", param="response_id")
    about = _frame(response_id, draft.policy, draft.time) | echo(ResponsesRequest(model="-", input="-"))
    about |= {"metadata": json.loads(draft.metadata or "{}")}
    if draft.finish is None:
        return _standing(about, "in_progress")
    if draft.response is None and draft.message is None:
        failure = {"code": "server_error", "message": "the policy could not answer"}
        return _standing(about, "failed", error=failure)
    return _ended(about, _whole(response_id, said(draft), draft.finish), draft.finish, None)
