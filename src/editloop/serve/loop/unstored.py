"""Responses whose texts are not kept, because the client asked for it (`store: false`).

What is kept is the decision and, of each edit, its cost. To have an edit priced, the client sends the
response's text back with it. A digest, salted so that nobody else can compute it, shows that it is the text
that was generated: a cost by another text would be learned from, and nobody could find the mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from editloop.serve.backends.base import Completion
from editloop.serve.loop.ending import Ending
from editloop.serve.loop.logged_text import finish_reason, token_count
from editloop.serve.problem import Problem
from editloop.store.schema import UNSTORED

__all__ = ["Digest", "Texts", "text_sent_back", "unstored_ending"]

Digest = Callable[[object], str]
"""A salted digest, as `Scopes.digest`."""


class Texts(NamedTuple):
    """Texts of which only the cost is kept, and so as the client has sent them, without redaction.

    Attributes:
        response: The text of the response; None if the client did not send it.
        edit: What the user made of it.
    """

    response: str | None
    edit: str


def unstored_ending(completion: Completion, digest: Digest) -> Ending:
    """The ending of a response whose text is not kept. Its text here is only looked at, by `non_answers`."""
    found = Ending(
        None,
        finish_reason(completion.finish),
        prompt_tokens=token_count(completion.usage, "prompt_tokens"),
        completion_tokens=token_count(completion.usage, "completion_tokens"),
    )
    if completion.text is None:
        return found
    return replace(
        found, response=completion.text, finish=UNSTORED, text_digest=digest(["text", completion.text])
    )


def text_sent_back(response_id: str, texts: Texts | None, kept: str, digest: Digest) -> str:
    """The text of a response that is not kept, as the client has sent it back.

    Args:
        response_id: The response.
        texts: What the client sent.
        kept: The digest that is kept; empty while the response is being generated.
        digest: Makes digests.

    Raises:
        Problem: It sent none, or another text, or the response is still being generated.
    """
    if not kept:
        what = "this response is still being generated, and its text will not be kept"
        raise Problem(409, what, code="response_unfinished", param="response_id", retry_after=1)
    text = None if texts is None else texts.response
    if text is None:
        raise Problem(
            410,
            "the text of this response was not kept (store: false)",
            code="response_unstored",
            param="response",
            seen=response_id,
            do="send the text as it was generated as `response` beside the edit",
        )
    if digest(["text", text]) != kept:
        what = "this is not the text that was generated"
        raise Problem(409, what, code="response_differs", param="response", seen=response_id)
    return text
