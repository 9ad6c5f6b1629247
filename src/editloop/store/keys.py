"""Bearer keys: shown once, kept as a digest, revocable while the server runs."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Literal, NamedTuple, get_args

from editloop.errors import ConfigError
from editloop.store import reads, writes
from editloop.store.audit import COMMAND_LINE, AuditEntry
from editloop.store.database import Connection, Store, store_errors

__all__ = ["Key", "Role", "add_key", "create_key", "digest", "list_keys", "revoke_key"]

Role = Literal["app", "admin"]
"""`app` may request drafts and send edits; `admin` may also read and remove texts and change the arms."""


class Key(NamedTuple):
    """A key as the store keeps it; the fields are the columns of its table, in their order."""

    name: str
    digest: str
    role: Role
    created: float
    revoked: float | None
    last_used: float | None = None


def digest(key: str) -> str:
    """Return the hash of a key that is kept.

    A key has 256 random bits, so nobody can find it by trying, and a slow password hash with a salt would
    only make every request slower.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def create_key(store: Store, name: str, role: Role = "app") -> str:
    """Make a key and return it; it cannot be shown again.

    Raises:
        ConfigError: The name is taken, empty or too long, or there is no such role.
    """
    key = f"el-{secrets.token_urlsafe(32)}"
    entry = AuditEntry.now(COMMAND_LINE, "create key", name, role=role)
    with store_errors(), store.transaction() as connection:
        add_key(connection, key, name, role)
        writes.insert_audit(connection, entry._asdict())
    return key


def add_key(connection: Connection, key: str, name: str, role: Role) -> None:
    """Write a key in a transaction that excludes other writers: its name cannot be taken in between.

    Raises:
        ConfigError: As of `create_key`.
    """
    if role not in get_args(Role):
        raise ConfigError("no such role", seen=role, do=f"choose one of {', '.join(get_args(Role))}")
    if not 0 < len(name) <= 64:
        raise ConfigError("a key's name has 1 to 64 characters", seen=name)
    if any(each.name == name for each in reads.all_keys(connection)):
        raise ConfigError("there is a key of this name", seen=name, do="choose another name")
    row = {"name": name, "digest": digest(key), "role": role, "created": time.time()}
    writes.insert_key(connection, row)


def list_keys(store: Store) -> list[Key]:
    """Return all keys, the oldest first."""
    return [Key(*tuple(row)) for row in store.read(reads.all_keys)]


def revoke_key(store: Store, name: str) -> None:
    """Revoke a key.

    Raises:
        ConfigError: There is no key of this name, or it is revoked already.
    """
    entry = AuditEntry.now(COMMAND_LINE, "revoke key", name)
    with store_errors(), store.transaction() as connection:
        if not writes.revoke_key(connection, name, time.time()):
            raise ConfigError("no such key", seen=name)
        writes.insert_audit(connection, entry._asdict())
