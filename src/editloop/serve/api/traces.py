"""`/v1/traces`: GenAI spans of other systems (OTLP over HTTP), whose responses become drafts.

An edit refers to such a draft by the provider's id of the response (`gen_ai.response.id`), or by its span, as
`TRACE-SPAN` in hexadecimal digits. Spans of other kinds, and those without texts, are accepted and not kept.
"""

from __future__ import annotations

import asyncio
import json
import re
import time

from fastapi import APIRouter, Request
from fastapi.responses import Response

from editloop.serve.api.schemas import ID, check_value
from editloop.serve.api.state import ServerState, get_state
from editloop.serve.loop.edit_commands import RecordExternal, RecordSpan
from editloop.serve.loop.logged_text import logged_context, logged_metadata
from editloop.serve.loop.redaction import redact_text
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
    redact, alias = state.completions.redact, f"{span.trace_id}-{span.span_id}"
    is_text = isinstance(generation.context, str)
    context = (
        redact_text(generation.context, redact) if is_text else logged_context(generation.context, redact)
    )
    response = redact_text(generation.response, redact)
    user, model = (
        text and text[:length] for text, length in ((generation.user, 256), (generation.model, 200))
    )
    named = generation.response_id
    about = {"trace_id": span.trace_id, "span_id": span.span_id}
    if service is not None:
        about["service"] = str(service)
    draft = RecordExternal(
        named if named and re.match(ID, named) else alias,
        user,
        model,
        json.dumps(context, ensure_ascii=False, allow_nan=False),
        response,
        logged_metadata(about, redact),
        state.loop.scopes.digest([context, response, user, model]),
        span.time or time.time(),
    )
    return RecordSpan(draft, alias)
