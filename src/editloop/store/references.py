"""The responses that a request refers to, by their ids or by a key of the client's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from editloop.store.schema import UNSTORED, drafts

__all__ = ["drafts_by_client_key", "drafts_of", "text_and_digest"]


def drafts_of(connection: Connection, response_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Return the drafts of these responses by response, without those that there are not."""
    rows = connection.execute(select(drafts).where(drafts.c.response_id.in_(response_ids)))
    return {row.response_id: row for row in rows}


def drafts_by_client_key(connection: Connection, key: str, limit: int) -> Sequence[Row[Any]]:
    """Return the ids of the responses with a client's key, the newest first, those without a text last.

    A response has no text if it has failed or is a tool call, so nobody can edit it (`editable`).
    """
    editable = drafts.c.finish.is_(None) | drafts.c.response.is_not(None) | (drafts.c.finish == UNSTORED)
    query = select(drafts.c.response_id, editable.label("editable")).where(drafts.c.client_key == key)
    return connection.execute(
        query.order_by(editable.desc(), drafts.c.time.desc(), drafts.c.response_id).limit(limit)
    ).all()


def text_and_digest(connection: Connection, response_id: str) -> Any:
    """Return the `response` of a draft and, if its text is not kept, `text_digest`; None without a draft."""
    query = select(drafts.c.response, drafts.c.text_digest).where(drafts.c.response_id == response_id)
    return connection.execute(query).first()
