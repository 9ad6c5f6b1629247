"""Users of the benchmarks beside the named ones, each found by a name that says what they are.

- `strong-wrong.3`: a named user, three in ten of whose edits are worse than the draft (`WrongUser`).
- `uneven.1`: a user who mostly repairs next to nothing, and rewrites one draft in ten (`UnevenUser`).
"""

from __future__ import annotations

import re

from editloop.lab import LabDomain
from editloop.users import UnevenUser, User, WrongUser, get_user

USUAL, RARE = "weak", "strong"
"""The two of whom an uneven user is made."""


def get_editor(name: str, world: LabDomain, *, seed: int) -> User:
    """Return the user of that name, one of the above or a named one."""
    if match := re.fullmatch(r"(\w+)-wrong(\.\d+)", name):
        return WrongUser(get_user(match[1], world, seed=seed), world, float(match[2]), seed=seed)
    if match := re.fullmatch(r"uneven(\.\d+)", name):
        usual, rare = (get_user(each, world, seed=seed) for each in (USUAL, RARE))
        return UnevenUser(usual, rare, float(match[1]), name=name, seed=seed)
    return get_user(name, world, seed=seed)
