"""The inputs and outputs of the completion service: a request, a whole response, a streamed response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from editloop.serve.backends.base import Chunk, Completion

__all__ = ["CLIENT_KEY", "CompletionRequest", "CompletionResult", "CompletionStream"]

CLIENT_KEY = "editloop_key"
"""The entry of the metadata by which a client that loses the response's id finds the response."""


@dataclass(frozen=True)
class CompletionRequest:
    """A request for a response.

    Attributes:
        body: The request, as in OpenAI's API.
        response_id: The identity that the client chose for the response, if it chose one.
        user: Who asks.
        arm: The arm that the client asked for; None lets the bandit choose.
        metadata: What is kept with the response.
        store: Whether texts are kept. If not, the decision and the costs of edits are all that is.
        has_instructions: Whether the first message is of this response alone, so that a response that goes on
            from it leaves it out.
        prefix: The beginning of an identity that the server chooses.
    """

    body: Mapping[str, Any]
    response_id: str | None = None
    user: str | None = None
    arm: str | None = None
    metadata: Mapping[str, Any] | None = None
    store: bool = True
    has_instructions: bool | None = None
    prefix: str = "chatcmpl-"

    @property
    def client_key(self) -> str | None:
        """By which the client finds the response; None if it gave no key."""
        return (self.metadata or {}).get(CLIENT_KEY)

    def content(self) -> list[Any]:
        """What identifies a repeated request. One of the two may be streamed and the other not."""
        return [{k: v for k, v in self.body.items() if not k.startswith("stream")}, self.user]

    def characters(self) -> int:
        """The length of what is asked."""
        contents = (message.get("content") for message in self.body["messages"])
        return sum(len(content) for content in contents if isinstance(content, str))


@dataclass(frozen=True)
class CompletionResult:
    """A whole response.

    Attributes:
        response_id: The identity that its edits are sent with.
        arm: The arm that generated it.
        completion: What was generated.
        model_seconds: The time that the arms took, including those that failed.
    """

    response_id: str
    arm: str
    completion: Completion
    model_seconds: float


@dataclass(frozen=True)
class CompletionStream:
    """A streamed response that has begun.

    Attributes:
        response_id: The identity that its edits are sent with.
        arm: The arm that generates it.
        chunks: Its parts, as they are generated.
        model_seconds: The time that the arms took until the first part.
    """

    response_id: str
    arm: str
    chunks: AsyncIterator[Chunk]
    model_seconds: float
