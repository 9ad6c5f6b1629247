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
from editloop.serve.api.schemas import EditRequest, ReasonRequest, check_texts, documented, parse
from editloop.serve.api.state import ServerState, audit_entry, get_state
from editloop.serve.loop.admin_commands import Audited, SetReason
from editloop.serve.loop.completion import CLIENT_KEY
from editloop.serve.loop.edit_commands import RecordExternal
from editloop.serve.loop.logged_text import logged_context, logged_metadata
from editloop.serve.loop.redaction import redact_text
from editloop.serve.loop.unstored import Texts
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
    response_id = asked.response_id
    if asked.is_external:
        response_id = await _record_external(state, asked, key)
    elif asked.client_key is not None:
        response_id = await _find_by_key(state, asked.client_key, key)
    assert response_id is not None
    edit, texts = None, None
    if asked.edit is not None:
        edit = redact_text(asked.edit, state.completions.redact)
        texts = Texts(None if asked.is_external else asked.response, asked.edit)
    reason = None if asked.reason is None else redact_text(asked.reason, state.completions.redact)
    with state.tokens.counted() if only else nullcontext():
        result = await state.loop.edit(
            response_id,
            edit,
            revision=asked.revision,
            key=key,
            discarded=bool(asked.discarded),
            reason=reason,
            seconds=asked.seconds,
            limit=MAX_REVISIONS if only else None,
            texts=texts,
        )
    return {
        "object": "edit",
        "response_id": result.response_id,
        "revision": result.revision,
        "status": result.outcome,
        "cost": result.cost,
        "policy": result.policy,
        "repeated": result.repeated,
    }


async def _find_by_key(state: ServerState, client_key: str, key: str | None) -> str:
    """The response that has a client's key in its metadata.

    Where several have it, the one that can be edited is meant: a tool call before the answer has no text. A
    request that is sent again, with the idempotency key of an edit, finds the response of that edit.

    Raises:
        Problem: 404, there is none; 409, there are several.
    """

    def look(connection: Connection) -> list[str]:
        rows = references.drafts_by_client_key(connection, client_key, 2)
        if len(rows) == 2 and rows[0].editable == rows[1].editable:
            known = None if key is None else reads.edit_by_key(connection, key)
            draft = None if known is None else reads.draft(connection, known.response_id)
            if draft is None or draft.client_key != client_key:
                return [row.response_id for row in rows]
            return [draft.response_id]
        return [row.response_id for row in rows[:1]]

    found, param = await state.loop.read(look), f"metadata.{CLIENT_KEY}"
    if not found:
        raise Problem(
            404, "no response has this key", code="response_not_found", param=param, seen=client_key
        )
    if len(found) > 1:
        raise Problem(
            409,
            "several responses have this key",
            code="key_ambiguous",
            param=param,
            seen=client_key,
            do="send the response_id, or give each request a key of its own",
        )
    return found[0]


async def _record_external(state: ServerState, asked: EditRequest, key: str | None) -> str:
    """Keep a response from elsewhere as a draft, and return its identity.

    This and the edit are two commands. After a kill between them, a repeated request has to find the draft
    that the first one made. So a request with an idempotency key and without an identity gets an identity
    that is computed from its content.
    """
    redact = state.completions.redact
    assert asked.response is not None
    messages = asked.model_dump(include={"context"}, exclude_unset=True)["context"]
    is_text = isinstance(messages, str)
    context = redact_text(messages, redact) if is_text else logged_context(messages, redact)
    response = redact_text(asked.response, redact)
    digest = state.loop.scopes.digest([context, response, asked.user, asked.policy])
    response_id = asked.response_id or f"ext-{digest if key else uuid4().hex}"
    await state.loop.write(
        RecordExternal(
            response_id,
            asked.user,
            asked.policy,
            json.dumps(context, ensure_ascii=False, allow_nan=False),
            response,
            logged_metadata(asked.metadata, redact),
            digest,
            time.time(),
        )
    )
    return response_id


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
    draft, revisions = await state.loop.read(
        lambda c: (reads.draft(c, response_id), reads.revisions_with_costs(c, response_id))
    )
    if draft is None:
        raise Problem(404, "no such response", code="response_not_found", seen=response_id)
    response, cost = draft.response or "", state.loop.cost
    # Texts are aligned in a thread: long ones take a while, and other requests do not wait for that.
    shown = await asyncio.to_thread(lambda: [_revision(row, response, cost) for row in revisions])
    return {
        "response_id": response_id,
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
