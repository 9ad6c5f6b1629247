"""Earlier responses that a request goes on from, as far as the store still has their texts.

They come from the log, so a redaction applies to them: the model sees them as they are kept. The instructions
of an earlier response are not those of this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.problem import Problem, store_unavailable
from editloop.store import reads, references
from editloop.store.database import Row
from editloop.store.schema import UNSTORED

__all__ = ["earlier_messages", "item_id", "said", "with_references"]

MAX_REFERENCES = 500
"""The most items of an input that refer to items of earlier responses."""

SEPARATOR = "~"
"""Between a response's identity, which cannot have it, and the number of an item."""

WHY = {
    "removed": "the texts of this response were removed",
    UNSTORED: "the text of this response was not kept (store: false)",
    "failed": "this response has failed",
}


def item_id(kind: str, response_id: str, number: int) -> str:
    """The identity of an output item, from which its response is found again.

    Args:
        kind: `msg` or `fc`.
        response_id: The response.
        number: Which of its items.
    """
    return f"{kind}_{response_id}{SEPARATOR}{number}"


async def earlier_messages(loop: FeedbackLoop, response_id: str, user: str | None) -> list[dict[str, Any]]:
    """The messages up to and with an earlier response.

    Args:
        loop: Reads the store.
        response_id: The earlier response.
        user: Who asks now.

    Raises:
        Problem: 400, there is no such response of this user, or its texts are not there; 503, the store is
            down.
    """
    param = "previous_response_id"
    found = await loop.read(lambda c: reads.draft(c, response_id))
    draft = _checked(loop, found, response_id, user, param)
    context = json.loads(draft.context)
    messages = [{"role": "user", "content": context}] if isinstance(context, str) else list(context)
    return [*messages[1 if draft.has_instructions else 0 :], said(draft)]


async def with_references(
    loop: FeedbackLoop, items: Sequence[Mapping[str, Any]], user: str | None
) -> list[Mapping[str, Any]]:
    """The items of an input, with those of earlier responses in the place of references to them.

    Raises:
        Problem: As of `earlier_messages`.
    """
    named = [str(each.get("id")) for each in items if each.get("type") == "item_reference"]
    if not named:
        return list(items)
    if len(named) > MAX_REFERENCES:
        what = f"an input refers to at most {MAX_REFERENCES} items"
        raise Problem(400, what, code="invalid_request", param="input")
    ids = [_response_of(each) for each in named]
    drafts = await loop.read(lambda c: references.drafts_of(c, ids))
    found: list[Mapping[str, Any]] = []
    for place, item in enumerate(items):
        if item.get("type") != "item_reference":
            found.append(item)
            continue
        name = str(item.get("id"))
        param, response_id = f"input.{place}.id", _response_of(name)
        draft = _checked(loop, drafts.get(response_id), response_id, user, param)
        found.append(_item(said(draft), name, param))
    return found


def _response_of(name: str) -> str:
    return name.partition("_")[2].rpartition(SEPARATOR)[0]


def _checked(
    loop: FeedbackLoop, draft: Row[Any] | None, response_id: str, user: str | None, param: str
) -> Row[Any]:
    """A draft whose texts are there. One of another user is as if it were not there."""
    code = "previous_response_not_found"
    if draft is None and loop.state.knows(response_id):
        raise store_unavailable("this response is not in the store yet")
    # The name of its user goes with the texts.
    known = draft is not None and (draft.user == user or draft.finish in ("removed", UNSTORED))
    if draft is None or not known or draft.finish == "external":
        raise Problem(400, "no such response of this user", code=code, param=param, seen=response_id)
    if draft.finish is None:
        what = "this response is still being generated"
        raise Problem(409, what, code="previous_response_unfinished", param=param, retry_after=1)
    if draft.response is None and draft.message is None:
        what = WHY.get(draft.finish, "this response has no text")
        raise Problem(400, what, code=code, param=param, seen=response_id, do="send its items in the input")
    return draft


def said(draft: Row[Any]) -> dict[str, Any]:
    """What the assistant said in a response: a text, or calls of tools."""
    if draft.response is not None:
        return {"role": "assistant", "content": draft.response}
    found: dict[str, Any] = json.loads(draft.message)
    return found


def _item(message: Mapping[str, Any], name: str, param: str) -> dict[str, Any]:
    """The item of a response that a reference names."""
    kind, number = name.partition("_")[0], name.rpartition(SEPARATOR)[2]
    if kind == "msg" and message.get("content"):
        return {"role": "assistant", "content": message["content"]}
    # The items of a response are its text, if there is one, and then its calls.
    calls = [None] * bool(message.get("content")) + list(message.get("tool_calls") or ())
    call = calls[int(number)] if number.isdecimal() and len(number) < 6 and int(number) < len(calls) else None
    if kind != "fc" or call is None:
        raise Problem(400, "no such item", code="previous_response_not_found", param=param, seen=name)
    return {"type": "function_call", "call_id": call["id"], **call["function"]}
