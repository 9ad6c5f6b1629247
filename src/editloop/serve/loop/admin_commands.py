"""Commands of admins, and the entry about each that is written in the same transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from editloop.errors import ConfigError
from editloop.serve.loop.appender import EventAppender
from editloop.serve.loop.commands import Command
from editloop.serve.problem import Problem
from editloop.store import reads, writes
from editloop.store.audit import AuditEntry
from editloop.store.keys import Role, add_key, digest

__all__ = ["AddKey", "Audited", "NoteKeyUses", "RevokeKey", "SetReason"]

T = TypeVar("T")


@dataclass(frozen=True)
class Audited(Generic[T]):
    """A command of an admin. Either both it and the entry are written, or neither.

    Attributes:
        command: What is done.
        entry: What is written about it.
    """

    command: Command[T]
    entry: AuditEntry

    def apply(self, appender: EventAppender) -> T:
        """Apply the command, and write the entry."""
        done = self.command.apply(appender)
        writes.insert_audit(appender.connection, self.entry._asdict())
        return done


@dataclass(frozen=True)
class AddKey:
    """A new key.

    Attributes:
        key: The key, of which only a digest is written.
        name: Its name.
        role: What it may do.
    """

    key: str
    name: str
    role: Role

    def apply(self, appender: EventAppender) -> None:
        """Write the key, unless it is there already.

        Raises:
            Problem: 409 if the name is taken, or the store's first key would be none of an admin; 400 if the
                name is too long.
        """
        known = reads.all_keys(appender.connection)
        if any(each.digest == digest(self.key) for each in known):
            return
        if self.role != "admin" and not any(each.role == "admin" and each.revoked is None for each in known):
            what = "without an admin key, nobody could read the edits or make further keys"
            raise Problem(409, what, code="admin_key_first", param="role", do="make an admin key first")
        if any(each.name == self.name for each in known):
            what = "there is a key of this name"
            raise Problem(409, what, code="name_taken", param="name", do="choose another name")
        try:
            add_key(appender.connection, self.key, self.name, self.role)
        except ConfigError as error:
            raise Problem(400, str(error), code="invalid_request", param="name") from error


@dataclass(frozen=True)
class RevokeKey:
    """A key ends.

    Attributes:
        name: Its name.
        time: When, in seconds since 1970.
    """

    name: str
    time: float

    def apply(self, appender: EventAppender) -> None:
        """Write that it is revoked, unless it is already.

        Raises:
            Problem: 404 if there is no such key; 409 if it is the last one of an admin.
        """
        known = {each.name: each for each in reads.all_keys(appender.connection)}
        key = known.get(self.name)
        if key is None:
            raise Problem(404, "no such key", code="key_not_found", seen=self.name)
        valid = [each for each in known.values() if each.role == "admin" and each.revoked is None]
        if [each.name for each in valid] == [self.name]:
            what = "it is the last admin key, and without one nobody could make another"
            raise Problem(409, what, code="last_admin_key", seen=self.name, do="make another admin key first")
        writes.revoke_key(appender.connection, self.name, self.time)


@dataclass(frozen=True)
class NoteKeyUses:
    """When keys were used last.

    Attributes:
        uses: The times, in seconds since 1970, by the keys' digests.
    """

    uses: Mapping[str, float]

    @property
    def names(self) -> Collection[str]:
        """What it depends on."""
        return [f"use of {key}" for key in self.uses]

    def apply(self, appender: EventAppender) -> None:
        """Write the times."""
        for key, moment in self.uses.items():
            writes.note_key_use(appender.connection, key, moment)


@dataclass(frozen=True)
class SetReason:
    """Somebody says why a draft was edited.

    Attributes:
        response_id: The response.
        reason: Why, for the last revision of its edit; None takes away what was said of any revision.
    """

    response_id: str
    reason: str | None

    def apply(self, appender: EventAppender) -> int:
        """Write the reason, and return the revision.

        Raises:
            Problem: 404, nothing is known of an edit of such a response.
        """
        revisions = reads.revisions(appender.connection, self.response_id)
        if not revisions:
            raise Problem(404, "no edit of such a response", code="edit_not_found", seen=self.response_id)
        last = revisions[-1].revision
        for each in [last] if self.reason is not None else [row.revision for row in revisions]:
            writes.set_reason(appender.connection, self.response_id, each, self.reason)
        return int(last)
