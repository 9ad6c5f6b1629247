"""The completion service: has a policy answer a request, and records what was decided and generated.

The order of the steps is what matters here.

1. An arm is chosen, and the decision is handed to the writer while the arm already generates.
2. The decision is on the disk before the first byte of the response is sent. So no edit can ever arrive for
   a decision that the log does not have.
3. If the arm fails before its first byte, another one answers, and a reroute is on the disk before that.
4. The text is on the disk before the last byte of the response is sent.

A kill before 2 leaves nothing that a client has seen. A kill between 2 and 4 leaves a draft without a text.
If the client asks again under the same identity, the same arm generates it again; if not, it expires.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

from editloop.online import Decided
from editloop.serve.backends.base import (
    Backend,
    BackendUnavailableError,
    Chunk,
    Completion,
    attempt_timeout,
    note_user,
)
from editloop.serve.loop.commands import RecordDecision
from editloop.serve.loop.completion import CompletionRequest, CompletionResult, CompletionStream
from editloop.serve.loop.ending import FAILED, Ending, ending_of
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.loop.logged_text import logged_context, logged_metadata, spoken_text
from editloop.serve.loop.redaction import Redact
from editloop.serve.loop.shadows import ShadowDrafts
from editloop.serve.loop.streams import Gathered, chained, last_of, replayed
from editloop.serve.loop.unstored import unstored_ending
from editloop.serve.problem import Problem, store_unavailable
from editloop.store import reads

__all__ = ["CompletionService", "backend_problem"]

log = logging.getLogger("editloop.serve")

T = TypeVar("T")

ATTEMPT_SHARE = 0.5
"""The share of the remaining time that an arm may take while another arm could still answer after it."""


@dataclass
class _Generation:
    """A response that is being generated.

    Attributes:
        decision: The decision about its arm.
        arm: The arm that generates it now.
        written: Done once the decision is on the disk; its result is that of `RecordDecision`.
        reroutes: How many times another arm took over.
        model_seconds: The time that the arms have taken so far.
    """

    decision: Decided
    arm: str
    written: asyncio.Future[Any]
    reroutes: int = 0
    model_seconds: float = 0.0


def backend_problem(error: BackendUnavailableError, arm: str, response_id: str) -> Problem:
    """What a client sees when an arm could not answer; details, which may hold addresses, are only logged."""
    log.warning("%s: %s could not answer (%s): %.2000r", response_id, arm, error.reason, error.seen)
    return Problem(
        504 if error.reason == "timeout" else 502,
        f"the policy could not answer ({error.reason})",
        code=f"upstream_{error.reason}",
        do=f"search the server's log for {response_id}",
    )


class CompletionService:
    """Answers requests.

    Args:
        loop: Decides, and records.
        backend: Generates.
        redact: A function that is applied to each text before it is kept.
        on_failure: Called with an arm and the reason why it could not answer.
        seconds: The time in which a request must be answered, or its stream must begin, however many arms are
            tried; None sets no limit.
    """

    def __init__(
        self,
        loop: FeedbackLoop,
        backend: Backend,
        *,
        redact: Redact = str,
        on_failure: Callable[[str, str], None] = lambda arm, reason: None,
        seconds: float | None = None,
    ) -> None:
        self.loop, self.backend, self.redact = loop, backend, redact
        self._on_failure, self._seconds = on_failure, seconds
        self.shadows = ShadowDrafts(loop, backend, redact)
        self._under_way: set[str] = set()

    # Whole responses

    async def complete(self, request: CompletionRequest) -> CompletionResult:
        """Generate a whole response.

        Raises:
            Problem: No arm answers, the identity belongs to another response, or neither the store nor the
                spool can be written.
            UpstreamRejectedError: The model's server rejects the request.
        """
        self.backend.check(request.body)
        note_user(request.user)
        with self._exclusively(request.response_id):
            return await self._complete(request)

    async def _complete(self, request: CompletionRequest) -> CompletionResult:
        known = await self._find_known(request)
        if isinstance(known, CompletionResult):
            return known
        response_id, generation = self._begin(request, known, hurry=False)
        completion = await self._attempt(
            generation, lambda arm: self.backend.complete(arm, request.body, response_id)
        )
        try:
            ending = self._ending(request, completion)
        except BaseException:  # the redaction failed: the text is not kept, so no edit can be expected
            await asyncio.shield(self._give_up(generation))
            raise
        finished = self.loop.finish(
            response_id,
            ending,
            arm=generation.arm,
            asked=request.characters(),
            seconds=generation.model_seconds,
        )
        there = await last_of(generation.written, finished)
        # Another replica was asked for the same response and finished first. Its text is in the log, so that
        # is the text which edits will be compared with, and this client has to see the same.
        if there is not None:
            written, generation.arm = there
            completion = Completion(written, completion.finish, {"role": "assistant", "content": written})
        self._consider_shadow(request, response_id, ending)
        return CompletionResult(response_id, generation.arm, completion, generation.model_seconds)

    # Streams

    async def stream(self, request: CompletionRequest) -> CompletionStream:
        """Begin a response; its decision is on the disk when this returns.

        Raises:
            Problem: As in `complete`.
            UpstreamRejectedError: As in `complete`.
        """
        self.backend.check(request.body)
        note_user(request.user)
        with self._exclusively(request.response_id) as reservation:
            return await self._stream(request, reservation)

    async def _stream(self, request: CompletionRequest, reservation: ExitStack) -> CompletionStream:
        known = await self._find_known(request)
        if isinstance(known, CompletionResult):
            return CompletionStream(known.response_id, known.arm, replayed(known.completion), 0.0)
        response_id, generation = self._begin(request, known, hurry=True)

        # An arm has answered when its first chunk is there. Until then another one can take its place.
        async def begin(arm: str) -> tuple[Chunk, AsyncIterator[Chunk]]:
            chunks = self.backend.stream(arm, request.body, response_id)
            try:
                return await anext(chunks), chunks
            except StopAsyncIteration:
                raise BackendUnavailableError("error", "an empty stream") from None

        first, rest = await self._attempt(generation, begin)
        await self._take_over(generation)
        # The identity stays reserved after this returns, until the stream has ended.
        chunks = self._recorded(request, response_id, generation, first, rest, reservation.pop_all())
        return CompletionStream(response_id, generation.arm, chunks, generation.model_seconds)

    async def _recorded(
        self,
        request: CompletionRequest,
        response_id: str,
        generation: _Generation,
        first: Chunk,
        rest: AsyncIterator[Chunk],
        reservation: ExitStack,
    ) -> AsyncIterator[Chunk]:
        """The chunks as they come. The whole text is on the disk before the chunk that ends it is sent.

        So a client that has seen the end of a response can rely on the server knowing its text.
        """
        gathered, finish = Gathered(), ""
        began = time.perf_counter() - generation.model_seconds

        async def record(last: Chunk) -> str:
            ending = self._ending(request, gathered.completion(last))
            await self.loop.finish(
                response_id,
                ending,
                arm=generation.arm,
                asked=request.characters(),
                seconds=time.perf_counter() - began,
            )
            self._consider_shadow(request, response_id, ending)
            return ending.finish

        try:
            async for chunk in chained(first, rest):
                gathered.add(chunk)
                if chunk.finish and not finish:
                    finish = await record(chunk)
                yield chunk
            finish = finish or await record(Chunk({}))
        except BaseException:  # also when the client has disconnected: then the generator is closed here
            if not finish:
                with suppress(Problem):
                    await asyncio.shield(self.loop.finish(response_id, FAILED))
            raise
        finally:
            reservation.close()

    # Both

    def _ending(self, request: CompletionRequest, completion: Completion) -> Ending:
        """How a response ended, as it is kept."""
        if not request.store:
            return unstored_ending(completion, self.loop.scopes.digest)
        return ending_of(completion, self.redact)

    def _consider_shadow(self, request: CompletionRequest, response_id: str, ending: Ending) -> None:
        """Have shadow drafts drawn, whose texts are compared with an edit, if texts are kept."""
        if request.store and ending.response is not None:
            self.shadows.consider(request, response_id)

    @contextmanager
    def _exclusively(self, response_id: str | None) -> Iterator[ExitStack]:
        """Reserve an identity within the block, and until the yielded stack is closed.

        Two requests with one identity at the same time would generate two responses, only one of which is
        kept. The reservation holds within this process; between replicas, the one that finishes first wins.

        Raises:
            Problem: 409, another request has this identity.
        """
        if response_id in self._under_way:
            raise Problem(409, "this id is being answered", code="id_in_progress", param="id", retry_after=1)
        with ExitStack() as reservation:
            if response_id is not None:
                self._under_way.add(response_id)
                reservation.callback(self._under_way.discard, response_id)
            yield reservation

    async def _find_known(self, request: CompletionRequest) -> CompletionResult | str | None:
        """What is known of an earlier request with this identity.

        Returns:
            Its response, with the text as it was kept, which is redacted; or only its arm, if a kill or a
            disconnection has interrupted it; or None.

        Raises:
            Problem: 409 if the identity belongs to another request, or its response has failed or was
                removed; 503 if there is a response, which only the store has, and the store is down.
        """
        response_id = request.response_id
        if response_id is None:
            return None
        try:
            row = await self.loop.read(lambda c: reads.draft(c, response_id))
        except Problem:
            if self.loop.state.knows(response_id):
                raise
            return None  # while the store is down, an identity that this process does not know counts as new
        if row is None:
            if self.loop.state.knows(response_id):
                raise store_unavailable("this response is not in the store yet")
            return None
        if row.request != self.loop.scopes.digest(request.content()):
            raise Problem(
                409, "another request has this id", code="id_reused", param="id", seen=request.response_id
            )
        if row.response is not None:
            message = {"role": "assistant", "content": row.response}
            completion = Completion(row.response, row.finish, message)
            return CompletionResult(row.response_id, row.policy, completion, 0.0)
        if row.finish is not None:
            raise Problem(409, "this id cannot be used again", code=f"response_{row.finish}", param="id")
        return str(row.policy)

    def _begin(self, request: CompletionRequest, arm: str | None, *, hurry: bool) -> tuple[str, _Generation]:
        """Decide, and begin to write the decision.

        Args:
            request: What is asked.
            arm: The arm that was chosen before, if the end of the server interrupted the first attempt.
            hurry: Whether the decision is written at once, because a stream waits for it. Otherwise it may
                share a commit with its own response, if that comes within milliseconds.
        """
        response_id = request.response_id or f"{request.prefix}{uuid4().hex}"
        loop, redact = self.loop, self.redact
        written: asyncio.Future[Any]
        if arm is not None:  # the log has the decision; this one is never written, so its numbers are dummies
            decision = Decided(response_id, loop.scope_of(request.user), arm, None, 0)
            written = asyncio.get_running_loop().create_future()
            written.set_result(None)
            return response_id, _Generation(decision, arm, written)
        metadata = logged_metadata(request.metadata, redact) if request.store else None
        messages = logged_context(request.body["messages"], redact)
        context = json.dumps(messages, ensure_ascii=False, allow_nan=False) if request.store else None
        digest = loop.scopes.digest(request.content())
        # The choice comes last: a decision is in flight until it is written, so nothing that may fail, such
        # as the redaction, may come between the choice and the writing.
        decision = loop.choose(response_id, request.user, request.arm, spoken_text(messages))
        command = RecordDecision(
            decision,
            time.time(),
            request.user if request.store else None,
            digest,
            context,
            metadata,
            client_key=request.client_key,
            has_instructions=request.has_instructions,
            store=request.store,
        )
        written = asyncio.ensure_future(loop.write(command, hurry=hurry))
        return response_id, _Generation(decision, decision.arm, written)

    async def _attempt(self, generation: _Generation, ask: Callable[[str], Awaitable[T]]) -> T:
        """The answer of the arm that was chosen, or of another one if it cannot answer.

        Raises:
            Problem: No arm can answer.
            UpstreamRejectedError: The model's server rejects the request.
        """
        try:
            return await self._first_answer(generation, ask)
        except BaseException:  # also a cancellation: nobody will edit this response
            await asyncio.shield(self._give_up(generation))
            raise

    async def _first_answer(self, generation: _Generation, ask: Callable[[str], Awaitable[T]]) -> T:
        """Ask one arm after the other, within one deadline for all of them."""
        response_id, scope = generation.decision.response_id, generation.decision.scope
        tried: list[str] = []
        clock = asyncio.get_running_loop().time
        until = None if self._seconds is None else clock() + self._seconds
        while True:
            started = time.perf_counter()
            tried.append(generation.arm)
            limit = None
            if until is not None:
                # A share of the remaining time, and not equal parts: with many arms, equal parts would leave
                # little time to the first arm, which is the one that usually answers.
                is_last = not self.loop.state.other_arms(scope, tried)
                limit = (until - clock()) * (1.0 if is_last else ATTEMPT_SHARE)
            try:
                async with attempt_timeout(limit):
                    return await ask(generation.arm)
            except BackendUnavailableError as error:
                self._on_failure(generation.arm, error.reason)
                problem = backend_problem(error, generation.arm, response_id)
                others = self.loop.state.other_arms(scope, tried)
                if not others or (until is not None and clock() >= until):
                    raise problem from error
            finally:
                generation.model_seconds += time.perf_counter() - started
            generation.reroutes += 1
            await generation.written  # a reroute of a decision that is not in the log would have no effect
            generation.arm = others[0]
            await self.loop.reroute(response_id, generation.arm, generation.reroutes)

    async def _take_over(self, generation: _Generation) -> None:
        """Wait for the decision, and record which arm answers if another replica has chosen another one."""
        chosen = await generation.written
        if chosen not in (None, generation.arm) and not generation.reroutes:
            await self.loop.reroute(generation.decision.response_id, generation.arm, 1)

    async def _give_up(self, generation: _Generation) -> None:
        """Record that the response has failed, so that its arm does not wait for an edit of it."""
        with suppress(Problem):  # if it cannot be recorded, the response expires later
            await generation.written
            await self.loop.finish(generation.decision.response_id, FAILED)
