"""How long drafts of a period took, and how many tokens they are: the rows for the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from editloop.store.schema import drafts

__all__ = ["MAX_DRAFTS", "newest_drafts"]

MAX_DRAFTS = 20_000
"""The most drafts that are looked at, the newest ones of a period."""


def newest_drafts(connection: Connection, since: float, until: float) -> Sequence[Any]:
    """Return the newest drafts of arms in a time [since, until) that have ended, the newest first.

    A row has `policy`, `seconds`, `prompt_tokens` and `completion_tokens`; each of them is null if it is not
    known. Drafts that have failed and texts from elsewhere are left out.
    """
    query = select(
        drafts.c.policy, drafts.c.seconds, drafts.c.prompt_tokens, drafts.c.completion_tokens
    ).where(
        drafts.c.time >= since,
        drafts.c.time < until,
        drafts.c.policy.is_not(None),
        drafts.c.finish.is_not(None),
        drafts.c.finish.not_in(("failed", "external")),
    )
    return connection.execute(query.order_by(drafts.c.time.desc()).limit(MAX_DRAFTS)).all()
