"""A backend around any other one, that knows in-context policies: it writes their prompts and passes them on.

What is logged of a request stays what the application asked; only the policy behind the arm sees more. If a
user has no past edits, or they cannot be read, or the model's server takes no prompt with them, the policy is
asked without: then the arm is the policy that it stands on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from editloop.errors import EditLoopError
from editloop.serve.backends.base import (
    Backend,
    Chunk,
    Completion,
    CountsTokens,
    PromptedRequest,
    ServedPolicy,
    UpstreamRejectedError,
    asking_user,
)
from editloop.serve.in_context import IN_CONTEXT
from editloop.serve.in_context.base import InContextOptions
from editloop.serve.in_context.name import InContextName
from editloop.serve.in_context.past_edits import asked_text, nearest, past_edits
from editloop.serve.in_context.preferences import Preferences, StoreLike
from editloop.serve.in_context.similarity import SIMILARITIES
from editloop.serve.in_context.tallies import PromptTallies, added_tokens, used_tokens
from editloop.serve.loop.redaction import Redact

__all__ = ["InContextBackend"]

log = logging.getLogger("editloop.serve")

READ_SECONDS = 2.0
"""Seconds in which a user's past edits must be read; after that, the policy is asked without them."""

ROOM_SHARE = 0.5
"""The share of the tokens that a response may have without past edits, which it must have with them."""

TOO_LONG = (400, 413, 422)
"""The statuses by which servers reject a prompt that is too long for the model."""


class InContextBackend:
    """A backend that has the policies of another one, and in-context policies that stand on them.

    Args:
        backend: Where policies run.
        store: Reads a user's past edits, and keeps what is learned of them.
        options: See `InContextOptions`.
        redact: A function that is applied to each text before it is kept.

    Attributes:
        tallies: How often prompts were extended, and by how much.

    Raises:
        ConfigError: There is no such similarity.
    """

    def __init__(
        self,
        backend: Backend,
        store: StoreLike,
        options: InContextOptions | None = None,
        *,
        redact: Redact = str,
    ) -> None:
        self._backend, self._store = backend, store
        self.answer_seconds = backend.answer_seconds
        self._options = options or InContextOptions()
        self._similarity = SIMILARITIES.get(self._options.similarity)
        self._policies: dict[str, ServedPolicy] = {}
        self._preferences = Preferences(store, self._ask, redact)
        self.tallies = PromptTallies()

    def __str__(self) -> str:
        return str(self._backend)

    @property
    def down(self) -> str | None:
        """See `Backend.down`."""
        return self._backend.down

    async def start(self) -> None:
        """See `Backend.start`.

        Raises:
            MissingExtraError: The similarity needs a library that is not installed.
        """
        await asyncio.to_thread(self._similarity, "asked", ["before"])  # it may read files, too
        await self._backend.start()

    async def stop(self) -> None:
        """See `Backend.stop`."""
        await self._preferences.stop()
        await self._backend.stop()

    async def prepare(self, policy: ServedPolicy) -> None:
        """See `Backend.prepare`. Of an in-context policy, those that it asks are prepared."""
        self._policies[policy.arm] = policy  # first: the backend may be able to answer later on
        for each in _asked(policy).values():
            await self._backend.prepare(each)

    async def retire(self, arm: str) -> None:
        """See `Backend.retire`. A policy that another arm stands on stays ready."""
        retired = self._policies.pop(arm, None)
        needed = {each for policy in self._policies.values() for each in _asked(policy)}
        for each in {arm} if retired is None else _asked(retired).keys() - needed:
            await self._backend.retire(each)

    def check(self, request: Mapping[str, Any]) -> None:
        """See `Backend.check`."""
        self._backend.check(request)

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        """See `Backend.complete`."""
        policy = self._policies.get(arm)
        if policy is None or not policy.uses:
            return await self._backend.complete(arm, request, response_id)
        under = policy.uses[0].arm
        prompts = await self._prompts(policy, request, response_id)
        for prompt in prompts:
            try:
                done = await self._backend.complete(under, prompt, response_id)
            except UpstreamRejectedError as error:
                _check_length(error)
                continue
            self._count(policy, prompt, done.usage)
            # The log keeps what was asked, and not this prompt, by which the response was as likely as that.
            return replace(done, logprob=None)
        self._note_rejected(policy, prompts, response_id)
        return await self._backend.complete(under, request, response_id)

    def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        """See `Backend.stream`."""
        policy = self._policies.get(arm)
        if policy is None or not policy.uses:
            return self._backend.stream(arm, request, response_id)
        return self._stream(policy, request, response_id)

    async def _stream(
        self, policy: ServedPolicy, request: Mapping[str, Any], response_id: str
    ) -> AsyncIterator[Chunk]:
        under = policy.uses[0].arm
        prompts = await self._prompts(policy, request, response_id)
        for prompt in prompts:
            async with _closing(self._backend.stream(under, prompt, response_id)) as chunks:
                try:
                    first = await anext(chunks, None)
                except UpstreamRejectedError as error:  # before its first part, a stream can begin anew
                    _check_length(error)
                    continue
                if first is None:
                    return
                usage = first.usage
                try:
                    yield replace(first, logprob=None)
                    async for chunk in chunks:
                        usage = chunk.usage or usage
                        yield replace(chunk, logprob=None)
                finally:
                    self._count(policy, prompt, usage)
                return
        self._note_rejected(policy, prompts, response_id)
        async with _closing(self._backend.stream(under, request, response_id)) as chunks:
            async for chunk in chunks:
                yield chunk

    # Prompts

    async def _prompts(
        self, policy: ServedPolicy, request: Mapping[str, Any], response_id: str
    ) -> list[PromptedRequest]:
        """The prompts to be tried, the fullest first; none if the policy is asked what the application asks.

        Whatever goes wrong, the request is answered: this only makes an answer better.
        """
        tally = self.tallies.of(policy.arm)
        tally.requests += 1
        user = asking_user()
        if user is None:
            return []
        try:
            found = await self._found(policy, request, response_id, user)
            prompts = self._written(policy, request, found)
        except Exception as error:  # also of a kind or a similarity of another package
            log.warning("%s: %s answers without past edits: %r", response_id, policy.arm, error)
            tally.failed += 1
            return []
        if found and not prompts:
            log.warning("%s: the prompt of %s has no room for past edits", response_id, policy.arm)
            tally.failed += 1
        return prompts

    async def _found(
        self, policy: ServedPolicy, request: Mapping[str, Any], response_id: str, user: str
    ) -> Sequence[Any]:
        """What goes into the prompt, the most similar first.

        A draft that is compared with what the user made of this very request, such as one of a policy in the
        shadow, must not be made of that.

        Raises:
            EditLoopError: The store is down.
            TimeoutError: The store does not answer.
        """
        name = InContextName.parse(policy.name)
        kind, budget = IN_CONTEXT.get(name.kind), self._options.characters
        async with asyncio.timeout(READ_SECONDS):
            past = await self._store.read(lambda c: past_edits(c, user, budget))
        wanted = [edit for edit in past if edit.response_id != response_id and kind.wants(edit)]
        if not wanted:
            return []

        def look() -> list[Any]:  # in a thread, because it takes some milliseconds
            return nearest(
                asked_text(request["messages"]), wanted, name.examples, self._similarity, characters=budget
            )

        edits = await asyncio.to_thread(look)
        if not kind.learns:
            return edits

        def count(tokens: int) -> None:
            self.tallies.of(policy.arm).learning_tokens += tokens

        return await self._preferences.of(edits, policy.uses[-1].arm, count)

    def _written(
        self, policy: ServedPolicy, request: Mapping[str, Any], found: Sequence[Any]
    ) -> list[PromptedRequest]:
        """Prompts with all that was found, with half of it, and so on, as far as there is room for them."""
        kind = IN_CONTEXT.get(InContextName.parse(policy.name).kind)
        prompts, n = [], len(found)
        while n:
            prompt = PromptedRequest(request, kind.write(request["messages"], found[:n]))
            if self._fits(prompt):
                prompts.append(prompt)
            n //= 2
        return prompts

    def _fits(self, prompt: PromptedRequest) -> bool:
        """Whether a prompt leaves room for a response, as far as the backend can tell."""
        if not isinstance(self._backend, CountsTokens):
            return True
        try:
            self._backend.check(prompt)
            left = self._backend.tokens_left(prompt)
            return left >= ROOM_SHARE * self._backend.tokens_left(prompt.asked)
        except EditLoopError:  # it is too long, or the chat template refuses such messages
            return False

    # Costs

    def _count(self, policy: ServedPolicy, prompt: PromptedRequest, usage: Mapping[str, Any] | None) -> None:
        tally, counted = self.tallies.of(policy.arm), None
        if isinstance(self._backend, CountsTokens):
            counted = self._backend.tokens_left(prompt.asked) - self._backend.tokens_left(prompt)
        tally.extended += 1
        tally.prompt_tokens += added_tokens(prompt, usage, counted)

    def _note_rejected(
        self, policy: ServedPolicy, prompts: Sequence[PromptedRequest], response_id: str
    ) -> None:
        """Note that the model's server has rejected all prompts, if there were any."""
        if prompts:
            log.warning("%s: the model's server takes no past edits in a prompt", response_id)
            self.tallies.of(policy.arm).failed += 1

    async def _ask(self, arm: str, request: Mapping[str, Any], response_id: str) -> tuple[str, int]:
        """What a policy answers, and the tokens that this takes.

        Raises:
            EditLoopError: It cannot answer.
        """
        self._backend.check(request)
        done = await self._backend.complete(arm, request, response_id)
        return done.text or "", used_tokens(request["messages"], done.text, done.usage)


def _asked(policy: ServedPolicy) -> dict[str, ServedPolicy]:
    """The policies that are asked in place of a policy, by arm: itself, if it is no in-context policy."""
    return {each.arm: each for each in policy.uses or (policy,)}


def _check_length(error: UpstreamRejectedError) -> None:
    """Raise an error again unless it may be one of a prompt that is too long."""
    if error.status not in TOO_LONG:
        raise error


@asynccontextmanager
async def _closing(chunks: AsyncIterator[Chunk]) -> AsyncIterator[AsyncIterator[Chunk]]:
    """A backend's stream, which is closed with the block, if it can be."""
    try:
        yield chunks
    finally:
        if hasattr(chunks, "aclose"):
            await chunks.aclose()
