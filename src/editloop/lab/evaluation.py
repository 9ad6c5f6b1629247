"""What a policy costs a user: fresh responses, fresh edits, one cost each.

The log is not looked at: contexts come from a stream of their own, which no log draws from. This module
does not know how the policy was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Cost, get_cost
from editloop.errors import ConfigError
from editloop.lab.grammar import Domain
from editloop.lab.log import MAX_NEW_TOKENS
from editloop.policy import Policy
from editloop.users import User

__all__ = ["Evaluation", "evaluate_on_user"]


@dataclass(frozen=True)
class Evaluation:
    """A policy's responses to fresh contexts and what a user made of them; all of length n.

    Attributes:
        contexts: The contexts.
        responses: The policy's responses.
        edits: The user's edits.
        costs: float64 [n], the cost of each edit.
        well_formed: bool [n], whether the response could be parsed.
    """

    contexts: tuple[str, ...]
    responses: tuple[str, ...]
    edits: tuple[str, ...]
    costs: NDArray[np.float64]
    well_formed: NDArray[np.bool_]

    @property
    def mean(self) -> float:
        """The mean cost."""
        return float(self.costs.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the mean cost."""
        return float(self.costs.std(ddof=1) / len(self.costs) ** 0.5)

    @property
    def share_well_formed(self) -> float:
        """The share of responses that are not garbled."""
        return float(self.well_formed.mean())


def evaluate_on_user(
    policy: Policy, domain: Domain, user: User, n: int, seed: int, *, cost: Cost | None = None
) -> Evaluation:
    """Samples n responses at temperature 1 and lets a user edit them.

    Args:
        policy: The policy; its own contexts and draws follow the seed, so that policies of one base are
            compared on equal contexts.
        domain: Where the contexts come from.
        user: Who edits.
        n: How many responses, at least 2.
        seed: Of the contexts and the responses.
        cost: By default `get_cost()`.

    Raises:
        ConfigError: `n` is below 2.
    """
    if n < 2:
        raise ConfigError("too few responses for a standard error", seen=n, do="give at least 2")
    contexts = list(islice(domain.contexts(seed, stream="evaluation"), n))
    samples = policy.sample(contexts, seed=seed, max_new_tokens=MAX_NEW_TOKENS)
    responses = [sample.text for sample in samples]
    edits = [user.edit(context, text) for context, text in zip(contexts, responses, strict=True)]
    return Evaluation(
        tuple(contexts),
        tuple(responses),
        tuple(edits),
        (cost or get_cost())(responses, edits),
        np.array([domain.parse(text) is not None for text in responses]),
    )
