"""What admins did: who by the name of a key, when, and to what. No entry holds a text or a user's name."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args
from uuid import uuid4

from sqlalchemy import Connection, Row, select

from editloop.store.paging import newest_page
from editloop.store.schema import audit

__all__ = ["ACTIONS", "COMMAND_LINE", "Action", "AuditEntry", "AuditFilter", "audit_page"]

Action = Literal[
    "promote", "retire", "move", "pause", "resume", "forget", "annotate", "create key", "revoke key"
]
"""What an entry can be about. A roll back is a `move`, whose detail names the stage."""

ACTIONS: tuple[Action, ...] = get_args(Action)

COMMAND_LINE = "command line"
"""Who did it, if it was a command on the store and no request."""


class AuditEntry(NamedTuple):
    """An entry; the fields are the columns of its table.

    Attributes:
        id: Random, so that an entry that is written twice is there once.
        time: When, in seconds since 1970.
        by: The name of the key; empty for a server without keys.
        action: What was done.
        subject: A policy, a run folder, a key's name, a response's id, or the digest of a user.
        detail: Figures and names, as JSON; None if there are none.
    """

    id: str
    time: float
    by: str
    action: str
    subject: str
    detail: str | None

    @classmethod
    def now(cls, by: str, action: Action, subject: str, **detail: Any) -> AuditEntry:
        """Make an entry about this moment."""
        text = json.dumps(detail, allow_nan=False) if detail else None
        return cls(uuid4().hex, time.time(), by, action, subject[:256], text)


@dataclass(frozen=True)
class AuditFilter:
    """Which entries are selected; None stands for all.

    Attributes:
        by: The name of a key.
        action: What was done.
        since: The entries are of this time or later, in seconds since 1970.
        until: The entries are of an earlier time.
    """

    by: str | None = None
    action: str | None = None
    since: float | None = None
    until: float | None = None


def audit_page(
    connection: Connection, which: AuditFilter, limit: int, before: tuple[float, str] | None = None
) -> Sequence[Row[Any]]:
    """Return a page of entries, the newest first.

    Args:
        connection: To the store.
        which: The entries that are selected.
        limit: The most entries of the page.
        before: Time and id of the last entry of the previous page; None for the first page.
    """
    query = select(audit)
    for column, value in ((audit.c.by, which.by), (audit.c.action, which.action)):
        if value is not None:
            query = query.where(column == value)
    if which.since is not None:
        query = query.where(audit.c.time >= which.since)
    if which.until is not None:
        query = query.where(audit.c.time < which.until)
    return newest_page(connection, query, audit.c.time, audit.c.id, limit, before)
