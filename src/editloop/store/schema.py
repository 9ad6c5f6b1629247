"""The tables of the store, and what stands in a row.

`events` is the truth that a bandit is folded from: text-free, appended once, never changed. `drafts` and
`edits` hold texts, which may be removed. The view `log` joins them to the rows that `fit` trains on.
Times are seconds since 1970. How rows come in is not known here.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    update,
)

__all__ = [
    "COST",
    "DECIDED",
    "EXPIRED",
    "FORGOTTEN",
    "REPRICED",
    "drafts",
    "edits",
    "events",
    "facts",
    "keep_fact",
    "keys",
    "log_view",
    "policies",
]

metadata = MetaData()

DECIDED, EXPIRED = -1, 0
"""Revisions of events that are not a user's: the first edit is 1, a decision's n-th new route −1 − n."""

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 ..., in the order of commits
    Column("time", Float(53), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("response_id", String(128)),
    Column("revision", Integer),
    Column("scope", String(64)),
    Column("arm", String(200)),
    Column("propensity", Float(53)),
    Column("epoch", Integer),
    Column("cost", Float(53)),
    Column("arms", Text),  # JSON, of a new epoch
    Column("cost_name", String(200)),  # of a new epoch: what its edits are counted by
    Index("events_once", "response_id", "revision", unique=True),
    Index("events_time", "time"),
)

drafts = Table(
    "drafts",
    metadata,
    Column("response_id", String(128), primary_key=True),
    Column("time", Float(53), nullable=False),
    Column("user", String(256)),
    Column("policy", String(200)),
    Column("propensity", Float(53)),
    Column("request", String(32)),  # a digest, by which a repeated request is known
    Column("context", Text),  # JSON: a text, or messages
    Column("response", Text),  # null until it is written, and after its removal
    Column("metadata", Text),  # JSON
    Column("finish", String(16)),  # null while it is being written; `removed` once its texts are
    Index("drafts_time", "time"),
    Index("drafts_user", "user", "time"),
)

edits = Table(
    "edits",
    metadata,
    Column("response_id", String(128), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("time", Float(53), nullable=False),
    Column("edit", Text),  # null for a draft accepted as it was, and after its removal
    Column("key", String(128)),  # the client's, by which a repeated edit is known
    Index("edits_key", "key", unique=True),
    Index("edits_time", "time"),
)

policies = Table(
    "policies",
    metadata,
    Column("arm", String(200), primary_key=True),  # name@hash
    Column("name", String(64), nullable=False),
    Column("run", Text, nullable=False),  # the run folder
    Column("time", Float(53), nullable=False),
    Column("metrics", Text, nullable=False),  # JSON
    Column("read_until", Float(53)),  # of this store, where the run learned from it
)

log_view = Table(
    "log",
    MetaData(),  # a view: not made with the tables
    *(Column(name, Text) for name in ("id", "context", "response", "edit", "status", "user", "policy")),
    Column("propensity", Float(53)),
    Column("time", Float(53)),
    Column("metadata", Text),
)
"""The rows of a log, with the last revision of each edit (see `editloop.edits.Record`)."""

keys = Table(
    "keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("revoked", Float(53)),
)

facts = Table(
    "facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""What is true of the whole store: the salt that scopes are made with, its cost, who was forgotten when."""

COST, REPRICED = "cost", "repriced"
"""Names of the facts what all costs of the store are counted by, and how often they were counted again."""

FORGOTTEN = "forgotten"
"""Name of the fact when a user was forgotten last; those of each user begin with it, and hold a digest."""


def keep_fact(connection: Connection, name: str, value: str) -> None:
    """Keep a fact, in place of what was there."""
    if not connection.execute(update(facts).where(facts.c.name == name).values(value=value)).rowcount:
        connection.execute(insert(facts).values(name=name, value=value))
