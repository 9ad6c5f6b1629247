"""Bearer keys: shown once, kept as a digest, revocable while the server runs."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Literal, NamedTuple, get_args

from sqlalchemy import insert, select, update

from editloop.errors import ConfigError
from editloop.store.database import Store, storing
from editloop.store.schema import keys

__all__ = ["Key", "Role", "create_key", "digest", "list_keys", "revoke_key"]

Role = Literal["app", "admin"]
"""`app` asks, and sends edits; `admin` also reads them, removes texts, promotes and retires policies."""


class Key(NamedTuple):
    """A key as it is kept."""

    name: str
    digest: str
    role: Role
    created: float
    revoked: float | None


def digest(key: str) -> str:
    """What is kept of a key. It has 256 random bits, so that a plain hash cannot be reversed."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def create_key(store: Store, name: str, role: Role = "app") -> str:
    """A new key, which nobody can be shown again.

    Raises:
        ConfigError: The name is taken, too long or empty, or there is no such role.
    """
    if role not in get_args(Role):
        raise ConfigError("no such role", seen=role, do=f"choose of {', '.join(get_args(Role))}")
    if not 0 < len(name) <= 64:
        raise ConfigError("a key's name has 1 to 64 characters", seen=name)
    if any(each.name == name for each in list_keys(store)):
        raise ConfigError("there is a key of this name", seen=name, do="choose another name")
    key = f"el-{secrets.token_urlsafe(32)}"
    row = {"name": name, "digest": digest(key), "role": role, "created": time.time()}
    with storing(), store.writer.begin() as connection:
        connection.execute(insert(keys).values(**row))
    return key


def list_keys(store: Store) -> list[Key]:
    """All keys, the oldest first."""
    rows = store.read(lambda c: c.execute(select(keys).order_by(keys.c.created)).all())
    return [Key(*row) for row in rows]


def revoke_key(store: Store, name: str) -> None:
    """End a key.

    Raises:
        ConfigError: There is none of this name.
    """
    with storing(), store.writer.begin() as connection:
        which = (keys.c.name == name) & keys.c.revoked.is_(None)
        if not connection.execute(update(keys).where(which).values(revoked=time.time())).rowcount:
            raise ConfigError("no such key", seen=name)
