"""`/v1/users`: who edits, and what that costs; and forgetting a user."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from editloop.serve.api.parameters import Since, Until, check_text
from editloop.serve.api.state import audit_entry, get_state
from editloop.serve.problem import Problem
from editloop.store import reads
from editloop.store.database import Connection
from editloop.store.users import Sort, UserFilter, user_page

__all__ = ["router"]

router = APIRouter()


@router.get("/v1/users", tags=["users"])
async def show(
    request: Request,
    q: Annotated[str | None, Query(max_length=256, description="A part of a name")] = None,
    since: Since = None,
    until: Until = None,
    sort: Sort = "seen",
    order: Literal["asc", "desc"] = "desc",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> dict[str, Any]:
    """Show a page of the users of a period: rounds, cost of their edits, scope and own arms."""
    check_text(q)
    loop, which = get_state(request).loop, UserFilter(q, since, until)
    page = await loop.read(
        lambda c: user_page(c, which, sort=sort, descending=order == "desc", limit=limit, offset=offset)
    )
    owned: dict[str, list[str]] = {}
    for arm, owner in loop.bandit.state.owners.items():
        owned.setdefault(owner, []).append(arm)
    data = [
        {
            "user": row.user,
            "rounds": row.rounds,
            "first": row.first,
            "last": row.last,
            "edits": row.edits or 0,
            "cost": row.cost / row.edits if row.edits else None,
            "scope": "own" if loop.scope_of(row.user) else "shared",
            "arms": owned.get(loop.scopes.key(row.user), []),
        }
        for row in page.rows
    ]
    return {"object": "list", "total": page.total, "since": page.since, "data": data}


@router.delete("/v1/users/{user:path}", tags=["users"])
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
    # By a digest and not by the name, which nothing may keep.
    removed = await loop.forget(user, audit_entry(request, "forget", loop.scopes.key(user)))
    return {"object": "user.deleted", "user": user, "removed": removed, "trained": runs}
