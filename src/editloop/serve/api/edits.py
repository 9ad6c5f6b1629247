"""`/v1/edits`: what users made of responses, in and out; and `/v1/users`, to forget one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import Connection, Row, Select, func, select

from editloop.edits import redline
from editloop.serve.api.schemas import EditRequest, check_texts, documented, parse
from editloop.serve.api.state import Room, room_of
from editloop.serve.loop.commands import Edited, External
from editloop.serve.loop.completions import context_of, metadata_of
from editloop.serve.loop.redaction import redact_text
from editloop.serve.problem import Problem
from editloop.store.schema import drafts, edits, events, log_view, policies

__all__ = ["router"]

router = APIRouter()

PAGE = 50


@router.post("/v1/edits", tags=["edits"], openapi_extra=documented(EditRequest))
async def take(request: Request) -> dict[str, Any]:
    """What a user made of a response; it is on the disk when this is answered."""
    room = room_of(request)
    asked = parse(EditRequest, await request.body())
    check_texts(asked, room.limits.text)
    key = asked.key or request.headers.get("Idempotency-Key")
    if key is not None and len(key) > 128:
        raise Problem(400, "a key has at most 128 characters", code="invalid_request", param="key")
    response_id = asked.response_id
    redact = room.desk.redact
    if asked.response is not None:
        response_id = await _keep_external(room, asked, key)
    assert response_id is not None
    edit = None if asked.edit is None else redact_text(asked.edit, redact)
    done: Edited = await room.live.edit(response_id, edit, revision=asked.revision, key=key)
    return {
        "object": "edit",
        "response_id": done.response_id,
        "revision": done.revision,
        "status": "accepted" if done.accepted else "edited",
        "cost": done.cost,
        "policy": done.policy,
        "repeated": done.repeated,
    }


async def _keep_external(room: Room, asked: EditRequest, key: str | None) -> str:
    """A response from elsewhere, as a draft; without an id, but with a key, it has that of its content."""
    redact = room.desk.redact
    assert asked.response is not None
    messages = asked.model_dump(include={"context"}, exclude_unset=True)["context"]
    is_text = isinstance(messages, str)
    context = redact_text(messages, redact) if is_text else context_of(messages, redact)
    response = redact_text(asked.response, redact)
    digest = room.live.digest([context, response, asked.user, asked.policy])
    response_id = asked.response_id or f"ext-{digest if key else uuid4().hex}"
    await room.live.write(
        External(
            response_id,
            asked.user,
            asked.policy,
            json.dumps(context, ensure_ascii=False, allow_nan=False),
            response,
            metadata_of(asked.metadata, redact),
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
    status: Literal["edited", "accepted", "pending", "expired"] | None = None,
    since: Annotated[float | None, Query(description="Seconds since 1970", allow_inf_nan=False)] = None,
    until: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    q: Annotated[str | None, Query(max_length=200, description="Words in a text")] = None,
    before: Annotated[str | None, Query(max_length=160, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = PAGE,
    format: Annotated[Literal["json", "ndjson"], Query(description="ndjson: all, as a log")] = "json",
) -> Response:
    """Responses and their edits, the newest first; as NDJSON all of them, in the order of a log."""
    room = room_of(request)
    for text in (user, policy, q):
        if text is not None and "\0" in text:
            raise Problem(400, "a filter is not valid text", code="invalid_text")
    query = select(log_view)
    for column, value in (("user", user), ("policy", policy), ("status", status)):
        if value is not None:
            query = query.where(log_view.c[column] == value)
    if since is not None:
        query = query.where(log_view.c.time >= since)
    if until is not None:
        query = query.where(log_view.c.time < until)
    if q:
        parts = [log_view.c[name].icontains(q, autoescape=True) for name in ("context", "response", "edit")]
        query = query.where(parts[0] | parts[1] | parts[2])
    if format == "ndjson":
        return StreamingResponse(_lines(room, query), media_type="application/x-ndjson")
    if before is not None:
        query = query.where(_older(before))
    query = query.order_by(log_view.c.time.desc(), log_view.c.id.desc()).limit(limit + 1)
    rows = await room.live.read(lambda c: _with_costs(c, list(c.execute(query).all())))
    more = len(rows) > limit
    page = rows[:limit]
    following = f"{page[-1]['time']!r}:{page[-1]['id']}" if more else None
    body = json.dumps({"object": "list", "data": page, "next": following}, allow_nan=False)
    return Response(body, media_type=JSON)


JSON = "application/json"


def _older(before: str) -> Any:
    time_text, colon, response_id = before.partition(":")
    try:
        moment = float(time_text)
        if not colon or moment != moment or "\0" in response_id:
            raise ValueError
    except ValueError:
        raise Problem(400, "not where a page ended", code="invalid_request", param="before") from None
    older = log_view.c.time < moment
    return older | ((log_view.c.time == moment) & (log_view.c.id < response_id))


def _record(row: Row[Any]) -> dict[str, Any]:
    """A row of the log as JSON types."""
    record = dict(row._mapping)
    record["context"] = _stored(record["context"])
    metadata = _stored(record["metadata"]) or {}
    record["metadata"] = metadata if isinstance(metadata, dict) else {"unreadable": metadata}
    return record


def _stored(text: str | None) -> Any:
    """What a JSON text of the store says. Numbers that are none, as earlier versions took, read as null."""
    if text is None:
        return None
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except ValueError:  # a redaction has changed more than its strings
        return text


def _with_costs(connection: Connection, rows: list[Row[Any]]) -> list[dict[str, Any]]:
    """Records with the cost and the revision of their last edit."""
    ids = [row.id for row in rows]
    known = {
        each.response_id: each
        for each in connection.execute(
            select(events.c.response_id, events.c.revision, events.c.cost)
            .where(events.c.response_id.in_(ids), events.c.revision > 0)
            .order_by(events.c.revision)
        )
    }
    found = []
    for row in rows:
        last = known.get(row.id)
        extra = {"cost": last and last.cost, "revision": last.revision if last else 0}
        found.append(_record(row) | extra)
    return found


async def _lines(room: Room, query: Select[Any]) -> Any:
    """The rows as a log's lines, read as they are sent."""
    ordered = query.order_by(log_view.c.time, log_view.c.id)

    def lines() -> Iterator[str]:
        with room.live.store.reader.connect() as connection:
            for row in connection.execution_options(yield_per=500).execute(ordered):
                kept = {name: value for name, value in _record(row).items() if value is not None}
                yield json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n"

    source = lines()
    while part := await asyncio.to_thread(_some, source):
        yield "".join(part)


def _some(source: Iterator[str]) -> list[str]:
    return [line for line, _ in zip(source, range(500), strict=False)]


@router.get("/v1/edits/{response_id}", tags=["edits"])
async def show(request: Request, response_id: str) -> dict[str, Any]:
    """One response with all revisions of its edit, each as a redline."""
    room = room_of(request)
    if "\0" in response_id:
        raise Problem(404, "no such response", code="response_not_found")

    def look(connection: Connection) -> dict[str, Any] | None:
        draft = connection.execute(select(drafts).where(drafts.c.response_id == response_id)).first()
        if draft is None:
            return None
        mine = (edits.c.response_id == events.c.response_id) & (edits.c.revision == events.c.revision)
        rows = connection.execute(
            select(edits, events.c.cost)
            .outerjoin(events, mine)
            .where(edits.c.response_id == response_id)
            .order_by(edits.c.revision)
        ).all()
        response = draft.response or ""
        return {
            "response_id": response_id,
            "time": draft.time,
            "user": draft.user,
            "policy": draft.policy,
            "propensity": draft.propensity,
            "context": _stored(draft.context),
            "response": draft.response,
            "finish": draft.finish,
            "revisions": [
                {
                    "revision": row.revision,
                    "time": row.time,
                    "cost": row.cost,
                    "edit": response if row.edit is None else row.edit,
                    "redline": redline(response, response if row.edit is None else row.edit),
                }
                for row in rows
            ],
        }

    found: dict[str, Any] | None = await room.live.read(look)
    if found is None:
        raise Problem(404, "no such response", code="response_not_found", seen=response_id)
    return found


@router.delete("/v1/users/{user:path}", tags=["edits"])
async def forget(request: Request, user: str) -> dict[str, Any]:
    """Remove a user's texts. What an edit cost stays, without a name; so do policies that learned from it."""
    room = room_of(request)
    if "\0" in user:
        raise Problem(404, "no such user", code="user_not_found")

    scope = room.live.scope_of(user)

    def trained(connection: Connection) -> list[str]:
        named = select(func.min(drafts.c.time)).where(drafts.c.user == user)
        first = connection.scalar(named)
        if scope:  # older texts may have gone already; what they cost has not
            seen = connection.scalar(select(func.min(events.c.time)).where(events.c.scope == scope))
            first = min(filter(None, (first, seen)), default=None)
        if first is None:
            return []
        return sorted(set(connection.scalars(select(policies.c.run).where(policies.c.read_until >= first))))

    runs = await room.live.read(trained)
    removed = await room.live.forget(user)
    return {"object": "user.deleted", "user": user, "removed": removed, "trained": runs}
