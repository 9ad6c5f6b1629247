"""`/v1/traces`: GenAI spans of other systems (OTLP over HTTP), whose responses become drafts.

An edit refers to such a draft by the provider's id of the response (`gen_ai.response.id`), or by its span, as
`TRACE-SPAN` in hexadecimal digits. Spans of other kinds, and those without texts, are accepted and not kept.
"""

from __future__ import annotations

import asyncio
import re
import time

from fastapi import APIRouter, Request
from fastapi.responses import Response

from editloop.serve.api.recording import external_draft
from editloop.serve.api.schemas import ID, check_value
from editloop.serve.api.state import ServerState, get_state
from editloop.serve.loop.edit_commands import RecordSpan
from editloop.serve.problem import Problem
from editloop.serve.telemetry.gen_ai import Generation, generation_of
from editloop.serve.telemetry.otlp import JSON, PROTOBUF, Span, answer, read_spans, unpacked

__all__ = ["router"]

router = APIRouter()

UNPACKED = 8
"""How many times as long as a request its body may be once it is unpacked."""


@router.post("/v1/traces", tags=["edits"])
async def record_spans(request: Request) -> Response:
    """Keep the responses that spans report; what was written is on the disk when this is answered."""
    state = get_state(request)
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, PROTOBUF):
        raise Problem(415, "OTLP is protobuf or JSON", code="media_type", seen=kind, do=f"send {PROTOBUF}")
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    body = unpacked(await request.body(), encoding, UNPACKED * state.limits.body)
    rejected: list[str] = []
    commands: list[RecordSpan] = []
    for span in read_spans(body, kind):
        if span is None:
            rejected.append("a span without a valid id")
        elif (generation := generation_of(span)) is not None:
            try:
                commands.append(_command(state, span, generation))
            except Problem as problem:
                rejected.append(str(problem))
    await asyncio.gather(*map(state.loop.write, commands))
    message = f"{rejected[0]}, and {len(rejected) - 1} more" if len(rejected) > 1 else "".join(rejected)
    return Response(answer(kind, len(rejected), message), media_type=kind)


def _command(state: ServerState, span: Span, generation: Generation) -> RecordSpan:
    """Return the command that keeps a response.

    Raises:
        Problem: One of its texts cannot be kept.
    """
    service = span.attributes.get("service.name")
    check_value({**generation._asdict(), "service": service}, state.limits.text)
    alias, named = f"{span.trace_id}-{span.span_id}", generation.response_id
    about = {"trace_id": span.trace_id, "span_id": span.span_id}
    if service is not None:
        about["service"] = str(service)
    draft = external_draft(
        state,
        generation.context,
        generation.response,
        user=generation.user and generation.user[:256],
        policy=generation.model and generation.model[:200],
        metadata=about,
        moment=span.time or time.time(),
        response_id=named if named and re.match(ID, named) else alias,
    )
    return RecordSpan(draft, alias)
