"""Scopes and digests: how the loop recognises a user or a request without keeping who or what it was.

Each user's edits update a tally of their own, under a scope. What makes one scope learn from another is the
bandit's prior: an arm's tally in a scope begins from the arm's pool over all scopes, with a bounded weight
(see `editloop.online.state`), so a new user starts from what everybody's edits say, and their own edits
outweigh that soon. For this the loop has to tell users apart, and no more: the scope in an event is a salted
hash, because events are kept for ever while a user may ask to be forgotten.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

__all__ = ["Scope", "Scopes"]

Scope = Literal["user", "all"]
"""`user`: a tally for each user, which begins from everybody's; `all`: one tally for everybody."""


class Scopes:
    """Makes scopes and digests with the salt of a store, which nobody outside can repeat.

    Args:
        scope: Whether users have scopes of their own.
        salt: The store's.
    """

    def __init__(self, scope: Scope, salt: str = "") -> None:
        self.scope, self.salt = scope, salt

    def of(self, user: str | None) -> str:
        """The scope of a user; empty where all share one, or the user is not known."""
        if user is None or self.scope == "all":
            return ""
        return hashlib.blake2b(f"{self.salt}:{user}".encode(), digest_size=12).hexdigest()

    def digest(self, content: Any) -> str:
        """A digest by which equal content is recognised."""
        text = json.dumps([self.salt, content], sort_keys=True, default=str, allow_nan=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
