"""The desk: takes a request, has a policy answer it, and writes down what was decided and said.

The decision goes to the disk while the policy answers, and is on the disk before the first byte leaves.
Where a policy fails before that, another answers, and the log says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import select

from editloop.online import Decided
from editloop.serve.backends.base import Backend, Chunk, Completion, Unanswered, attempt_within
from editloop.serve.loop.commands import Ask
from editloop.serve.loop.feedback import Live
from editloop.serve.loop.redaction import WORDS, Redact, redact_leaves, redact_text
from editloop.serve.problem import Problem
from editloop.store.schema import drafts

__all__ = ["Answered", "Desk", "Question", "Streamed", "unanswered"]

log = logging.getLogger("editloop.serve")

T = TypeVar("T")

FIRST_SHARE = 0.5
"""Of the time that is left, for an arm after which another could answer."""

REASONS = ("stop", "length", "tool_calls", "function_call", "content_filter")
"""Why a response ends, as of OpenAI's API."""


@dataclass(frozen=True)
class Question:
    """A request for a response.

    Attributes:
        body: The request, as of OpenAI's API.
        response_id: That the client gave it, if it did.
        user: Who asks.
        arm: Whom the client asked; None lets the bandit choose.
        metadata: To be kept with it.
    """

    body: Mapping[str, Any]
    response_id: str | None = None
    user: str | None = None
    arm: str | None = None
    metadata: Mapping[str, Any] | None = None

    def asked(self) -> list[Any]:
        """What a repeated question has in common with the first: not whether it is answered in parts."""
        return [{k: v for k, v in self.body.items() if not k.startswith("stream")}, self.user]


@dataclass(frozen=True)
class Answered:
    """A response, and whose it is.

    Attributes:
        response_id: The key for its edits.
        arm: The policy that wrote it.
        completion: It.
        model_seconds: How long the policy took.
    """

    response_id: str
    arm: str
    completion: Completion
    model_seconds: float


@dataclass(frozen=True)
class Streamed:
    """The same, part by part."""

    response_id: str
    arm: str
    chunks: AsyncIterator[Chunk]
    model_seconds: float


@dataclass
class _Turn:
    """An answer that is being written."""

    decision: Decided
    arm: str
    written: asyncio.Future[Any]
    attempts: int = 0
    model_seconds: float = 0.0


def unanswered(error: Unanswered, arm: str, response_id: str) -> Problem:
    """What a client is told of an arm that could not answer; the whole of it, addresses too, is logged."""
    log.warning("%s: %s could not answer (%s): %.2000r", response_id, arm, error.reason, error.seen)
    return Problem(
        504 if error.reason == "timeout" else 502,
        f"the policy could not answer ({error.reason})",
        code=f"upstream_{error.reason}",
        do=f"the server's log says more under {response_id}",
    )


def context_of(messages: Any, redact: Redact) -> Any:
    """What is logged of the messages: the text of a user's only message, else all of them.

    A base with a chat template is asked the same by both, and one without is asked the text alone. Every
    text of a message is redacted: tool calls, what tools returned, and parts that are no text alone.
    """
    joined = [{**each, "content": _joined(each.get("content"))} for each in messages]
    kept: list[Any] = redact_leaves(joined, redact, words=WORDS)
    if len(kept) == 1 and set(kept[0]) == {"role", "content"} and kept[0]["role"] == "user":
        return kept[0]["content"]
    return kept


def _joined(content: Any) -> Any:
    """Parts that are texts, as one text."""
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content


def metadata_of(metadata: Mapping[str, Any] | None, redact: Redact) -> str | None:
    """Metadata as JSON, as they are kept."""
    if not metadata:
        return None
    return json.dumps(redact_leaves(dict(metadata), redact), ensure_ascii=False, allow_nan=False)


class Desk:
    """Answers questions.

    Args:
        live: Decides and learns.
        backend: Writes.
        redact: What is done to a text before it is kept.
        failed: Called with an arm and why it could not answer.
        seconds: In which a question is answered, or its stream begins, whoever answers; None for as long as
            it takes.
    """

    def __init__(
        self,
        live: Live,
        backend: Backend,
        *,
        redact: Redact = str,
        failed: Callable[[str, str], None] = lambda arm, reason: None,
        seconds: float | None = None,
    ) -> None:
        self._seconds = seconds
        self.live, self.backend, self.redact, self._failed = live, backend, redact, failed
        self._under_way: set[str] = set()

    async def answer(self, question: Question) -> Answered:
        """A whole response.

        Raises:
            Problem: No policy answers, the id is another's, or the store and the spool are down.
            Refused: By the model's server.
        """
        self.backend.check(question.body)
        with self._only(question.response_id):
            return await self._answer(question)

    async def _answer(self, question: Question) -> Answered:
        known = await self._known(question)
        if isinstance(known, Answered):
            return known
        response_id, turn = self._begin(question, known, hurry=False)
        completion = await self._attempt(
            turn, lambda arm: self.backend.complete(arm, question.body, response_id)
        )
        try:
            text = None if completion.text is None else _kept(completion.text, self.redact)
        except BaseException:  # of the redaction: nothing is kept, and no edit is waited for
            await asyncio.shield(self._give_up(turn))
            raise
        there = await _all(turn.written, self.live.finish(response_id, text, _reason(completion.finish)))
        if there is not None:  # another replica's try was quicker
            completion = Completion(there, completion.finish, {"role": "assistant", "content": there})
        return Answered(response_id, turn.arm, completion, turn.model_seconds)

    async def stream(self, question: Question) -> Streamed:
        """A response that has begun, the decision on the disk.

        Raises:
            As of `answer`.
        """
        self.backend.check(question.body)
        with self._only(question.response_id) as mine:
            return await self._stream(question, mine)

    async def _stream(self, question: Question, mine: ExitStack) -> Streamed:
        known = await self._known(question)
        if isinstance(known, Answered):
            return Streamed(known.response_id, known.arm, _replayed(known.completion), 0.0)
        response_id, turn = self._begin(question, known, hurry=True)

        async def begin(arm: str) -> tuple[Chunk, AsyncIterator[Chunk]]:
            chunks = self.backend.stream(arm, question.body, response_id)
            try:
                return await anext(chunks), chunks
            except StopAsyncIteration:
                raise Unanswered("error", "an empty stream") from None

        first, rest = await self._attempt(turn, begin)
        await turn.written
        return Streamed(
            response_id,
            turn.arm,
            self._followed(response_id, first, rest, mine.pop_all()),
            turn.model_seconds,
        )

    async def _followed(
        self, response_id: str, first: Chunk, rest: AsyncIterator[Chunk], mine: ExitStack
    ) -> AsyncIterator[Chunk]:
        """The chunks, as they come; what they came to is written before the one that ends it leaves."""
        parts: list[str] = []
        finish, is_text = "", True

        async def done(reason: str) -> str:
            text = _kept("".join(parts), self.redact) if is_text else None
            await self.live.finish(response_id, text, reason)
            return reason

        try:
            async for chunk in _chained(first, rest):
                if content := chunk.delta.get("content"):
                    parts.append(str(content))
                is_text = is_text and not chunk.delta.get("tool_calls")
                if chunk.finish and not finish:
                    finish = await done(_reason(chunk.finish))
                yield chunk
            finish = finish or await done("stop")
        except BaseException:
            if not finish:
                with suppress(Problem):
                    await asyncio.shield(self.live.finish(response_id, None, "failed"))
            raise
        finally:
            mine.close()

    @contextmanager
    def _only(self, response_id: str | None) -> Iterator[ExitStack]:
        """Within it, and until the stack is closed, no other request answers under this id.

        Raises:
            Problem: One does.
        """
        if response_id in self._under_way:
            raise Problem(409, "this id is being answered", code="id_in_progress", param="id", retry_after=1)
        with ExitStack() as mine:
            if response_id is not None:
                self._under_way.add(response_id)
                mine.callback(self._under_way.discard, response_id)
            yield mine

    async def _known(self, question: Question) -> Answered | str | None:
        """What is known of a question that came before under this id: its answer, or its arm."""
        if question.response_id is None:
            return None
        mine = drafts.c.response_id == question.response_id
        try:
            row = await self.live.read(lambda c: c.execute(select(drafts).where(mine)).first())
        except Problem:
            return None  # the store is down; what is new to this process is taken as new
        if row is None:
            return None
        if row.request != self.live.digest(question.asked()):
            raise Problem(
                409, "another request has this id", code="id_reused", param="id", seen=question.response_id
            )
        if row.response is not None:
            message = {"role": "assistant", "content": row.response}
            return Answered(row.response_id, row.policy, Completion(row.response, row.finish, message), 0.0)
        if row.finish is not None:
            raise Problem(409, "this id is spent", code=f"response_{row.finish}", param="id")
        return str(row.policy)

    def _begin(self, question: Question, arm: str | None, *, hurry: bool) -> tuple[str, _Turn]:
        """Decide, and let the decision be written: at once, or with a response that comes quickly."""
        response_id = question.response_id or f"chatcmpl-{uuid4().hex}"
        live, redact = self.live, self.redact
        written: asyncio.Future[Any]
        if arm is not None:  # decided before; the first try was broken off
            decision = Decided(response_id, live.scope_of(question.user), arm, 1.0, 0)
            written = asyncio.get_running_loop().create_future()
            written.set_result(None)
            return response_id, _Turn(decision, arm, written)
        metadata = metadata_of(question.metadata, redact)
        said = context_of(question.body["messages"], redact)
        context = json.dumps(said, ensure_ascii=False, allow_nan=False)
        decision = live.choose(response_id, question.user, question.arm)  # in flight: nothing may fail now
        ask = Ask(decision, time.time(), question.user, live.digest(question.asked()), context, metadata)
        written = asyncio.ensure_future(live.write(ask, hurry=hurry))
        return response_id, _Turn(decision, decision.arm, written)

    async def _attempt(self, turn: _Turn, ask: Callable[[str], Awaitable[T]]) -> T:
        """What an arm answers; another one, where it cannot.

        Raises:
            Problem: None can.
            Refused: By the model's server.
        """
        try:
            return await self._first_answer(turn, ask)
        except BaseException:  # also of a client that has gone: nobody will edit this response
            await asyncio.shield(self._give_up(turn))
            raise

    async def _first_answer(self, turn: _Turn, ask: Callable[[str], Awaitable[T]]) -> T:
        tried: list[str] = []
        clock = asyncio.get_running_loop().time
        until = None if self._seconds is None else clock() + self._seconds
        while True:
            started = time.perf_counter()
            tried.append(turn.arm)
            share = None
            if until is not None:  # not in equal parts: the more arms there are, the less each would have
                is_last = not self.live.others(turn.decision.scope, tried)
                share = (until - clock()) * (1.0 if is_last else FIRST_SHARE)
            try:
                async with attempt_within(share):
                    return await ask(turn.arm)
            except Unanswered as error:
                self._failed(turn.arm, error.reason)
                told = unanswered(error, turn.arm, turn.decision.response_id)
                others = self.live.others(turn.decision.scope, tried)
                if not others or (until is not None and clock() >= until):
                    raise told from error
            finally:
                turn.model_seconds += time.perf_counter() - started
            turn.attempts += 1
            await turn.written
            turn.arm = others[0]
            await self.live.route(turn.decision.response_id, turn.arm, turn.attempts)

    async def _give_up(self, turn: _Turn) -> None:
        with suppress(Problem):
            await turn.written
            await self.live.finish(turn.decision.response_id, None, "failed")


async def _chained(first: Chunk, rest: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """All chunks of a stream that has begun."""
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        if hasattr(rest, "aclose"):
            await rest.aclose()


async def _all(*work: Awaitable[Any]) -> Any:
    """What the last gives, when all are done."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results[-1]


def _reason(finish: str) -> str:
    """Why a response ended, as it is kept: a model's server may say anything."""
    return finish if finish in REASONS else "stop"


def _kept(text: str, redact: Redact) -> str:
    """A response as it is kept: PostgreSQL takes no NUL."""
    return redact_text(text.replace("\0", ""), redact)


async def _replayed(completion: Completion) -> AsyncIterator[Chunk]:
    """A response that was given before, in one part."""
    yield Chunk({"role": "assistant", "content": completion.text})
    yield Chunk({}, completion.finish)
