"""The algorithms that `bandits` compares: EditLoop's, river's and MABWiser's, behind one interface."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from editloop.online import Bandit, BanditConfig

ARMS = 5
"""The number of arms."""


class Learner(Protocol):
    """An algorithm that chooses arms and learns from their costs."""

    def choose(self, round: int) -> int:
        """Return the arm of a round."""
        ...

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """Learn the cost of an earlier round; None says that it will never be known."""
        ...


class EditLoop:
    """A bandit of EditLoop; `options` are the fields of its configuration."""

    def __init__(self, **options: Any) -> None:
        self.bandit = Bandit(map(str, range(ARMS)), BanditConfig(**options))

    def choose(self, round: int) -> int:
        """See `Learner`."""
        return int(self.bandit.decide(str(round)).arm)

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """See `Learner`."""
        if cost is None:
            self.bandit.expired(str(round))
        else:
            self.bandit.edited(str(round), cost)


class River:
    """river's UCB. Its bonus is δ √(2 log t / N), so that δ = α/√2; the reward is 1 − cost."""

    def __init__(self, alpha: float, seed: int) -> None:
        from river import bandit

        self.policy = bandit.UCB(delta=alpha / math.sqrt(2), seed=seed)

    def choose(self, round: int) -> int:
        """See `Learner`."""
        return int(self.policy.pull(range(ARMS)))

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """See `Learner`."""
        if cost is not None:
            self.policy.update(arm, 1 - cost)


class MABWiser:
    """MABWiser's UCB1, with the same bonus as river's.

    An arm without feedback has index 0 there, so that each arm is played once first.
    """

    def __init__(self, alpha: float, seed: int) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self.mab = MAB(list(range(ARMS)), LearningPolicy.UCB1(alpha / math.sqrt(2)), seed=seed)
        self.fitted = False

    def choose(self, round: int) -> int:
        """See `Learner`."""
        return round if round < ARMS else int(self.mab.predict()) if self.fitted else round % ARMS

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """See `Learner`."""
        if cost is not None:
            (self.mab.partial_fit if self.fitted else self.mab.fit)([arm], [1 - cost])
            self.fitted = True


UCB1 = math.sqrt(2)
"""α of UCB1, and in EditLoop's unit the default of river (δ = 1) and of MABWiser (α = 1)."""

LEARNERS: dict[str, Callable[[int], Learner]] = {
    "EditLoop (α .45)": lambda seed: EditLoop(seed=seed),
    "EditLoop, UCB1": lambda seed: EditLoop(alpha=UCB1, seed=seed),
    "river, UCB1": lambda seed: River(UCB1, seed),
    "MABWiser, UCB1": lambda seed: MABWiser(UCB1, seed),
    "river, α .45": lambda seed: River(0.45, seed),
    "EditLoop, KL-UCB": lambda seed: EditLoop(algorithm="kl-ucb", seed=seed),
    "EditLoop, Thompson": lambda seed: EditLoop(algorithm="thompson", seed=seed),
    "EditLoop, discount .99": lambda seed: EditLoop(discount=0.99, seed=seed),
    "uniform": lambda seed: EditLoop(algorithm="uniform", seed=seed),
}
"""Each learner, made from the seed of its own random choices."""

USER_LEARNERS: dict[str, dict[str, Any]] = {
    "prior learned": {"pool": "learned"},
    "prior of 5 pulls": {"pool": 5.0},
    "separate": {"pool": 0.0},
    "one for all": {},
}
"""Options of EditLoop's bandit when it serves many users; without any, all users share one bandit."""
