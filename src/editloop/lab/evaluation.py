"""What a policy costs a user: fresh responses, fresh edits, and the cost of each edit.

Contexts come from a stream of their own, which no log draws from. This module does not know how the policy
was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Cost, get_cost
from editloop.errors import ConfigError
from editloop.lab.drafts import Writer
from editloop.lab.world import World
from editloop.users import User, edit_all

__all__ = ["Evaluation", "evaluate_on_user", "evaluate_on_users"]


@dataclass(frozen=True)
class Evaluation:
    """A policy's responses to fresh contexts and a user's edits of them; all of length n.

    Attributes:
        contexts: The contexts.
        responses: The policy's responses.
        edits: The user's edits.
        costs: float64 [n], the cost of each edit.
        well_formed: bool [n], whether the domain could parse the response; of free text, whether it ended.
        outcomes: What else is known of each response, by name, float64 [n] each: whether its tests pass.
    """

    contexts: tuple[str, ...]
    responses: tuple[str, ...]
    edits: tuple[str, ...]
    costs: NDArray[np.float64]
    well_formed: NDArray[np.bool_]
    outcomes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

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
        """The share of responses that are well-formed."""
        return float(self.well_formed.mean())


def evaluate_on_user(
    policy: Writer, domain: World, user: User, n: int, seed: int, *, cost: Cost | None = None
) -> Evaluation:
    """Return the evaluation of a policy by one user; see `evaluate_on_users`."""
    return evaluate_on_users(policy, domain, [user], n, seed, cost=cost)[0]


def evaluate_on_users(
    policy: Writer,
    domain: World,
    users: Sequence[User],
    n: int,
    seed: int,
    *,
    cost: Cost | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Evaluation]:
    """Sample n responses by the policy's generation settings, and let each user edit the same responses.

    Args:
        policy: The policy. Contexts and draws follow from the seed alone, so that policies are compared on
            the same contexts, with the same random numbers.
        domain: Where the contexts come from.
        users: Who edits.
        n: How many responses, at least 2.
        seed: The seed of the contexts and the responses.
        cost: The cost of an edit; by default that of the domain.
        progress: Called with the number of responses so far.

    Returns:
        An evaluation for each user, in their order.

    Raises:
        ConfigError: `n` is below 2.
    """
    if n < 2:
        raise ConfigError("too few responses for a standard error", seen=n, do="give at least 2")
    contexts = tuple(islice(domain.contexts(seed, stream="evaluation"), n))
    samples = policy.sample(contexts, seed=seed, max_new_tokens=domain.max_new_tokens, progress=progress)
    responses = tuple(sample.text for sample in samples)
    well_formed = np.array([domain.is_well_formed(sample) for sample in samples])
    cost = cost or get_cost(domain.cost)
    known = [domain.outcomes(*pair) for pair in zip(contexts, responses, strict=True)]
    outcomes = {name: np.array([each[name] for each in known], np.float64) for name in known[0]}
    found = []
    for user in users:
        edits = tuple(edit_all(user, contexts, responses))
        costs = cost(responses, edits)
        found.append(Evaluation(contexts, responses, edits, costs, well_formed, outcomes))
    return found
