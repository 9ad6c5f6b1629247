"""Scopes and digests: how the loop recognises a user or a request without keeping who or what it was.

Each user's edits update a tally of their own, under a scope. One scope learns from another through the
bandit's prior: an arm's tally in a scope begins from the arm's pool over all scopes, with a bounded weight
(see `editloop.online.state`). So a new user starts from what everybody's edits say, and their own edits soon
outweigh that. For this the loop only has to tell users apart. The scope in an event is therefore a salted
hash: events are kept forever, while a user may ask to be forgotten.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

__all__ = ["Scope", "Scopes"]

Scope = Literal["user", "all"]
"""`user`: a tally for each user, which begins from everybody's; `all`: one tally for everybody."""


class Scopes:
    """Makes scopes and digests with the salt of a store, so that nobody else can compute them from a name.

    Args:
        scope: Whether users have scopes of their own.
        salt: The store's.
    """

    def __init__(self, scope: Scope, salt: str = "") -> None:
        self.scope, self.salt = scope, salt

    def of(self, user: str | None) -> str:
        """The scope of a user; empty where all users share one, or the user is not known."""
        if user is None or self.scope == "all":
            return ""
        return hashlib.blake2b(f"{self.salt}:{user}".encode(), digest_size=12).hexdigest()

    def digest(self, content: Any) -> str:
        """A digest by which equal content is recognised, whatever the order of its keys."""
        text = json.dumps([self.salt, content], sort_keys=True, default=str, allow_nan=False)
        # Half of a surrogate pair is not valid UTF-8, but it must not make a digest fail.
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
