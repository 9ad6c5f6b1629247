"""`/v1/arms`: which policies are played; promoting the policies of a run, and retiring one."""

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

from editloop.autopilot.personal import heir_of
from editloop.errors import EditLoopError, RunError, ServeError
from editloop.online import Arms
from editloop.policy.catalog import objection
from editloop.serve.api.schemas import PromoteRequest, check_texts, documented, parse
from editloop.serve.api.state import ServerState, audit_entry, get_state
from editloop.serve.backends.base import ServedPolicy
from editloop.serve.backends.time_limit import within_time_limit
from editloop.serve.in_context.catalog import find_policies, validation
from editloop.serve.loop.admin_commands import Audited
from editloop.serve.loop.commands import StartEpoch
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.problem import Problem
from editloop.store import reads
from editloop.store.audit import AuditEntry

__all__ = ["follow", "promote", "router"]

router = APIRouter()
log = logging.getLogger("editloop.serve")


@router.get("/v1/arms", tags=["policies"])
async def arms(request: Request) -> dict[str, Any]:
    """The arms and what is known of each, including those that were retired."""
    state = get_state(request)
    loop = state.loop
    rows = await loop.read(reads.policy_rows)
    bandit = loop.bandit.state
    found = []
    for row in rows:
        pool = bandit.pool(row.arm)
        found.append(
            {
                "arm": row.arm,
                "policy": row.name,
                "run": row.run,
                "promoted": row.time,
                "played": row.arm in bandit.arms,
                "tried": loop.state.stages.tried(row.arm),
                "personal": row.arm in bandit.owners,
                "observed": pool.observed,
                "cost": pool.cost / pool.observed if pool.observed > 0 else None,
                "validation": json.loads(row.metrics),
                "in_context": state.backend.tallies.figures(row.arm),
            }
        )
    return {"object": "list", "epoch": bandit.epoch, "data": found}


@router.post("/v1/arms", tags=["policies"], openapi_extra=documented(PromoteRequest))
async def add(request: Request) -> dict[str, Any]:
    """Make policies of a run arms, in a new epoch."""
    state = get_state(request)
    asked = parse(PromoteRequest, await request.body())
    check_texts(asked, 4096)
    entry = audit_entry(
        request,
        "promote",
        asked.run,
        policies=asked.policies,
        replace=asked.replace,
        force=asked.force,
        for_one_user=asked.user is not None,
    )
    done = await promote(
        state,
        asked.run,
        asked.policies,
        replace=asked.replace,
        force=asked.force,
        user=asked.user,
        entry=entry,
    )
    if not (asked.replace and state.in_context):
        return done
    # Those of the configuration are arms whatever is promoted; from now on they stand on the new policies.
    from editloop.serve.api.in_context import add_arms

    await add_arms(state, state.in_context)
    return done | {"epoch": state.loop.bandit.state.epoch, "arms": list(state.loop.bandit.arms)}


async def promote(
    state: ServerState,
    run: str,
    names: list[str] | None,
    *,
    replace: bool = False,
    force: bool = False,
    user: str | None = None,
    entry: AuditEntry | None = None,
) -> dict[str, Any]:
    """Make policies of a run arms; they are ready to answer before the epoch begins.

    Args:
        state: The parts of the server.
        run: The run folder.
        names: The names of its policies; None for all that were trained.
        replace: Whether all other arms are retired.
        force: Whether they become arms even if offline evaluation advises against it.
        user: Whose arms they are, in place of those that this user had; None for everybody.
        entry: What is written about it, if an admin has asked for it.

    Raises:
        Problem: 400 if there is no such run or policy; 409 if offline evaluation advises against one, or one
            of a user is everybody's already; 502 if one cannot be made ready.
    """
    served, rows, against = await _examined(state, run, names, force)
    new, owner = [each.arm for each in served], state.loop.scopes.key(user)

    def change(now: Arms) -> tuple[str, ...]:
        if owner and (both := [arm for arm in new if arm in now.shared]):
            raise Problem(409, "it is everybody's arm already", code="arm_shared", seen=both[0])
        kept = [arm for arm in now.arms if arm not in new and (not owner or now.owners.get(arm) != owner)]
        return (*(kept if owner or not replace else ()), *new)

    heir = heir_of(state.loop.state.stages.champion) if owner else None
    heirs = {} if heir is None else dict.fromkeys(new, heir)

    # Under the lock, so that `follow` does not release the new policies before their epoch has begun. The
    # epoch's own event lets `follow` run once more, after this.
    async with state.following:
        await _prepare(state, served)
        command = StartEpoch(change, rows, time.time(), heirs, dict.fromkeys(new, owner))
        epoch = await state.loop.set_arms(command if entry is None else Audited(command, entry))
    return {"object": "epoch", "epoch": epoch.epoch, "arms": list(epoch.arms), "against": against}


async def _examined(
    state: ServerState, run: str, names: list[str] | None, force: bool
) -> tuple[list[ServedPolicy], list[dict[str, Any]], dict[str, str]]:
    """Policies of a run, their rows of the store, and what offline evaluation says against them.

    Raises:
        Problem: As of `promote`.
    """
    try:
        served = await within_time_limit(lambda: find_policies(run, names))
        measured = await within_time_limit(
            lambda: {each.arm: validation(each.run, each.name) for each in served}
        )
    except RunError as error:
        raise Problem(400, str(error), code="run_unusable", param="run") from error
    against = {arm: reason for arm, each in measured.items() if (reason := objection(each))}
    if against and not force:
        reasons = "; ".join(f"{arm}: {reason}" for arm, reason in against.items())
        raise Problem(
            409,
            f"offline evaluation advises against it: {reasons}",
            code="evaluation_gate",
            do="force it, or leave it out",
        )
    now, read_until = time.time(), await asyncio.to_thread(_read_until, served[0].run, state.loop)
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
    return served, rows, against


async def _prepare(state: ServerState, served: list[ServedPolicy]) -> None:
    """Make policies ready to answer: all of them, or none.

    Raises:
        Problem: 502, one of them cannot be made ready.
    """
    new = [each.arm for each in served]
    try:
        for each in served:
            await state.backend.prepare(each)
    except EditLoopError as error:
        for arm in set(new) - set(state.loop.state.served):
            await state.backend.retire(arm)
        raise Problem(502, str(error), code="not_ready") from error
    state.ready.update(new)


def _read_until(run: Path, loop: FeedbackLoop) -> float | None:
    """The time up to which a run read this store's log; None if it learned from another log."""
    from editloop.policy import RunFolder

    read = RunFolder(run).manifest().read
    return read.until if read.store == loop.scopes.salt else None  # the salt identifies a store


@router.delete("/v1/arms/{arm}", tags=["policies"])
async def retire(request: Request, arm: str) -> dict[str, Any]:
    """Retire an arm; what was learned of it stays."""
    loop = get_state(request).loop
    if arm not in loop.bandit.arms:
        raise Problem(404, "no such arm is played", code="arm_not_found", seen=arm)
    command = StartEpoch(lambda now: tuple(each for each in now.arms if each != arm), (), time.time())
    epoch = await loop.set_arms(Audited(command, audit_entry(request, "retire", arm)))
    return {"object": "epoch", "epoch": epoch.epoch, "arms": list(epoch.arms)}


async def follow(state: ServerState) -> None:
    """Make the policies that answer ready, and release all others, whoever changed them.

    If an arm cannot be made ready here, each of its requests is rerouted to another arm.
    """
    loop = state.loop
    async with state.following:
        played = loop.state.served
        if not set(played) <= set(loop.state.policies):  # another replica, or the autopilot, was it
            with suppress(Problem):
                await loop.look_up_policies()
        # `played` was read under the lock, and may be out of date after an await. Then another epoch has
        # begun, and its event has started another `follow`, which waits for the lock. Policies in the canary
        # and in the shadow are in the same way.
        for arm in state.ready - set(played):
            await state.backend.retire(arm)
        for arm in [arm for arm in played if arm not in state.ready]:
            try:
                if arm not in loop.state.policies:
                    raise ServeError("the store does not say where this policy lies", seen=arm)
                run, name = loop.state.policies[arm]
                await state.backend.prepare(await within_time_limit(partial(_find, arm, Path(run), name)))
            except EditLoopError as error:
                log.warning("%s cannot answer: %s", arm, error)
        # Also those that could not be made ready: the upstream backend tries them again by itself.
        state.ready.clear()
        state.ready.update(played)


def _find(arm: str, run: Path, name: str) -> ServedPolicy:
    """A policy that became an arm earlier, with the parts of a mixture.

    Raises:
        RunError: The run folder is gone, or it holds another policy under this name.
    """
    (served,) = find_policies(run, [name])
    if served.arm != arm:
        raise RunError("the run folder holds another policy by now", seen=served.arm)
    return served
