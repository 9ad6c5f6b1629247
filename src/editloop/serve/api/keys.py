"""`/v1/keys`: who may send requests; and `/v1/me`: what the key of a request may do."""

from __future__ import annotations

import secrets
import time
from typing import Any

from fastapi import APIRouter, Request, Response

from editloop.edits.cost import describe_cost
from editloop.serve.api.authentication import APP_ROUTES
from editloop.serve.api.schemas import KeyRequest, check_texts, documented, parse
from editloop.serve.api.state import ServerState, audit_entry, get_key, get_state
from editloop.serve.loop.admin_commands import AddKey, Audited, RevokeKey
from editloop.store import reads
from editloop.store.keys import Key

__all__ = ["router"]

router = APIRouter()


@router.get("/v1/me", tags=["access"])
async def me(request: Request) -> dict[str, Any]:
    """Show what the key of this request may do, and the cost that its edits are measured by."""
    key, cost = get_key(request), describe_cost(get_state(request).loop.config.cost)
    is_admin = key is None or key.role == "admin"
    by = cost.breakdown
    return {
        "object": "me",
        "key": key and key.name,
        "role": key and key.role,
        "is_admin": is_admin,
        "routes": None if is_admin else [f"{method} {path}" for method, path in APP_ROUTES],
        "cost": cost.name,
        "cost_label": cost.label or cost.name,
        # By which a page can align a text that is being typed; null if the cost is no sum over an alignment.
        "alignment": by and {"unit": by.unit, "weights": by.weights},
    }


def _shown(state: ServerState, key: Key) -> dict[str, Any]:
    """A key without its digest. When it was used is in the store a little later than here."""
    used = max(filter(None, (key.last_used, state.keys.uses.get(key.digest))), default=None)
    about = {"name": key.name, "role": key.role, "created": key.created, "revoked": key.revoked}
    return about | {"last_used": used}


@router.get("/v1/keys", tags=["access"])
async def show(request: Request) -> dict[str, Any]:
    """Show the keys: their names and roles, and when they were made, used last, and revoked."""
    state = get_state(request)
    rows = await state.loop.read(reads.all_keys)
    return {"object": "list", "data": [_shown(state, Key(*tuple(row))) for row in rows]}


@router.post("/v1/keys", tags=["access"], openapi_extra=documented(KeyRequest))
async def create(request: Request, response: Response) -> dict[str, Any]:
    """Make a key. This is the only time that it is shown."""
    state = get_state(request)
    asked = parse(KeyRequest, await request.body())
    check_texts(asked, 64)
    key = f"el-{secrets.token_urlsafe(32)}"
    entry = audit_entry(request, "create key", asked.name, role=asked.role)
    await state.loop.write(Audited(AddKey(key, asked.name, asked.role), entry))
    await state.keys.refresh()  # it can be used at once
    response.headers["Cache-Control"] = "no-store"
    return {"object": "key", "name": asked.name, "role": asked.role, "key": key}


@router.delete("/v1/keys/{name:path}", tags=["access"])
async def revoke(request: Request, name: str) -> dict[str, Any]:
    """Revoke a key; it is refused from now on, by other replicas within two seconds."""
    state = get_state(request)
    entry = audit_entry(request, "revoke key", name)
    await state.loop.write(Audited(RevokeKey(name, time.time()), entry))
    await state.keys.refresh()
    return {"object": "key.revoked", "name": name}
