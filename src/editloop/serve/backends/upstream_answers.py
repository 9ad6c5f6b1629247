"""Reading the answers of model servers: completions, chunks and errors, in the forms that servers use."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from editloop.errors import ServeError
from editloop.io import parse_json
from editloop.serve.backends.base import BackendUnavailableError, Chunk, Completion, UpstreamRejectedError

__all__ = [
    "StatusError",
    "chunk_of",
    "completion_of",
    "describe_cause",
    "describe_error",
    "error_message",
    "failure_of",
    "lines_of",
    "loading_advice",
]

ADVICE = (
    (r"rank", "start vLLM with --max-lora-rank {rank} or more"),
    (r"max_(cpu_)?loras", "start vLLM with larger --max-loras and --max-cpu-loras"),
    (r"not enabled|enable.lora", "start vLLM with --enable-lora"),
    (r"no adapter|no such file|does not exist", "it has to see the run folder under the same path"),
    (r"^(404|405) ", "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
    (r"^401 |^403 ", "give its key as EDITLOOP_UPSTREAM_KEY"),
    (r"", "the model server's log may say more"),
)
"""What to do if a server does not load an adapter, by a pattern in the status and message of its answer.

The first pattern that is found counts.
"""

CAUSES: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientConnectorDNSError, "its name is not known"),
    (aiohttp.ClientSSLError, "no trusted connection"),
    (aiohttp.ClientConnectorError, "nobody answers at its address"),
    (aiohttp.ServerDisconnectedError, "it closes the connection"),
    (ValueError, "no list of models"),
)
"""Why a server cannot be used, in words that anyone may read: the errors' own messages hold its address.

The first matching type counts, so subclasses come before their bases.
"""


class StatusError(Exception):
    """The server answered with this status instead of a list of models; the message is the number."""


# Answers


def completion_of(body: bytes) -> Completion:
    """The completion in the body of an answer.

    Raises:
        BackendUnavailableError: The body is not a completion.
    """
    try:
        parsed = parse_json(body)
        choice = parsed["choices"][0]
        message = dict(choice["message"])
        text, finish = message.get("content"), choice.get("finish_reason") or "stop"
        usage, logprobs = parsed.get("usage"), choice.get("logprobs")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackendUnavailableError("error", "not a chat completion") from error
    # Beside a tool call, some servers give an empty text in place of none.
    is_text = isinstance(text, str) and not message.get("tool_calls")
    return Completion(text if is_text else None, finish, message, usage, logprobs)


async def lines_of(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The lines of a stream of server-sent events."""
    rest = b""
    async for part in answer.content.iter_any():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    yield rest.decode(errors="replace")


def chunk_of(data: str) -> Chunk:
    """The chunk in an event of a stream.

    Raises:
        BackendUnavailableError: The event is an error, or not a chunk.
    """
    try:
        body = parse_json(data)
        if "error" in body:
            raise BackendUnavailableError("error", body["error"])
        choice = body["choices"][0] if body.get("choices") else {}  # the chunk with the usage has no choices
        delta, finish = dict(choice.get("delta") or {}), choice.get("finish_reason")
        return Chunk(delta, finish, body.get("usage"), choice.get("logprobs"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackendUnavailableError("error", "not a chunk of a chat completion") from error


# Errors


def failure_of(answer: aiohttp.ClientResponse, body: bytes) -> ServeError:
    """The error for a status other than 200: another arm may answer, or the request itself is rejected."""
    text = body.decode(errors="replace")
    if answer.status == 404:
        return BackendUnavailableError("missing", text)
    if answer.status in (400, 413, 422, 429):
        try:
            rejection = parse_json(text)
        except ValueError:
            rejection = text
        return UpstreamRejectedError(answer.status, rejection, answer.headers.get("Retry-After"))
    return BackendUnavailableError("error", f"{answer.status}: {text}")


def describe_cause(error: Exception) -> str:
    """Why the server cannot be used, without its address."""
    if isinstance(error, StatusError):
        return f"status {error}"
    return next((cause for kind, cause in CAUSES if isinstance(error, kind)), type(error).__name__)


def describe_error(error: Exception) -> str:
    """An error's message, or its type if that is empty. It may hold an address, so it is for the log only."""
    return str(error) or type(error).__name__


def error_message(text: str) -> str:
    """The message of a server's error, in any of the usual forms."""
    try:
        body = parse_json(text)
        error = body.get("error", body)
        message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        message = text
    return str(message or text)[:2000]


def loading_advice(answer: str, folder: Path) -> str:
    """What to do if a server does not load the adapter in a folder.

    Args:
        answer: The status and the message of its answer.
        folder: The adapter's.
    """
    try:
        config = parse_json((folder / "adapter_config.json").read_text(encoding="utf-8"))
        rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        rank = "R"
    advice = next(advice for pattern, advice in ADVICE if re.search(pattern, answer, re.IGNORECASE))
    return advice.format(rank=rank)
