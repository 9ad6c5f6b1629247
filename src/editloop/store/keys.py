"""Bearer keys: shown once, kept as a digest, revocable while the server runs."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Literal, NamedTuple, get_args

from editloop.errors import ConfigError
from editloop.store import reads, writes
from editloop.store.database import Store, store_errors

__all__ = ["Key", "Role", "create_key", "digest", "list_keys", "revoke_key"]

Role = Literal["app", "admin"]
"""`app` asks for completions and sends edits; `admin` also reads and removes texts and changes the arms."""


class Key(NamedTuple):
    """A key as it is kept."""

    name: str
    digest: str
    role: Role
    created: float
    revoked: float | None


def digest(key: str) -> str:
    """What is kept of a key. A key has 256 random bits, so a plain hash of it cannot be reversed."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def create_key(store: Store, name: str, role: Role = "app") -> str:
    """Make a key and return it; it cannot be shown again.

    Raises:
        ConfigError: The name is taken, empty or too long, or there is no such role.
    """
    if role not in get_args(Role):
        raise ConfigError("no such role", seen=role, do=f"choose of {', '.join(get_args(Role))}")
    if not 0 < len(name) <= 64:
        raise ConfigError("a key's name has 1 to 64 characters", seen=name)
    if any(each.name == name for each in list_keys(store)):
        raise ConfigError("there is a key of this name", seen=name, do="choose another name")
    key = f"el-{secrets.token_urlsafe(32)}"
    row = {"name": name, "digest": digest(key), "role": role, "created": time.time()}
    with store_errors(), store.transaction() as connection:
        writes.insert_key(connection, row)
    return key


def list_keys(store: Store) -> list[Key]:
    """Return all keys, the oldest first."""
    return [Key(*tuple(row)) for row in store.read(reads.all_keys)]


def revoke_key(store: Store, name: str) -> None:
    """Revoke a key.

    Raises:
        ConfigError: There is no key of this name, or it is revoked already.
    """
    with store_errors(), store.transaction() as connection:
        if not writes.revoke_key(connection, name, time.time()):
            raise ConfigError("no such key", seen=name)
