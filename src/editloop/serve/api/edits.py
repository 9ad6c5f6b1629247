"""`/v1/edits`: recording, finding and exporting users' edits; and `/v1/users`, to forget a user."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from editloop.edits import count_changes, diff_lines, redline
from editloop.serve.api.schemas import EditRequest, check_texts, documented, parse
from editloop.serve.api.state import ServerState, get_state
from editloop.serve.loop.completion import CLIENT_KEY
from editloop.serve.loop.edit_commands import RecordExternal
from editloop.serve.loop.logged_text import logged_context, logged_metadata
from editloop.serve.loop.redaction import redact_text
from editloop.serve.loop.unstored import Texts
from editloop.serve.problem import Problem
from editloop.store import reads
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
    result = await state.loop.edit(
        response_id,
        edit,
        revision=asked.revision,
        key=key,
        discarded=bool(asked.discarded),
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

    def look(connection: Connection) -> Sequence[str]:
        found = reads.drafts_by_client_key(connection, client_key)
        if len(found) > 1 and key is not None and (known := reads.edit_by_key(connection, key)) is not None:
            draft = reads.draft(connection, known.response_id)
            if draft is not None and draft.client_key == client_key:
                return [draft.response_id]
        return found

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
    before: Annotated[str | None, Query(max_length=160, description="`next` of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = PAGE_ROWS,
    format: Annotated[Literal["json", "ndjson"], Query(description="ndjson: all rows, as a log")] = "json",
) -> Response:
    """Find responses and their edits: a page of them, the newest first, or all of them as a log (NDJSON)."""
    state = get_state(request)
    for text in (user, policy, q):
        if text is not None and "\0" in text:
            raise Problem(400, "a filter is not valid text", code="invalid_text")
    which = LogFilter(user, policy, status, since, until, q)
    if format == "ndjson":
        return StreamingResponse(_lines(state, which), media_type="application/x-ndjson")
    begin = None if before is None else _cursor(before)
    # One row more than the page shows whether there is a next page.
    rows = await state.loop.read(lambda c: _with_costs(c, log_page(c, which, limit + 1, begin)))
    page = rows[:limit]
    following = f"{page[-1]['time']!r}:{page[-1]['id']}" if len(rows) > limit else None
    body = json.dumps({"object": "list", "data": page, "next": following}, allow_nan=False)
    return Response(body, media_type="application/json")


def _cursor(text: str) -> tuple[float, str]:
    """The time and the identity of the row at which the previous page ended.

    A cursor and not an offset: new rows at the front would shift the pages.

    Raises:
        Problem: 400, the text is not `next` of a page.
    """
    moment_text, colon, response_id = text.partition(":")
    try:
        moment = float(moment_text)
        if not colon or math.isnan(moment) or "\0" in response_id:  # no row comes before or after NaN
            raise ValueError
    except ValueError:
        raise Problem(
            400, "not the end of a page", code="invalid_request", param="before", do="give a page's `next`"
        ) from None
    return moment, response_id


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


async def _lines(state: ServerState, which: LogFilter) -> AsyncIterator[str]:
    """The rows as lines of a log, read in a thread as they are sent, so that no export is in memory whole."""

    def lines() -> Iterator[str]:
        for row in state.loop.store.stream(lambda c: log_rows(c, which)):
            kept = {name: value for name, value in _record(row).items() if value is not None}
            yield json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n"

    source = lines()
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
    response = draft.response or ""
    # Texts are aligned in a thread: long ones take a while, and other requests do not wait for that.
    shown = await asyncio.to_thread(lambda: [_revision(row, response) for row in revisions])
    return {
        "response_id": response_id,
        "time": draft.time,
        "user": draft.user,
        "policy": draft.policy,
        "propensity": draft.propensity,
        "logprob": draft.logprob,
        "context": _parsed(draft.context),
        "response": draft.response,
        "finish": draft.finish,
        "revisions": shown,
    }


def _revision(row: Row[Any], response: str) -> dict[str, Any]:
    about = {"revision": row.revision, "time": row.time, "cost": row.cost, "discarded": bool(row.discarded)}
    if row.discarded:
        return about | {"edit": None, "redline": [], "lines": None, "changes": None}
    edit = response if row.edit is None else row.edit
    changes = count_changes(response, edit).in_words()
    shown = {"redline": redline(response, edit), "lines": diff_lines(response, edit)}
    return about | {"edit": edit, **shown, "changes": changes}


@router.delete("/v1/users/{user:path}", tags=["edits"])
async def forget(request: Request, user: str) -> dict[str, Any]:
    """Remove a user's texts. The costs of edits stay, without a name, and so do policies trained on them."""
    loop = get_state(request).loop
    if "\0" in user:
        raise Problem(404, "no such user", code="user_not_found")

    # Before the removal, after which the store no longer knows when this user was first seen.
    def trained(connection: Connection) -> list[str]:
        first = reads.first_seen(connection, user, loop.scopes.of(user))
        if first is None:
            return []
        # Also the runs whose policies never became an arm, and the one that is being fitted.
        begun = [each.lineage for each in loop.state.stages.history if each.lineage]
        others = {each.run for each in begun if each.owner not in ("", loop.scopes.key(user))}
        runs = {each.run for each in begun if each.until >= first}
        return sorted(runs.union(reads.runs_trained_since(connection, first)) - others)

    runs = await loop.read(trained)
    removed = await loop.forget(user)
    return {"object": "user.deleted", "user": user, "removed": removed, "trained": runs}
