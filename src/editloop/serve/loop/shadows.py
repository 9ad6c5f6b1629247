"""Shadow drafts: what a new policy would have written, and what the champion would, for the same requests.

Both are drawn after the user has the answer, and nobody sees them. What the user ends with began from the
answer, and is nearer to it than to any other draft; so the champion is compared by a draft of its own that
was not shown either, and not by the answer.
"""

from __future__ import annotations

import asyncio
import logging
import time

from editloop.autopilot.assignment import is_in_canary
from editloop.autopilot.decisions import SHADOW_SHARE
from editloop.autopilot.stages import Stage
from editloop.errors import EditLoopError
from editloop.serve.backends.base import Backend, attempt_timeout, note_user
from editloop.serve.loop.completion import CompletionRequest
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.loop.logged_text import finish_reason, logged_response
from editloop.serve.loop.redaction import Redact
from editloop.serve.loop.stage_commands import RecordShadow

__all__ = ["ShadowDrafts"]

log = logging.getLogger("editloop.serve")

WAITING = 4
"""Requests whose shadow drafts wait at most; further ones get none, for answers to users come first."""

SECONDS = 300.0
"""Seconds after which a shadow draft is given up."""


class ShadowDrafts:
    """Draws the drafts, one after the other.

    Args:
        loop: Knows which policy is in the shadow, and records.
        backend: Generates.
        redact: A function that is applied to each text before it is kept.
    """

    def __init__(self, loop: FeedbackLoop, backend: Backend, redact: Redact) -> None:
        self.loop, self.backend, self.redact = loop, backend, redact
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def consider(self, request: CompletionRequest, response_id: str) -> None:
        """Draw drafts for a request that was answered, if a policy is in the shadow and takes this one."""
        stages = self.loop.state.stages
        last, champion = stages.the(Stage.SHADOW), stages.champion
        if last is None or champion is None or len(self._tasks) >= WAITING:
            return
        share = float(last.evidence.get("share", SHADOW_SHARE))
        if is_in_canary(f"shadow:{last.subject}", response_id, share):
            task = asyncio.create_task(self._draw(request, response_id, (last.subject, champion)))
            self._tasks.add(task)  # the event loop keeps only a weak reference
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give up the drafts that are under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _draw(self, request: CompletionRequest, response_id: str, arms: tuple[str, ...]) -> None:
        note_user(request.user)
        body = {key: value for key, value in request.body.items() if not key.startswith("stream")}
        found = []
        try:
            async with self._turn:
                for arm in arms:
                    async with attempt_timeout(SECONDS):
                        completion = await self.backend.complete(arm, body, response_id)
                    if completion.text is None:  # a tool call, which nobody edits
                        return
                    text = logged_response(completion.text, self.redact)
                    found.append(
                        RecordShadow(response_id, arm, text, finish_reason(completion.finish), time.time())
                    )
            # Only now, so that the drafts of a request are there together or not at all.
            for command in found:
                await self.loop.write(command)
        except EditLoopError as error:
            log.info("%s: no shadow draft: %s", response_id, error)
        except Exception:  # nobody waits for this task
            log.exception("%s: a shadow draft has failed", response_id)
