"""What writes responses: the part that an arm's name is given to. Which arm, and why, is not known here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from editloop.errors import ServeError

__all__ = [
    "Backend",
    "Chunk",
    "Completion",
    "Refused",
    "Served",
    "Unanswered",
    "attempt_within",
    "freed",
    "seconds_left",
]

_until: ContextVar[float | None] = ContextVar("until", default=None)


@dataclass(frozen=True)
class Served:
    """A policy as an arm.

    Attributes:
        arm: Its name for ever: `sft@1f2e3d4c`, by the hash of its weights.
        name: In its run: `sft`, `mixture`, `base` ...
        run: The run folder.
        weights: Of a mixture's parts, by their arms.
    """

    arm: str
    name: str
    run: Path
    weights: Mapping[str, float] = field(default_factory=dict)

    def parts(self) -> list[Served]:
        """What has to be loaded for it: itself, or the parts of a mixture."""
        if not self.weights:
            return [self]
        return [Served(arm, arm.partition("@")[0], self.run) for arm in self.weights]

    def drawn(self, response_id: str) -> Served:
        """Who writes a response: itself, or one part of a mixture, for one response always the same."""
        return random.Random(response_id).choices(self.parts(), [*self.weights.values()] or None)[0]


def freed(policies: Mapping[str, Served], gone: Served) -> list[Served]:
    """The parts of a policy that has gone which none of the others has."""
    needed = {part.arm for each in policies.values() for part in each.parts()}
    return [part for part in gone.parts() if part.arm not in needed]


@dataclass(frozen=True)
class Completion:
    """A whole response.

    Attributes:
        text: What was written; None where it is not text (a tool call).
        finish: Why it ended: `stop`, `length` ...
        message: As OpenAI's API has it.
        usage: Tokens, likewise.
        logprobs: Likewise, if they were asked for.
    """

    text: str | None
    finish: str
    message: dict[str, Any]
    usage: dict[str, Any] | None = None
    logprobs: dict[str, Any] | None = None


@dataclass(frozen=True)
class Chunk:
    """A part of a response.

    Attributes:
        delta: What is new, as OpenAI's API has it.
        finish: Why it ended, with the last.
        usage: Tokens, if they were asked for.
        logprobs: Likewise.
    """

    delta: dict[str, Any]
    finish: str | None = None
    usage: dict[str, Any] | None = None
    logprobs: dict[str, Any] | None = None


class Unanswered(ServeError):
    """An arm could not answer; another may.

    Args:
        reason: `timeout`, `missing` or `error`.
        detail: What was seen.
    """

    def __init__(self, reason: str, detail: object = None) -> None:
        super().__init__(f"the policy could not answer ({reason})", seen=detail)
        self.reason = reason


class Refused(ServeError):
    """The request itself was refused by the model's server, whatever the arm.

    Args:
        status: HTTP status.
        body: Its answer.
        retry_after: When it may be tried again, as the server said it.
    """

    def __init__(self, status: int, body: Any, retry_after: str | None = None) -> None:
        super().__init__("the model's server refuses the request", seen=body)
        self.status, self.body, self.retry_after = status, body, retry_after


@asynccontextmanager
async def attempt_within(seconds: float | None) -> AsyncIterator[None]:
    """Within it, an arm has so many seconds to answer, or to begin a stream; None for as long as it takes.

    Raises:
        Unanswered: The time is over.
    """
    before = _until.set(None if seconds is None else asyncio.get_running_loop().time() + seconds)
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unanswered("timeout") from None
    finally:
        _until.reset(before)


def seconds_left() -> float | None:
    """How many seconds an attempt that is under way still has; None where there is no limit.

    For a backend that can tell whom it asks: one that only waits is broken off without its doing.
    """
    until = _until.get()
    return None if until is None else max(0.0, until - asyncio.get_running_loop().time())


class Backend(Protocol):
    """Where policies run."""

    @property
    def down(self) -> str | None:
        """Why no policy can answer now, without an address, as anyone may be told; None if they can."""
        ...

    async def start(self) -> None:
        """Get ready.

        Raises:
            EditLoopError: It cannot.
        """
        ...

    async def stop(self) -> None:
        """Let go of everything."""
        ...

    async def prepare(self, policy: Served) -> None:
        """Make a policy ready to answer.

        Raises:
            EditLoopError: It cannot be.
        """
        ...

    async def retire(self, arm: str) -> None:
        """Let go of a policy."""
        ...

    def check(self, request: Mapping[str, Any]) -> None:
        """Look whether a request can be answered at all, before anything is decided.

        Args:
            request: As of OpenAI's API.

        Raises:
            Refused: It asks for something that no policy here can do, which is named.
        """
        ...

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        """A whole response.

        Args:
            arm: Whose.
            request: As of OpenAI's API.
            response_id: From which draws follow, where there are any.

        Raises:
            Unanswered: By this arm.
            Refused: By any.
        """
        ...

    def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        """The same, part by part; the last has `finish`."""
        ...
