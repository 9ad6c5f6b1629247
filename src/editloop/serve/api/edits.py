"""`/v1/edits`: recording, finding and exporting users' edits, and saying why a draft was edited."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from editloop.edits import count_changes, diff_lines, redline
from editloop.edits.cost import Breakdown, Cost
from editloop.serve.api.edit_tokens import MAX_REVISIONS, admitted_for
from editloop.serve.api.export import EXPORTS, MEDIA_TYPES, Export
from editloop.serve.api.parameters import Before, check_text, cursor_of, parse_cursor
from editloop.serve.api.recording import edit_command, receipt
from editloop.serve.api.schemas import EditRequest, ReasonRequest, check_texts, documented, parse
from editloop.serve.api.state import ServerState, audit_entry, get_state
from editloop.serve.loop.admin_commands import Audited, SetReason
from editloop.serve.loop.redaction import redact_text
from editloop.serve.problem import Problem
from editloop.store import reads, references
from editloop.store.database import Connection, Row
from editloop.store.log_filter import LogFilter, log_page, log_rows

__all__ = ["router"]

router = APIRouter()

PAGE_ROWS = 50
"""Rows of a page, if a request sets no limit."""

STREAM_LINES = 500
"""Lines that are read at a time, in a thread, while a log is sent."""


@router.post("/v1/edits", tags=["edits"], openapi_extra=documented(EditRequest))
async def record(request: Request) -> dict[str, Any]:
    """Record what a user made of a response. It is on the disk when this is answered."""
    state = get_state(request)
    asked = parse(EditRequest, await request.body())
    only = admitted_for(request, asked, state.tokens)
    check_texts(asked, state.limits.text)
    key = asked.key or request.headers.get("Idempotency-Key")
    if key is not None and len(key) > 128:
        raise Problem(400, "a key has at most 128 characters", code="invalid_request", param="key")
    # Without a key nothing says that a text from elsewhere was sent before, so it counts as another one.
    new_id = None if key else f"ext-{uuid4().hex}"
    with state.tokens.counted() if only else nullcontext():
        limit = MAX_REVISIONS if only else None
        command = await edit_command(state, asked, key=key, moment=time.time(), new_id=new_id, limit=limit)
        (result,) = await state.loop.edits([command])
        if isinstance(result, Problem):
            raise result
    return receipt(result)


@router.get("/v1/edits", tags=["edits"])
async def find(
    request: Request,
    user: Annotated[str | None, Query(max_length=256)] = None,
    policy: Annotated[str | None, Query(max_length=200)] = None,
    status: Literal["edited", "accepted", "discarded", "pending", "expired"] | None = None,
    since: Annotated[float | None, Query(description="Seconds since 1970", allow_inf_nan=False)] = None,
    until: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    q: Annotated[str | None, Query(max_length=200, description="Words in a text")] = None,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=500)] = PAGE_ROWS,
    format: Annotated[
        Literal["json", "ndjson", "csv"], Query(description="ndjson, csv: all rows, as a log")
    ] = "json",
) -> Response:
    """Find responses and their edits: a page of them, the newest first, or all of them as a log."""
    state = get_state(request)
    check_text(user, policy, q)
    which = LogFilter(user, policy, status, since, until, q)
    if format != "json":
        return StreamingResponse(_lines(state, which, format), media_type=MEDIA_TYPES[format])
    begin = parse_cursor(before)
    # One row more than the page shows whether there is a next page.
    rows = await state.loop.read(lambda c: _with_costs(c, log_page(c, which, limit + 1, begin)))
    page = rows[:limit]
    following = cursor_of(page[-1]["time"], page[-1]["id"]) if len(rows) > limit else None
    body = json.dumps({"object": "list", "data": page, "next": following}, allow_nan=False)
    return Response(body, media_type="application/json")


def _record(row: Row[Any]) -> dict[str, Any]:
    """A row of the log as JSON types."""
    record = dict(row._mapping)
    record["context"] = _parsed(record["context"])
    metadata = _parsed(record["metadata"]) or {}
    record["metadata"] = metadata if isinstance(metadata, dict) else {"unreadable": metadata}
    return record


def _parsed(text: str | None) -> Any:
    """The value of a JSON text in the store; NaN and Infinity, which earlier versions kept, become null."""
    if text is None:
        return None
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except ValueError:  # in an earlier version, a redaction could change more than the strings of the JSON
        return text


def _with_costs(connection: Connection, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """Records with the cost and the revision of their last edit."""
    last = reads.costs_of(connection, [row.id for row in rows])
    found = []
    for row in rows:
        edit = last.get(row.id)
        extra = {"cost": edit and edit.cost, "revision": edit.revision if edit else 0}
        found.append(_record(row) | extra)
    return found


async def _lines(state: ServerState, which: LogFilter, format: Export) -> AsyncIterator[str]:
    """The rows as lines of a log, read in a thread as they are sent, so that no export is in memory whole."""
    rows = state.loop.store.stream(lambda c: log_rows(c, which))
    source = EXPORTS[format](map(_record, rows))
    while part := await asyncio.to_thread(lambda: list(islice(source, STREAM_LINES))):
        yield "".join(part)


@router.get("/v1/edits/{response_id}", tags=["edits"])
async def show(request: Request, response_id: str) -> dict[str, Any]:
    """Show one response with all revisions of its edit, each as a redline; of code, also line by line."""
    state = get_state(request)
    if "\0" in response_id:
        raise Problem(404, "no such response", code="response_not_found")

    def found(connection: Connection) -> tuple[Row[Any] | None, Sequence[Row[Any]]]:
        known = references.aliased(connection, [response_id]).get(response_id, response_id)
        return reads.draft(connection, known), reads.revisions_with_costs(connection, known)

    draft, revisions = await state.loop.read(found)
    if draft is None:
        raise Problem(404, "no such response", code="response_not_found", seen=response_id)
    response, cost = draft.response or "", state.loop.cost
    # Texts are aligned in a thread: long ones take a while, and other requests do not wait for that.
    shown = await asyncio.to_thread(lambda: [_revision(row, response, cost) for row in revisions])
    return {
        "response_id": draft.response_id,
        "time": draft.time,
        "user": draft.user,
        "policy": draft.policy,
        "propensity": draft.propensity,
        "logprob": draft.logprob,
        "seconds": draft.seconds,
        "prompt_tokens": draft.prompt_tokens,
        "completion_tokens": draft.completion_tokens,
        "context": _parsed(draft.context),
        "response": draft.response,
        "finish": draft.finish,
        "non_answer": draft.non_answer,
        "cost": cost.name,
        "revisions": shown,
    }


def _revision(row: Row[Any], response: str, cost: Cost) -> dict[str, Any]:
    about = {"revision": row.revision, "time": row.time, "cost": row.cost, "reason": row.reason}
    about |= {"seconds": row.seconds, "discarded": bool(row.discarded)}
    if row.discarded:
        return about | {
            "edit": None,
            "redline": [],
            "lines": None,
            "changes": None,
            "parts": None,
            "sum": None,
        }
    edit = response if row.edit is None else row.edit
    found = None if cost.breakdown is None else cost.breakdown(response, edit)
    counts, unit = (found.counts, found.unit) if found else (count_changes(response, edit), "word")
    return about | {
        "edit": edit,
        "redline": redline(response, edit, found),
        "lines": diff_lines(response, edit),
        "changes": counts.in_words(unit),
        "parts": found and _parts(found),
        "sum": found and found.cost,
    }


def _parts(found: Breakdown) -> list[dict[str, Any]]:
    """What was replaced, deleted and inserted: how many units, and what they cost together."""
    return [
        {"kind": kind, "n": getattr(found.counts, kind), "cost": part} for kind, part in found.parts.items()
    ]


@router.put("/v1/edits/{response_id}/reason", tags=["edits"], openapi_extra=documented(ReasonRequest))
async def annotate(request: Request, response_id: str) -> dict[str, Any]:
    """Say why a draft was edited, for the last revision of its edit; an application says it with the edit."""
    state = get_state(request)
    asked = parse(ReasonRequest, await request.body())
    check_texts(asked, state.limits.text)
    if "\0" in response_id:
        raise Problem(404, "no edit of such a response", code="edit_not_found")
    reason = None if asked.reason is None else redact_text(asked.reason, state.completions.redact)
    command = Audited(SetReason(response_id, reason), audit_entry(request, "annotate", response_id))
    revision = await state.loop.write(command)
    return {"object": "reason", "response_id": response_id, "revision": revision, "reason": reason}
