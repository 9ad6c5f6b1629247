"""The tables of the store, and what a row of each holds.

`events` is the source of truth from which a bandit's state is folded. It holds no texts, and its rows are
only appended; they change only if all costs are measured anew by another cost, or if the texts of a response
are removed, and its features with them. `drafts` and `edits` hold texts, which can be removed. The view
`log` joins the three into the rows that `fit` trains on. Times are seconds since 1970.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

__all__ = [
    "COST",
    "DECIDED",
    "EXPIRED",
    "FORGOTTEN",
    "REPRICED",
    "SALT",
    "TOKEN_SECRET",
    "UNSTORED",
    "aliases",
    "audit",
    "drafts",
    "edits",
    "events",
    "facts",
    "keys",
    "log_view",
    "policies",
    "preferences",
    "shadows",
]

metadata = MetaData()

DECIDED, EXPIRED = -1, 0
"""The revisions of events that no user made. Edits count from 1; the n-th reroute of a decision is −1 − n.

So `revision <= DECIDED` selects a decision and its reroutes, of which the lowest is the last one, and
`revision >= EXPIRED` selects the feedback.
"""

events = Table(
    "events",
    metadata,
    # In the order of insertion, so an event that follows from another has the larger number. On SQLite there
    # are no gaps; on PostgreSQL a transaction that was undone leaves one (see `locks`).
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    Column("time", Float(53), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("response_id", String(128)),
    Column("revision", Integer),
    Column("scope", String(64)),
    Column("arm", String(200)),
    Column("propensity", Float(53)),
    Column("epoch", Integer),
    Column("cost", Float(53)),
    Column("arms", Text),  # JSON; of a new epoch
    Column("cost_name", String(200)),  # of a new epoch: the cost that its edits are measured by
    Column("features", Text),  # of a decision: what was known of its request; removed with the texts
    Column("detail", Text),  # JSON; of a stage: its transition; of an epoch: the arms in a canary
    # An event that is sent twice, or by two replicas, is there once. The overview reads this index alone.
    Index("events_once", "response_id", "revision", unique=True),
    Index("events_time", "time"),
    Index(
        "events_detail",
        "seq",
        sqlite_where=text("detail IS NOT NULL"),
        postgresql_where=text("detail IS NOT NULL"),
    ),
)

drafts = Table(
    "drafts",
    metadata,
    Column("response_id", String(128), primary_key=True),
    Column("time", Float(53), nullable=False),
    Column("user", String(256)),
    Column("policy", String(200)),
    Column("propensity", Float(53)),
    Column("request", String(32)),  # a digest that identifies a repeated request
    Column("context", Text),  # JSON: a text, or messages
    Column("response", Text),  # null until it is generated, and after its removal
    Column("metadata", Text),  # JSON
    Column("finish", String(16)),  # null while it is being generated; `removed` once its texts are
    Column("non_answer", String(32)),  # the rule by which it is no answer; null if it is one
    Column("compared", Text),  # JSON: all drafts of which it was chosen; null if it is the only one
    Column("seconds", Float(53)),  # that the policy took, of a stream until its end; null if not known
    Column("logprob", Float(53)),  # log μ(y|x), in nats, by the policy that wrote it; null if not known
    Column("prompt_tokens", Integer),  # by the usage that came with the response; null if none came
    Column("completion_tokens", Integer),
    Column("client_key", String(128)),  # by which the client finds it: `editloop_key` of its metadata
    Column("has_instructions", Boolean),  # true if the first message is of this response alone
    Column("message", Text),  # JSON: the assistant's message, of a tool call, which is no text
    Column("text_digest", String(32)),  # of a response whose text is not kept; empty until it has one
    Index("drafts_time", "time"),
    Index("drafts_user", "user", "time", "response_id"),
    Index(
        "drafts_client_key",
        "client_key",
        sqlite_where=text("client_key IS NOT NULL"),
        postgresql_where=text("client_key IS NOT NULL"),
    ),
)

edits = Table(
    "edits",
    metadata,
    Column("response_id", String(128), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("time", Float(53), nullable=False),
    Column("edit", Text),  # null for a draft that was accepted unchanged, and after its removal
    Column("key", String(128)),  # the client's idempotency key
    Column("discarded", Boolean),  # true for a draft that was thrown away; it has no edit
    Column("reason", Text),  # why it was edited, in the words of the application or of an admin
    Column("seconds", Float(53)),  # of work on it since the last revision; null if not known
    Index("edits_key", "key", unique=True),
    Index("edits_time", "time"),
)

shadows = Table(
    "shadows",
    metadata,
    Column("response_id", String(128), primary_key=True),  # of the response that the user saw
    Column("arm", String(200), primary_key=True),  # the policy that wrote this draft
    Column("time", Float(53), nullable=False),
    Column("response", Text),  # null after its removal
    Column("finish", String(16)),
)
"""Drafts that nobody saw, of policies that are not arms yet, and of the champion for the same requests."""

preferences = Table(
    "preferences",
    metadata,
    Column("response_id", String(128), primary_key=True),
    Column("arm", String(200), primary_key=True),  # the policy that was asked
    Column("revision", Integer, nullable=False),  # of the edit that it was taken from
    Column("time", Float(53), nullable=False),
    Column("text", Text, nullable=False),  # empty if the policy said nothing
)
"""What each edit says of its user's preferences, in the words of a policy; it goes with the edit's texts."""

policies = Table(
    "policies",
    metadata,
    Column("arm", String(200), primary_key=True),  # name@hash
    Column("name", String(64), nullable=False),
    Column("run", Text, nullable=False),  # the run folder
    Column("time", Float(53), nullable=False),
    Column("metrics", Text, nullable=False),  # JSON
    Column("read_until", Float(53)),  # time up to which the run read this store's log, if it did
)

aliases = Table(
    "aliases",
    metadata,
    Column("alias", String(128), primary_key=True),
    Column("response_id", String(128), nullable=False),
)
"""Other names of responses: those of a span, `TRACE-SPAN`, by which an edit may refer to its response."""

log_view = Table(
    "log",
    MetaData(),  # not `metadata`, which has the tables; this is a view
    *(Column(name, Text) for name in ("id", "context", "response", "edit", "status", "user", "policy")),
    Column("propensity", Float(53)),
    Column("logprob", Float(53)),
    Column("time", Float(53)),
    Column("metadata", Text),
    Column("reason", Text),
    Column("edit_seconds", Float(53)),
)
"""The rows of a log (see `editloop.edits.Record`), each with the last revision of its edit.

The view, in `migrations/versions/ninth.py`, is where a row's status is defined: `discarded` if the last
revision says that the draft was thrown away, `accepted` if it equals the response, `edited` if it differs,
`expired` if no edit is expected any more, and else `pending`. Drafts without a response (still being
generated, failed or removed) are not in it. The log-probability of a draft that was cut is not in it either:
its text would have gone on. The seconds of work on an edit are the sum over its revisions; whoever reads the
view moves them to the metadata.
"""

keys = Table(
    "keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("revoked", Float(53)),
    Column("last_used", Float(53)),  # to a minute or so; null if it never was
)

audit = Table(
    "audit",
    metadata,
    Column("id", String(32), primary_key=True),  # random, so that an entry that is sent twice is there once
    Column("time", Float(53), nullable=False),
    Column("by", String(64), nullable=False),  # the key's name; empty without keys, on the server's machine
    Column("action", String(16), nullable=False),
    Column("subject", String(256), nullable=False),  # a policy, a run, a key, a response, or a user's digest
    Column("detail", Text),  # JSON: figures and names
    Index("audit_time", "time"),
)
"""What admins did. It holds no texts and no users' names, and nothing is removed from it."""


facts = Table(
    "facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts about the whole store, by name: its salt, its cost, and when which users were forgotten."""

UNSTORED = "unstored"
"""The `finish` of a draft whose text was not kept, as the client wished; of its edits the cost is kept."""

SALT = "salt"
"""The fact with the random salt of all scopes and digests. It is made once, and differs between stores."""

TOKEN_SECRET = "edit_token_secret"
"""The fact with the key by which edit tokens are signed. The salt would not do: run folders name it."""

COST, REPRICED = "cost", "repriced"
"""Two facts: the cost by which all edits are measured, and how often all of them were measured anew."""

FORGOTTEN = "forgotten"
"""The fact with the time when any user was last forgotten.

Each forgotten user has one, too, whose name is `forgotten:` and a digest.
"""
