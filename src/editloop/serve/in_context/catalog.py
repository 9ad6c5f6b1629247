"""Policies of run folders as arms, in-context policies that stand on them among them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editloop.errors import ConfigError, RunError
from editloop.policy import catalog
from editloop.policy.served import ServedPolicy
from editloop.serve.in_context import IN_CONTEXT
from editloop.serve.in_context.name import InContextName

__all__ = ["find_policies", "validation"]


def find_policies(run: str | Path, names: Sequence[str] | None = None) -> list[ServedPolicy]:
    """Return policies as `editloop.policy.catalog.find_policies` does, and in-context policies by name.

    Raises:
        RunError: As there; or an in-context policy is unknown.
    """
    if not any(map(InContextName.is_one, names or ())):
        return catalog.find_policies(run, names)
    found: list[ServedPolicy] = []
    for name in dict.fromkeys(names or ()):
        found += (
            [_in_context(run, name)] if InContextName.is_one(name) else catalog.find_policies(run, [name])
        )
    return found


def _in_context(run: str | Path, name: str) -> ServedPolicy:
    """An in-context policy, whose hash is one of its name and of the policy that it asks."""
    try:
        parsed = InContextName.parse(name)
        learns = IN_CONTEXT.get(parsed.kind).learns
    except ConfigError as error:
        raise RunError(str(error)) from error
    names = [parsed.policy, *(["base"] if learns else [])]
    uses = [catalog.find_policies(run, [each])[0] for each in names]
    digest = hashlib.sha256(f"{parsed} {uses[0].arm}".encode()).hexdigest()
    return ServedPolicy(f"{parsed}@{digest[:8]}", str(parsed), uses[0].run, uses=tuple(uses))


def validation(run: Path, name: str) -> dict[str, Any]:
    """Return the validation costs; those of an in-context policy are not known before users have edits."""
    if not InContextName.is_one(name):
        return catalog.validation(run, name)
    return {**catalog.validation(run, "base"), "cost": None}
