"""The protocol of a serving backend, in which policies run and generate the responses.

A backend gets an arm's name and a request, and returns a completion. It does not know why that arm was
chosen. Two come with EditLoop, `local` and `upstream`; another package adds one as the registry in
`editloop.serve.backends` describes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from editloop.errors import ServeError
from editloop.policy.served import ServedPolicy

__all__ = [
    "Backend",
    "BackendOptions",
    "BackendUnavailableError",
    "Chunk",
    "Completion",
    "CountsTokens",
    "Draft",
    "PromptedRequest",
    "ServedPolicy",
    "UpstreamRejectedError",
    "as_asked",
    "asking_user",
    "attempt_timeout",
    "note_user",
    "seconds_left",
    "unused_parts",
]

# A context variable and not an argument, so that a backend that ignores deadlines need not mention them. Each
# request is a task of its own, and has its own value.
_attempt_ends: ContextVar[float | None] = ContextVar("attempt_ends", default=None)
_asking_user: ContextVar[str | None] = ContextVar("asking_user", default=None)


def unused_parts(policies: Mapping[str, ServedPolicy], retired: ServedPolicy) -> list[ServedPolicy]:
    """The parts of a retired policy that none of the remaining policies needs."""
    needed = {part.arm for each in policies.values() for part in each.parts()}
    return [part for part in retired.parts() if part.arm not in needed]


@dataclass(frozen=True)
class Draft:
    """One of several drafts of a response.

    Attributes:
        text: Its text.
        finish: Why it ended.
        bound: The predicted cost by which it was compared; None if it was not.
    """

    text: str
    finish: str
    bound: float | None


@dataclass(frozen=True)
class Completion:
    """A whole response.

    Attributes:
        text: The generated text; None if the response is a tool call instead.
        finish: Why it ended: `stop`, `length` ...
        message: The message, as in OpenAI's API.
        usage: The counts of tokens, as in OpenAI's API.
        logprobs: The log-probabilities, as in OpenAI's API, if they were asked for.
        drafts: All drafts of which it is one; empty if it is the only one.
        logprob: The log-probability of the text by the policy that wrote it, in nats: the sum over all its
            tokens, with the token that ended it, at temperature 1 over the whole vocabulary. None if it is
            not known, or the text is not what was generated.
    """

    text: str | None
    finish: str
    message: dict[str, Any]
    usage: dict[str, Any] | None = None
    logprobs: dict[str, Any] | None = None
    drafts: tuple[Draft, ...] = ()
    logprob: float | None = None


@dataclass(frozen=True)
class Chunk:
    """A part of a streamed response.

    Attributes:
        delta: What is new in this part, as in OpenAI's API.
        finish: Why the response ended; None in all parts but the last.
        usage: The counts of tokens, if they were asked for.
        logprobs: The log-probabilities, if they were asked for.
        drafts: As of a completion, in the last part.
        logprob: As of a completion, that of the whole text, in the last part.
    """

    delta: dict[str, Any]
    finish: str | None = None
    usage: dict[str, Any] | None = None
    logprobs: dict[str, Any] | None = None
    drafts: tuple[Draft, ...] = ()
    logprob: float | None = None


class BackendUnavailableError(ServeError):
    """An arm could not answer; another one may.

    Args:
        reason: `timeout`, `missing` or `error`.
        detail: What was seen. It is logged, and not shown to clients.
    """

    def __init__(self, reason: str, detail: object = None) -> None:
        super().__init__(f"the policy could not answer ({reason})", seen=detail)
        self.reason = reason


class UpstreamRejectedError(ServeError):
    """The model's server rejects the request itself, so another arm would not answer it either.

    Args:
        status: The HTTP status.
        body: The body of the answer.
        retry_after: The value of the server's `Retry-After` header, if there is one.
    """

    def __init__(self, status: int, body: Any, retry_after: str | None = None) -> None:
        super().__init__("the model's server rejects the request", seen=body)
        self.status, self.body, self.retry_after = status, body, retry_after


@asynccontextmanager
async def attempt_timeout(seconds: float | None) -> AsyncIterator[None]:
    """Limit the block to this many seconds, in which an arm answers or begins a stream; None sets no limit.

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
    """How many seconds the current attempt has left; None if there is no limit.

    A backend may pass this on to the server that it asks. An attempt that takes longer is cancelled in any
    case.
    """
    ends = _attempt_ends.get()
    return None if ends is None else max(0.0, ends - asyncio.get_running_loop().time())


def note_user(user: str | None) -> None:
    """Note who asks, for as long as the current request is answered."""
    _asking_user.set(user)


def asking_user() -> str | None:
    """Who sent the request that is being answered; None if that is not known. A backend may ignore it."""
    return _asking_user.get()


class PromptedRequest(dict[str, Any]):
    """A request as a policy gets it, with more in its prompt than what the application sent.

    Args:
        asked: What the application sent.
        messages: The messages of the prompt.
    """

    def __init__(self, asked: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(asked, messages=messages)
        self.asked = asked


def as_asked(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the application sent, whatever a policy gets in its place."""
    return request.asked if isinstance(request, PromptedRequest) else request


@dataclass(frozen=True)
class BackendOptions:
    """The options from which a backend is made; each backend uses those that concern it.

    Attributes:
        url: Address of a model server.
        key: Its bearer key.
        base: The name of the base model there.
        timeout: Maximum seconds until a response, and between two parts of a stream.
        logprobs: Whether the model server is asked for the log-probabilities of its tokens.
        max_new_tokens: Maximum tokens of a response, if a request sets no limit.
        best_of: Drafts of a response, of which the one with the least predicted cost is given.
        device: As in `editloop.policy.load_base`.
        dtype: As in `editloop.policy.load_base`.
        extra: Options of backends of other packages, by name.
    """

    url: str | None = None
    key: str | None = None
    base: str | None = None
    timeout: float = 120.0
    logprobs: bool = False
    max_new_tokens: int = 512
    best_of: int = 1
    device: str = "auto"
    dtype: str = "auto"
    extra: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Backend(Protocol):
    """Where policies run."""

    answer_seconds: float | None
    """Seconds in which a request must be answered, over all arms that are tried; None sets no limit.

    None suits a backend whose arms share one processor, where another arm would be no quicker.
    """

    @property
    def down(self) -> str | None:
        """Why no policy can answer now; None if they can. Anyone may read it, so it must hold no address."""
        ...

    async def start(self) -> None:
        """Get ready to prepare policies and to answer.

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
        """Release a policy; a policy that is not there is not an error."""
        ...

    def check(self, request: Mapping[str, Any]) -> None:
        """Check whether a request can be answered at all, before anything is decided or recorded.

        Args:
            request: The request, as in OpenAI's API.

        Raises:
            UpstreamRejectedError: It asks for something that no policy here can do; the message names it.
        """
        ...

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        """Generate a whole response.

        Args:
            arm: The policy that generates it.
            request: The request, as in OpenAI's API.
            response_id: The response's identity; it seeds the choice of a mixture's part.

        Raises:
            BackendUnavailableError: This arm cannot answer; another arm may.
            UpstreamRejectedError: The request is rejected, whatever the arm.
        """
        ...

    def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        """Generate a response part by part; the last part has `finish`.

        The iterator is closed when nobody waits any more. It should then stop generating.

        Raises:
            BackendUnavailableError: As in `complete`; also after some parts, if the response breaks off.
            UpstreamRejectedError: As in `complete`.
        """
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A backend that can count tokens itself. Others may say in a response's usage how many there were."""

    def tokens_left(self, request: Mapping[str, Any]) -> int:
        """How many tokens a response may have after this prompt; below 1 if the prompt is too long.

        Args:
            request: A request that `Backend.check` accepts, but for its length.

        Raises:
            EditLoopError: The prompt cannot be made of these messages.
        """
        ...
