"""How a response ended, as it is kept, after redaction."""

from __future__ import annotations

import json
from dataclasses import dataclass

from editloop.serve.backends.base import Completion
from editloop.serve.loop.logged_text import finish_reason, logged_drafts, logged_response, token_count
from editloop.serve.loop.redaction import WORDS, Redact, redact_leaves

__all__ = ["FAILED", "Ending", "ending_of"]


@dataclass(frozen=True)
class Ending:
    """How a response ended.

    Attributes:
        response: Its text; None if there is none that could be edited.
        finish: Why it ended.
        compared: All drafts of which it was chosen, as JSON.
        logprob: Its log-probability by the policy that wrote it, in nats.
        prompt_tokens: The tokens of what was asked; None if the backend did not say.
        completion_tokens: The tokens of the response; None if the backend did not say.
        message: The assistant's message as JSON, if it is a tool call and so has no text.
        text_digest: A digest of its text, which is itself not kept; None if the text is kept.
    """

    response: str | None
    finish: str
    compared: str | None = None
    logprob: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    message: str | None = None
    text_digest: str | None = None


FAILED = Ending(None, "failed")
"""The ending of a response that nobody has seen to its end."""


def ending_of(completion: Completion, redact: Redact) -> Ending:
    """The ending of a response that is kept.

    Raises:
        Exception: Whatever the redaction raises.
    """
    text = None if completion.text is None else logged_response(completion.text, redact)
    message = None
    if text is None and completion.message.get("tool_calls"):
        said = {name: completion.message.get(name) for name in ("role", "content", "tool_calls")}
        kept = redact_leaves(said, redact, words=WORDS)
        message = json.dumps(kept, ensure_ascii=False, allow_nan=False).replace("\\u0000", "")
    return Ending(
        text,
        finish_reason(completion.finish),
        logged_drafts(completion.drafts, redact),
        # Of a text that the redaction has changed, it is not known.
        completion.logprob if text is not None and text == completion.text else None,
        token_count(completion.usage, "prompt_tokens"),
        token_count(completion.usage, "completion_tokens"),
        message,
    )
