"""`/v1/models`: the names that a request may use as its model, and what each stands for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from editloop.serve.api.state import ServerState, get_state
from editloop.serve.problem import Problem

__all__ = ["ANY_ARM", "arm_named", "router"]

ANY_ARM = "editloop"
"""The name of the model that lets the bandit choose the arm."""

router = APIRouter()


@router.get("/v1/models", tags=["chat"])
async def models(request: Request) -> dict[str, Any]:
    """The names that a request may use as its model."""
    names = [ANY_ARM, *get_state(request).loop.bandit.arms_of("")]
    return {"object": "list", "data": [_model(name) for name in names]}


@router.get("/v1/models/{model:path}", tags=["chat"])
async def model(request: Request, model: str) -> dict[str, Any]:
    """One model: `editloop`, or the arm that a name stands for."""
    return _model(arm_named(get_state(request), model, None) or ANY_ARM)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "editloop"}


def arm_named(state: ServerState, model: str, user: str | None) -> str | None:
    """The arm that a model's name stands for; None if the bandit chooses.

    A name without its hash, such as `sft`, stands for the arm of that name that was promoted last. An arm of
    another user is as if it were not there.

    Raises:
        Problem: 404, there is no such arm.
    """
    arms = state.loop.bandit.arms_of(state.loop.scope_of(user))
    if model == ANY_ARM:
        return None
    named = [arm for arm in arms if arm == model or arm.partition("@")[0] == model]
    if not named:
        raise Problem(
            404,
            "no such model",
            code="model_not_found",
            param="model",
            seen=model,
            do=f"use {', '.join([ANY_ARM, *arms])}",
        )
    return named[-1]
