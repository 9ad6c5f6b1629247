"""Scopes and digests: how the loop recognises a user or a request without keeping who or what it was.

By default one bandit decides for all, and who asks is a feature of the request (`editloop.online.features`).
Where each user has a scope, the user's edits update a tally of their own, which begins from the arm's pool
over all scopes, with a bounded weight. For both, the loop only has to see that two requests are of one user.
What it keeps is therefore a salted hash: events are kept forever, while a user may ask to be forgotten.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from editloop.autopilot.assignment import user_key

__all__ = ["Scope", "Scopes"]

Scope = Literal["user", "all"]
"""`all`: one tally for everybody; `user`: one for each user, which begins from everybody's."""


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
        return "" if self.scope == "all" else self.key(user)

    def key(self, user: str | None) -> str:
        """By what a user is recognised; empty if the user is not known."""
        return "" if user is None else user_key(self.salt, user)

    def digest(self, content: Any) -> str:
        """A digest by which equal content is recognised, whatever the order of its keys."""
        text = json.dumps([self.salt, content], sort_keys=True, default=str, allow_nan=False)
        # Half of a surrogate pair is not valid UTF-8, but it must not make a digest fail.
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
