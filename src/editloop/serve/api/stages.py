"""`/v1/stages`: where each policy stands, with the evidence; and moving one by hand."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request

from editloop.autopilot.ledger import PAUSED, SOMEBODY
from editloop.autopilot.stages import Stages, Transition
from editloop.serve.api.arms import follow
from editloop.serve.api.schemas import PauseRequest, StageRequest, check_texts, documented, parse
from editloop.serve.api.state import audit_entry, get_state
from editloop.serve.loop.admin_commands import Audited
from editloop.serve.loop.stage_commands import ChangeStage, PauseAutopilot
from editloop.store import reads

__all__ = ["router"]

router = APIRouter()

SHOWN = 200
"""The transitions that are shown, the last ones."""


@router.get("/v1/stages", tags=["policies"])
async def stages(request: Request) -> dict[str, Any]:
    """Where each policy stands, and the transitions that led there, with their evidence."""
    loop = get_state(request).loop
    paused = await loop.read(lambda c: reads.fact(c, PAUSED))
    return {
        "object": "stages",
        "paused": paused or None,
        "champion": loop.state.stages.champion,
        "policies": [_policy(loop.state.stages, each) for each in loop.state.stages.subjects],
        "history": [_transition(each) for each in loop.state.stages.history[-SHOWN:]],
        "generations": generations(loop.state.stages, loop.bandit.state),
    }


def generations(found: Stages, bandit: Any) -> list[dict[str, Any]]:
    """The curve: the mean cost of each generation's policy while users had it, by generation.

    Arms of single users are not in it, because what these users cost is not what all cost.
    """
    rows = []
    for subject in found.subjects:
        lineage = found.lineage(subject)
        pool = bandit.pool(subject)
        if pool.observed > 0 and not (lineage and lineage.owner):
            number = 0 if lineage is None else lineage.generation
            rows.append(
                {
                    "generation": number,
                    "arm": subject,
                    "stage": str(found.of(subject)),
                    "cost": pool.cost / pool.observed,
                    "n": pool.observed,
                }
            )
    return sorted(rows, key=lambda row: (row["generation"], row["arm"]))


def _policy(found: Stages, subject: str) -> dict[str, Any]:
    last, lineage = found.last(subject), found.lineage(subject)
    assert last is not None
    return {
        "subject": subject,
        "stage": str(last.stage),
        "since": last.time,
        "by": last.by,
        "reason": last.reason,
        "next": sorted(found.may_become(subject)),
        "lineage": lineage and lineage._asdict(),
    }


def _transition(each: Transition) -> dict[str, Any]:
    row = {**each._asdict(), "evidence": dict(each.evidence), "text": each.sentence}
    return row | {"lineage": each.lineage and each.lineage._asdict()}


@router.post("/v1/stages", tags=["policies"], openapi_extra=documented(StageRequest))
async def move(request: Request) -> dict[str, Any]:
    """Move a policy to another stage: promote it, roll it back, or undo a transition."""
    state = get_state(request)
    asked = parse(StageRequest, await request.body())
    check_texts(asked, 4096)
    command = ChangeStage(asked.subject, asked.stage, time.time(), SOMEBODY, asked.reason or "")
    entry = audit_entry(request, "move", asked.subject, stage=asked.stage)
    epoch = await state.loop.write(Audited(command, entry))
    await follow(state)
    arms = state.loop.bandit.arms if epoch is None else epoch.arms
    return {"object": "stage", "subject": asked.subject, "stage": asked.stage, "arms": list(arms)}


@router.post("/v1/autopilot", tags=["policies"], openapi_extra=documented(PauseRequest))
async def pause(request: Request) -> dict[str, Any]:
    """Pause the autopilot, or let it go on. A fit that is under way goes on."""
    asked = parse(PauseRequest, await request.body())
    note = f"{time.time():.0f} by {SOMEBODY}" if asked.paused else ""
    entry = audit_entry(request, "pause" if asked.paused else "resume", "autopilot")
    await get_state(request).loop.write(Audited(PauseAutopilot(note), entry))
    return {"object": "autopilot", "paused": asked.paused}
