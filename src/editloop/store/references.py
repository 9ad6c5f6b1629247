"""The responses that a request refers to: by their ids, by other names, or by a key of the client's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from editloop.store.schema import UNSTORED, aliases, drafts

__all__ = ["aliased", "drafts_by_client_key", "drafts_of", "texts_of"]

# As in `reads`, the queries of every edit are built once.
_TEXTS = select(drafts.c.response_id, drafts.c.response, drafts.c.text_digest).where(
    drafts.c.response_id.in_(bindparam("ids", expanding=True)),
    drafts.c.response.is_not(None) | drafts.c.text_digest.is_not(None),
)
_ALIASES = select(aliases).where(aliases.c.alias.in_(bindparam("names", expanding=True)))


def drafts_of(connection: Connection, response_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Return the drafts of these responses by response, without those that there are not."""
    rows = connection.execute(select(drafts).where(drafts.c.response_id.in_(response_ids)))
    return {row.response_id: row for row in rows}


def drafts_by_client_key(connection: Connection, key: str) -> Sequence[str]:
    """Return the ids of two responses with a client's key at most; two are too many.

    Those that can be edited come before all others: a response that has failed or is a tool call has no text.
    """
    query = select(drafts.c.response_id).where(drafts.c.client_key == key).limit(2)
    editable = drafts.c.finish.is_(None) | drafts.c.response.is_not(None) | (drafts.c.finish == UNSTORED)
    return connection.scalars(query.where(editable)).all() or connection.scalars(query).all()


def texts_of(connection: Connection, response_ids: Iterable[str]) -> dict[str, Any]:
    """Return the `response` of each draft, and its `text_digest` if its text is not kept, by id.

    Drafts that are unknown, unfinished or removed are left out.
    """
    rows = connection.execute(_TEXTS, {"ids": list(response_ids)})
    return {row.response_id: row for row in rows}


def aliased(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return the ids of the responses that have these other names, by name."""
    rows = connection.execute(_ALIASES, {"names": list(names)})
    return {row.alias: row.response_id for row in rows}
