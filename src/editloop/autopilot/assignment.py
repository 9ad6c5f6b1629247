"""Who is in a canary: a fixed share of the users, by a hash, so that each sees the new policy for good.

By user and not by request, because a user who gets drafts of two kinds in turn can rely on neither. Where too
few users have edited for that, requests are drawn instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

__all__ = ["Unit", "balanced_draw", "is_in_canary", "user_key"]

Unit = Literal["user", "request"]
"""What is assigned to a canary."""


DRAWS = 200
"""The draws that are looked at."""


def balanced_draw(arm: str, activity: Mapping[str, int], share: float) -> int:
    """The number of a draw in which the users of a canary make about their share of the requests.

    Of twenty users a fifth may be two who hardly write, or eight who write most. What the users cost does not
    enter, so the draw stays as good as random for the comparison.

    Args:
        arm: The policy.
        activity: The requests of each user, by key.
        share: The share of the users.
    """
    total = sum(activity.values())

    def distance(draw: int) -> tuple[bool, float]:
        drawn = [n for key, n in activity.items() if is_in_canary(f"{arm}#{draw}", key, share)]
        # Two users on each side at least, of which a spread can be computed.
        return min(len(drawn), len(activity) - len(drawn)) < 2, abs(sum(drawn) / max(total, 1) - share)

    return min(range(DRAWS), key=distance)


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
