"""The users of a period, a page at a time: their rounds, when they were last seen, and what their edits cost.

A round is a draft for a user whose name is kept, or a text from elsewhere that this user has edited. Rounds
are counted in an index that has no texts in it, and costs are looked up for the users of the page alone,
unless users are sorted by cost. At most `MAX_ROUNDS` rounds are looked at, the newest ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from editloop.store.schema import drafts, events

__all__ = ["MAX_ROUNDS", "Sort", "UserFilter", "UserPage", "user_page"]

Sort = Literal["name", "rounds", "seen", "cost"]

MAX_ROUNDS = 200_000
"""The most rounds of a period that are counted, the newest ones."""


@dataclass(frozen=True)
class UserFilter:
    """Which users are selected, and by which of their rounds; None stands for all.

    Attributes:
        text: A text that the name contains; upper and lower case are the same.
        since: The rounds are of this time or later, in seconds since 1970.
        until: The rounds are of an earlier time.
    """

    text: str | None = None
    since: float | None = None
    until: float | None = None

    def conditions(self, names: Sequence[str] | None = None) -> list[ColumnElement[bool]]:
        """Return the conditions on a round of any user, or of these."""
        found = [drafts.c.user.is_not(None), *self.in_period()]
        if names is not None:
            return [*found, drafts.c.user.in_(names)]
        return [*found, drafts.c.user.icontains(self.text, autoescape=True)] if self.text else found

    def in_period(self) -> list[ColumnElement[bool]]:
        """Return the conditions on a round's time."""
        found: list[ColumnElement[bool]] = []
        if self.since is not None:
            found.append(drafts.c.time >= self.since)
        if self.until is not None:
            found.append(drafts.c.time < self.until)
        return found


class UserPage(NamedTuple):
    """A page of users.

    Attributes:
        rows: With `user`, `rounds`, `first`, `last` (times), `edits` (how many have a cost) and `cost` (their
            sum; null without any).
        total: How many users there are on all pages.
        since: The time from which rounds are counted, if there are more than `MAX_ROUNDS`; else None.
    """

    rows: Sequence[Row[Any]]
    total: int
    since: float | None


def user_page(
    connection: Connection,
    which: UserFilter,
    *,
    sort: Sort = "seen",
    descending: bool = True,
    limit: int = 50,
    offset: int = 0,
) -> UserPage:
    """Return a page of users.

    Args:
        connection: To the store.
        which: The users that are selected.
        sort: By what they are sorted; those of one value are in the order of their names.
        descending: Whether the largest come first. Users without a cost come last in any case.
        limit: The most users of the page.
        offset: How many users come before it.
    """
    cut = _first_of_most(connection, which)
    which = which if cut is None else replace(which, since=cut)
    by_user, costs = _rounds(which).subquery(), _costs(which).subquery()
    query = select(by_user.c.user, func.count().over().label("total"))
    if sort == "cost":
        mean = costs.c.cost / costs.c.edits
        query = query.outerjoin_from(by_user, costs, costs.c.user == by_user.c.user).order_by(mean.is_(None))
    else:
        mean = by_user.c[{"name": "user", "rounds": "rounds", "seen": "last"}[sort]]
    query = query.order_by(mean.desc() if descending else mean.asc(), by_user.c.user)
    found = connection.execute(query.limit(limit).offset(offset)).all()
    names = [row.user for row in found]
    rounds, costs = _rounds(which, names).subquery(), _costs(which, names).subquery()
    joined = select(rounds, costs.c.edits, costs.c.cost)
    rows = connection.execute(joined.outerjoin_from(rounds, costs, costs.c.user == rounds.c.user))
    by_name = {row.user: row for row in rows}
    total = found[0].total if found else _count(connection, which) if offset else 0
    return UserPage([by_name[name] for name in names], total, cut)


def _first_of_most(connection: Connection, which: UserFilter) -> float | None:
    """Return the time of the first of the newest `MAX_ROUNDS` rounds; None if there are no more than that."""
    query = select(drafts.c.time).where(*which.in_period())
    found: float | None = connection.scalar(query.order_by(drafts.c.time.desc()).offset(MAX_ROUNDS).limit(1))
    return found


def _count(connection: Connection, which: UserFilter) -> int:
    return connection.scalar(select(func.count()).select_from(_rounds(which).subquery())) or 0


def _rounds(which: UserFilter, names: Sequence[str] | None = None) -> Select[Any]:
    """The rounds of each user: their number, and the times of the first and the last."""
    first, last = func.min(drafts.c.time).label("first"), func.max(drafts.c.time).label("last")
    query = select(drafts.c.user, func.count().label("rounds"), first, last).where(*which.conditions(names))
    return query.group_by(drafts.c.user)


def _costs(which: UserFilter, names: Sequence[str] | None = None) -> Select[Any]:
    """The last edits of each user's rounds whose cost is known: their number and their summed cost."""
    later = events.alias()
    last = select(func.max(later.c.revision)).where(later.c.response_id == drafts.c.response_id)
    edits, cost = func.count().label("edits"), func.sum(events.c.cost).label("cost")
    query = select(drafts.c.user, edits, cost).join_from(
        drafts, events, events.c.response_id == drafts.c.response_id
    )
    query = query.where(*which.conditions(names), events.c.cost.is_not(None))
    query = query.where(events.c.revision == last.correlate(drafts).scalar_subquery())
    return query.group_by(drafts.c.user)
