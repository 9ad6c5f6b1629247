"""`/v1/arms`: which policies are played, promote a run's, retire one."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import select

from editloop.errors import EditLoopError, RunError, ServeError
from editloop.serve.api.schemas import PromoteRequest, check_texts, documented, parse
from editloop.serve.api.state import Room, room_of
from editloop.serve.backends.base import Served
from editloop.serve.backends.catalog import find_policies, in_time, objection, validation
from editloop.serve.loop.commands import Epoch
from editloop.serve.loop.feedback import Live
from editloop.serve.problem import Problem
from editloop.store.schema import policies

__all__ = ["follow", "promote", "router"]

router = APIRouter()
log = logging.getLogger("editloop.serve")


@router.get("/v1/arms", tags=["policies"])
async def arms(request: Request) -> dict[str, Any]:
    """The arms and what is known of each; those that were retired too."""
    room = room_of(request)
    rows = await room.live.read(lambda c: c.execute(select(policies).order_by(policies.c.time)).all())
    state = room.live.bandit.state
    found = []
    for row in rows:
        pool = state.pool(row.arm)
        found.append(
            {
                "arm": row.arm,
                "policy": row.name,
                "run": row.run,
                "promoted": row.time,
                "played": row.arm in state.arms,
                "observed": pool.observed,
                "cost": pool.cost / pool.observed if pool.observed > 0 else None,
                "validation": json.loads(row.metrics),
            }
        )
    return {"object": "list", "epoch": state.epoch, "data": found}


@router.post("/v1/arms", tags=["policies"], openapi_extra=documented(PromoteRequest))
async def add(request: Request) -> dict[str, Any]:
    """Make policies of a run arms, in a new epoch."""
    room = room_of(request)
    asked = parse(PromoteRequest, await request.body())
    check_texts(asked, 4096)
    return await promote(room, asked.run, asked.policies, replace=asked.replace, force=asked.force)


async def promote(
    room: Room, run: str, names: list[str] | None, *, replace: bool = False, force: bool = False
) -> dict[str, Any]:
    """Make policies of a run arms; they are ready to answer before the epoch begins.

    Raises:
        Problem: 400 for no such run or policy; 409 if offline evaluation is against one; 502 if one cannot
            be made ready.
    """
    try:
        served = await in_time(lambda: find_policies(run, names))
        measured = await in_time(lambda: {each.arm: validation(each.run, each.name) for each in served})
    except RunError as error:
        raise Problem(400, str(error), code="run_unusable", param="run") from error
    against = {arm: reason for arm, each in measured.items() if (reason := objection(each))}
    if against and not force:
        told = "; ".join(f"{arm}: {reason}" for arm, reason in against.items())
        raise Problem(
            409,
            f"offline evaluation is against it: {told}",
            code="evaluation_gate",
            do="force it, or leave it out",
        )
    new = [each.arm for each in served]

    def change(played: tuple[str, ...]) -> tuple[str, ...]:
        kept = () if replace else tuple(arm for arm in played if arm not in new)
        return (*kept, *new)

    now, read_until = time.time(), await asyncio.to_thread(_read_until, served[0].run, room.live)
    rows = [
        {
            "arm": each.arm,
            "name": each.name,
            "run": str(each.run),
            "time": now,
            "metrics": json.dumps(measured[each.arm], allow_nan=False),
            "read_until": read_until,
        }
        for each in served
    ]
    async with room.following:
        try:
            for each in served:
                await room.backend.prepare(each)
        except EditLoopError as error:
            for arm in set(new) - set(room.live.bandit.arms):
                await room.backend.retire(arm)
            raise Problem(502, str(error), code="not_ready") from error
        room.ready.update(new)
        epoch = await room.live.set_arms(Epoch(change, rows, now))
    return {"object": "epoch", "epoch": epoch.epoch, "arms": list(epoch.arms), "against": against}


def _read_until(run: Any, live: Live) -> float | None:
    """Up to when a run read this store's log; None if it learned from another."""
    from editloop.policy import RunFolder

    read = RunFolder(run).manifest().read
    return read.until if read.store == live.store.fact("salt") else None


@router.delete("/v1/arms/{arm}", tags=["policies"])
async def retire(request: Request, arm: str) -> dict[str, Any]:
    """Play an arm no more; what was learned of it stays."""
    room = room_of(request)
    if arm not in room.live.bandit.arms:
        raise Problem(404, "no such arm is played", code="arm_not_found", seen=arm)
    entry = Epoch(lambda played: tuple(each for each in played if each != arm), (), time.time())
    epoch = await room.live.set_arms(entry)
    return {"object": "epoch", "epoch": epoch.epoch, "arms": list(epoch.arms)}


async def follow(room: Room) -> None:
    """Make the arms that are played ready to answer, and let go of the others, whoever changed them.

    One that cannot be made ready is left to the others.
    """
    live = room.live
    async with room.following:
        played = live.bandit.arms
        if not set(played) <= set(live.policies):  # of an epoch that another replica began
            with suppress(Problem):
                await live.look_up_policies()
        for arm in room.ready - set(played):
            await room.backend.retire(arm)
        for arm in [arm for arm in played if arm not in room.ready]:
            try:
                if arm not in live.policies:
                    raise ServeError("the store does not know where this policy lies", seen=arm)
                run, name = live.policies[arm]
                await room.backend.prepare(await in_time(partial(_as_arm, arm, Path(run), name)))
            except EditLoopError as error:
                log.warning("%s cannot answer: %s", arm, error)
        room.ready.clear()
        room.ready.update(played)


def _as_arm(arm: str, run: Path, name: str) -> Served:
    """A policy that was an arm before, with the parts of a mixture.

    Raises:
        RunError: The run folder is gone, or holds another policy under this name.
    """
    (served,) = find_policies(run, [name])
    if served.arm != arm:
        raise RunError("the run folder holds another policy by now", seen=served.arm)
    return served
