"""What a serving backend is: where policies run that generate the responses.

A backend gets an arm's name and a request, and gives a completion. Why that arm was chosen is not known here.
Two come with EditLoop, `local` and `upstream`; another package adds one as the registry in
`editloop.serve.backends` describes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from editloop.errors import ServeError

__all__ = [
    "Backend",
    "BackendOptions",
    "BackendUnavailableError",
    "Chunk",
    "Completion",
    "ServedPolicy",
    "UpstreamRejectedError",
    "attempt_timeout",
    "seconds_left",
    "unused_parts",
]

_attempt_ends: ContextVar[float | None] = ContextVar("attempt_ends", default=None)


@dataclass(frozen=True)
class ServedPolicy:
    """A policy that is served as an arm.

    Attributes:
        arm: Its permanent name, with a hash of its weights: `sft@1f2e3d4c`.
        name: Its name in the run: `sft`, `mixture`, `base` ...
        run: The run folder.
        weights: The weights of a mixture's parts, by their arms; empty for any other policy.
    """

    arm: str
    name: str
    run: Path
    weights: Mapping[str, float] = field(default_factory=dict)

    def parts(self) -> list[ServedPolicy]:
        """The policies that have to be loaded for it: itself, or the parts of a mixture."""
        if not self.weights:
            return [self]
        return [ServedPolicy(arm, arm.partition("@")[0], self.run) for arm in self.weights]

    def part_for(self, response_id: str) -> ServedPolicy:
        """The policy that generates a response: itself, or a part drawn by the mixture's weights.

        The draw is seeded by the response's identity, so that a request that is sent again, to another
        replica even, gets the same part.
        """
        return random.Random(response_id).choices(self.parts(), [*self.weights.values()] or None)[0]


def unused_parts(policies: Mapping[str, ServedPolicy], retired: ServedPolicy) -> list[ServedPolicy]:
    """The parts of a policy that was retired which none of the remaining policies needs."""
    needed = {part.arm for each in policies.values() for part in each.parts()}
    return [part for part in retired.parts() if part.arm not in needed]


@dataclass(frozen=True)
class Completion:
    """A whole response.

    Attributes:
        text: What was generated; None if it is not a text, but a tool call.
        finish: Why it ended: `stop`, `length` ...
        message: The message, as of OpenAI's API.
        usage: Counts of tokens, likewise.
        logprobs: Log-probabilities, likewise, if they were asked for.
    """

    text: str | None
    finish: str
    message: dict[str, Any]
    usage: dict[str, Any] | None = None
    logprobs: dict[str, Any] | None = None


@dataclass(frozen=True)
class Chunk:
    """A part of a streamed response.

    Attributes:
        delta: What is new, as of OpenAI's API.
        finish: Why the response ended; with its last part only.
        usage: Counts of tokens, if they were asked for.
        logprobs: Log-probabilities, likewise.
    """

    delta: dict[str, Any]
    finish: str | None = None
    usage: dict[str, Any] | None = None
    logprobs: dict[str, Any] | None = None


class BackendUnavailableError(ServeError):
    """An arm could not answer; another one may.

    Args:
        reason: `timeout`, `missing` or `error`.
        detail: What was seen.
    """

    def __init__(self, reason: str, detail: object = None) -> None:
        super().__init__(f"the policy could not answer ({reason})", seen=detail)
        self.reason = reason


class UpstreamRejectedError(ServeError):
    """The request itself was rejected by the model's server, so no arm would be answered.

    Args:
        status: HTTP status.
        body: The body of the answer.
        retry_after: When it may be tried again, as the server said it.
    """

    def __init__(self, status: int, body: Any, retry_after: str | None = None) -> None:
        super().__init__("the model's server rejects the request", seen=body)
        self.status, self.body, self.retry_after = status, body, retry_after


@asynccontextmanager
async def attempt_timeout(seconds: float | None) -> AsyncIterator[None]:
    """Within it, an arm has so many seconds to answer, or to begin a stream; None sets no limit.

    Raises:
        BackendUnavailableError: The time is over.
    """
    before = _attempt_ends.set(None if seconds is None else asyncio.get_running_loop().time() + seconds)
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise BackendUnavailableError("timeout") from None
    finally:
        _attempt_ends.reset(before)


def seconds_left() -> float | None:
    """How many seconds the attempt that is under way still has; None if there is no limit.

    A backend may pass this on to a server that it asks. One that does not is cancelled at the end all the
    same.
    """
    ends = _attempt_ends.get()
    return None if ends is None else max(0.0, ends - asyncio.get_running_loop().time())


@dataclass(frozen=True)
class BackendOptions:
    """What a backend is made from; each takes the options that concern it.

    Attributes:
        url: Address of a model server.
        key: Its bearer key.
        base: What the base is called there.
        timeout: Seconds until a response, and between two parts of a stream.
        max_new_tokens: Tokens of a response, if a request sets no limit.
        device: As of `editloop.policy.load_base`.
        dtype: As of `editloop.policy.load_base`.
        extra: Options of backends that other packages bring, by name.
    """

    url: str | None = None
    key: str | None = None
    base: str | None = None
    timeout: float = 120.0
    max_new_tokens: int = 512
    device: str = "auto"
    dtype: str = "auto"
    extra: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Backend(Protocol):
    """Where policies run."""

    answer_seconds: float | None
    """Time after which another arm is asked; None if all arms share one processor: another is no quicker."""

    @property
    def down(self) -> str | None:
        """Why no policy can answer now; None if they can. Anyone may read it, so it holds no address."""
        ...

    async def start(self) -> None:
        """Get ready.

        Raises:
            EditLoopError: It cannot.
        """
        ...

    async def stop(self) -> None:
        """Release everything."""
        ...

    async def prepare(self, policy: ServedPolicy) -> None:
        """Make a policy ready to answer. Preparing one that is ready changes nothing.

        Raises:
            EditLoopError: It cannot be made ready.
        """
        ...

    async def retire(self, arm: str) -> None:
        """Release a policy; one that is not there is no error."""
        ...

    def check(self, request: Mapping[str, Any]) -> None:
        """Check whether a request can be answered at all, before anything is decided or recorded.

        Args:
            request: As of OpenAI's API.

        Raises:
            UpstreamRejectedError: It asks for something that no policy here can do; the message names it.
        """
        ...

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        """Generate a whole response.

        Args:
            arm: The policy that generates it.
            request: As of OpenAI's API.
            response_id: The response's identity; it seeds the choice of a mixture's part.

        Raises:
            BackendUnavailableError: This arm cannot answer; another may.
            UpstreamRejectedError: No arm would be answered.
        """
        ...

    def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        """Generate a response part by part; the last part has `finish`. Errors are those of `complete`."""
        ...
