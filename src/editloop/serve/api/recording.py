"""From the request for an edit to the command that records it, and from its result to the answer.

The routes for one edit and for a batch share this.
"""

from __future__ import annotations

import json
from typing import Any

from editloop.serve.api.schemas import EditRequest
from editloop.serve.api.state import ServerState
from editloop.serve.loop.edit_commands import EditResult, RecordEdit, RecordExternal
from editloop.serve.loop.logged_text import logged_context, logged_metadata
from editloop.serve.loop.redaction import redact_text

__all__ = ["edit_command", "receipt"]


def edit_command(
    state: ServerState, asked: EditRequest, *, key: str | None, moment: float, new_id: str | None = None
) -> RecordEdit:
    """Return the command that records an edit, with its texts as they are kept.

    Args:
        state: The parts of the server.
        asked: The request.
        key: The idempotency key.
        moment: When the edit was made, in seconds since 1970.
        new_id: The identity of a response from elsewhere that has none; by default it is computed from its
            content, so that the same response, sent again, is the same one.
    """
    redact = state.completions.redact
    draft = None if asked.response is None else _draft(state, asked, moment, new_id)
    response_id = asked.response_id if draft is None else draft.response_id
    assert response_id is not None  # the schema asks for one if there is no response
    edit = None if asked.edit is None else redact_text(asked.edit, redact)
    return RecordEdit(
        response_id, edit, asked.revision, key, moment, discarded=bool(asked.discarded), draft=draft
    )


def _draft(state: ServerState, asked: EditRequest, moment: float, new_id: str | None) -> RecordExternal:
    redact = state.completions.redact
    assert asked.response is not None
    messages = asked.model_dump(include={"context"}, exclude_unset=True)["context"]
    is_text = isinstance(messages, str)
    context = redact_text(messages, redact) if is_text else logged_context(messages, redact)
    response = redact_text(asked.response, redact)
    digest = state.loop.scopes.digest([context, response, asked.user, asked.policy])
    return RecordExternal(
        asked.response_id or new_id or f"ext-{digest}",
        asked.user,
        asked.policy,
        json.dumps(context, ensure_ascii=False, allow_nan=False),
        response,
        logged_metadata(asked.metadata, redact),
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
