"""Who is in a canary: a fixed share of the users, by a hash, so that each sees the new policy for good.

By user and not by request, because a user who gets drafts of two kinds in turn can rely on neither. Where too
few users have edited for that, requests are drawn instead.
"""

from __future__ import annotations

import hashlib
from typing import Literal

__all__ = ["Unit", "is_in_canary", "user_key"]

Unit = Literal["user", "request"]
"""What is assigned to a canary."""


def user_key(salt: str, user: str) -> str:
    """By what a user is recognised: a hash with the salt of the store, from which no name can be found."""
    return hashlib.blake2b(f"{salt}:{user}".encode(), digest_size=12).hexdigest()


def is_in_canary(arm: str, key: str, share: float) -> bool:
    """Whether a user, or a request, gets the policy that is in the canary.

    Another policy gets other users, so that nobody has to try them all.

    Args:
        arm: The policy.
        key: The key of the user, or the id of the response. Who is not known, an empty key, never is.
        share: The share of the users, in [0, 1].
    """
    if not key:
        return False
    digest = hashlib.blake2b(f"{arm}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share
