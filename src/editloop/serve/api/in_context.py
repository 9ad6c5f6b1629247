"""In-context policies that the configuration asks for: they are added to the arms when the server starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from editloop.serve.api.arms import promote
from editloop.serve.api.state import ServerState
from editloop.serve.in_context.name import InContextName
from editloop.serve.problem import Problem

__all__ = ["add_arms"]

log = logging.getLogger("editloop.serve")


async def add_arms(state: ServerState, names: Sequence[str]) -> None:
    """Add in-context policies to the arms, unless they are played already.

    Each stands on a policy of the run whose policies were promoted last, or of an earlier one if that has no
    such policy. If there is none, the log says so, and the server goes on without it.

    Raises:
        ConfigError: A name is not that of an in-context policy.
    """
    for name in dict.fromkeys(str(InContextName.parse(each)) for each in names):
        # Not on an arm of one user: what it learned is for nobody else.
        policies, played = state.loop.state.policies, state.loop.bandit.arms_of("")
        known = [policies[arm] for arm in reversed(played) if arm in policies]
        if name not in {policy for _, policy in known}:
            await _add(state, name, list(dict.fromkeys(run for run, _ in known)))


async def _add(state: ServerState, name: str, runs: Sequence[str]) -> None:
    problem: object = "no policy is played yet"
    for run in runs:
        try:
            # There is nothing to evaluate before users have edits, so no evaluation may advise against it.
            await promote(state, run, [name], force=True)
            return
        except Problem as error:
            problem = error
    log.warning("%s is not added to the arms: %s", name, problem)
