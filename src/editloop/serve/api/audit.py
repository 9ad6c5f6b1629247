"""`/v1/audit`: what admins did, for admins."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from editloop.serve.api.parameters import Before, Since, Until, check_text, cursor_of, parse_cursor
from editloop.serve.api.state import get_state
from editloop.store.audit import Action, AuditFilter, audit_page

__all__ = ["router"]

router = APIRouter()


@router.get("/v1/audit", tags=["access"])
async def audit(
    request: Request,
    by: Annotated[str | None, Query(max_length=64, description="The name of a key")] = None,
    action: Action | None = None,
    since: Since = None,
    until: Until = None,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> dict[str, Any]:
    """Show who did what and when, the newest first; without texts, and with a digest in place of a user."""
    check_text(by)
    which, begin = AuditFilter(by, action, since, until), parse_cursor(before)
    rows = await get_state(request).loop.read(lambda c: audit_page(c, which, limit + 1, begin))
    page = [
        {**row._mapping, "detail": json.loads(row.detail) if row.detail else None} for row in rows[:limit]
    ]
    following = cursor_of(page[-1]["time"], page[-1]["id"]) if len(rows) > limit else None
    return {"object": "list", "data": page, "next": following}
