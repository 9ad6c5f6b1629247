"""From the request for an edit to the command that records it, and from its result to the answer.

The routes for one edit and for a batch share this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from editloop.serve.api.schemas import EditRequest
from editloop.serve.api.state import ServerState
from editloop.serve.loop.completion import CLIENT_KEY
from editloop.serve.loop.edit_commands import EditResult, RecordEdit, RecordExternal
from editloop.serve.loop.logged_text import logged_context, logged_metadata
from editloop.serve.loop.redaction import redact_text
from editloop.serve.loop.unstored import Texts
from editloop.serve.problem import Problem
from editloop.store import reads, references
from editloop.store.database import Connection

__all__ = ["edit_command", "external_draft", "receipt"]


async def edit_command(
    state: ServerState,
    asked: EditRequest,
    *,
    key: str | None,
    moment: float,
    new_id: str | None = None,
    limit: int | None = None,
) -> RecordEdit:
    """Return the command that records an edit, with its texts as they are kept.

    Args:
        state: The parts of the server.
        asked: The request.
        key: The idempotency key.
        moment: When the edit was made, in seconds since 1970.
        new_id: The identity of a response from elsewhere that has none; by default it is computed from its
            content, so that the same response, sent again, is the same one.
        limit: The revisions that the response may have; None sets no limit.

    Raises:
        Problem: As in `_find_by_key`.
    """
    redact = state.completions.redact
    draft = _draft(state, asked, moment, new_id) if asked.is_external else None
    response_id = asked.response_id if draft is None else draft.response_id
    if response_id is None:
        assert asked.client_key is not None  # the schema asks for one of the three
        response_id = await _find_by_key(state, asked.client_key, key)
    edit, texts = None, None
    if asked.edit is not None:
        edit, texts = redact_text(asked.edit, redact), Texts(asked.response, asked.edit)
    return RecordEdit(
        response_id,
        edit,
        asked.revision,
        key,
        moment,
        discarded=bool(asked.discarded),
        reason=None if asked.reason is None else redact_text(asked.reason, redact),
        seconds=asked.seconds,
        limit=limit,
        draft=draft,
        texts=texts,
    )


async def _find_by_key(state: ServerState, client_key: str, key: str | None) -> str:
    """The response that has a client's key in its metadata.

    Where several have it, the one that can be edited is meant: a tool call before the answer has no text. A
    request that is sent again, with the idempotency key of an edit, finds the response of that edit.

    Raises:
        Problem: 404, there is none; 409, there are several.
    """

    def look(connection: Connection) -> Sequence[str]:
        found = references.drafts_by_client_key(connection, client_key)
        if len(found) > 1 and key is not None and (known := reads.edit_by_key(connection, key)) is not None:
            draft = reads.draft(connection, known.response_id)
            if draft is not None and draft.client_key == client_key:
                return [draft.response_id]
        return found

    found, param = await state.loop.read(look), f"metadata.{CLIENT_KEY}"
    if not found:
        raise Problem(
            404, "no response has this key", code="response_not_found", param=param, seen=client_key
        )
    if len(found) > 1:
        raise Problem(
            409,
            "several responses have this key",
            code="key_ambiguous",
            param=param,
            seen=client_key,
            do="send the response_id, or give each request a key of its own",
        )
    return found[0]


def _draft(state: ServerState, asked: EditRequest, moment: float, new_id: str | None) -> RecordExternal:
    assert asked.response is not None
    return external_draft(
        state,
        asked.model_dump(include={"context"}, exclude_unset=True)["context"],
        asked.response,
        user=asked.user,
        policy=asked.policy,
        metadata=asked.metadata,
        moment=moment,
        response_id=asked.response_id or new_id,
    )


def external_draft(
    state: ServerState,
    context: Any,
    response: str,
    *,
    user: str | None,
    policy: str | None,
    metadata: Mapping[str, Any] | None,
    moment: float,
    response_id: str | None,
) -> RecordExternal:
    """Return a response from elsewhere, with its texts as they are kept.

    Args:
        state: The parts of the server.
        context: The prompt or the messages.
        response: The text.
        user: Who edits it.
        policy: What wrote it.
        metadata: What is kept with it.
        moment: When it was written or edited, in seconds since 1970.
        response_id: Its identity; None for one that is computed from its content.
    """
    redact = state.completions.redact
    is_text = isinstance(context, str)
    context = redact_text(context, redact) if is_text else logged_context(context, redact)
    response = redact_text(response, redact)
    digest = state.loop.scopes.digest([context, response, user, policy])
    return RecordExternal(
        response_id or f"ext-{digest}",
        user,
        policy,
        json.dumps(context, ensure_ascii=False, allow_nan=False),
        response,
        logged_metadata(metadata, redact),
        digest,
        moment,
    )


def receipt(result: EditResult) -> dict[str, Any]:
    """Return what became of an edit as JSON types."""
    return {
        "object": "edit",
        "response_id": result.response_id,
        "revision": result.revision,
        "status": result.outcome,
        "cost": result.cost,
        "policy": result.policy,
        "repeated": result.repeated,
    }
