"""The algorithms that `bandits` compares, behind one interface.

EditLoop's, river's, MABWiser's, Vowpal Wabbit's, and simple ones for reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from benchmarks.bandit_settings import ALGORITHM_1, ARMS
from editloop.online import Bandit, BanditConfig


class Learner(Protocol):
    """An algorithm that chooses arms and learns from their costs."""

    def choose(self, round: int, context: str) -> int:
        """Return the arm of a round in which this is asked; an empty text if that is not known."""
        ...

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """Learn the cost of an earlier round; None says that it will never be known."""
        ...


class EditLoop:
    """A bandit of EditLoop; `options` are the fields of its configuration."""

    def __init__(self, **options: Any) -> None:
        self.bandit = Bandit(map(str, range(ARMS)), BanditConfig(**options))

    def choose(self, round: int, context: str) -> int:
        """See `Learner`."""
        return int(self.bandit.decide(str(round), context=context or None).arm)

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

    def choose(self, round: int, context: str) -> int:
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

    def choose(self, round: int, context: str) -> int:
        """See `Learner`."""
        return round if round < ARMS else int(self.mab.predict()) if self.fitted else round % ARMS

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """See `Learner`."""
        if cost is not None:
            (self.mab.partial_fit if self.fitted else self.mab.fit)([arm], [1 - cost])
            self.fitted = True


class VowpalWabbit:
    """Vowpal Wabbit's contextual bandit over the words of a request; each arm has its own weights.

    Args:
        explorer: The options of the way in which it explores.
        seed: The seed of its choices.
    """

    def __init__(self, explorer: str, seed: int) -> None:
        from vowpalwabbit import Workspace

        options = f"--cb_explore_adf -q sa --quiet --random_seed {seed + 1} {explorer}"
        self.workspace, self.generator = Workspace(options), np.random.default_rng(seed)
        self.asked: dict[int, tuple[str, float]] = {}

    def choose(self, round: int, context: str) -> int:
        """See `Learner`."""
        found = np.array(self.workspace.predict(self._example(context)))
        found /= found.sum()
        arm = int(self.generator.choice(ARMS, p=found))
        self.asked[round] = context, float(found[arm])
        return arm

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """See `Learner`."""
        context, probability = self.asked.pop(round)
        if cost is not None:
            self.workspace.learn(self._example(context, (arm, cost, probability)))

    def _example(self, context: str, label: tuple[int, float, float] | None = None) -> list[str]:
        lines = [f"shared |s constant {context}"]
        for arm in range(ARMS):
            known = f"0:{label[1]}:{label[2]} " if label and label[0] == arm else ""
            lines.append(f"{known}|a arm{arm}")
        return lines


class Greedy:
    """The arm of the least mean cost; sometimes, or at the beginning, another one.

    Args:
        seed: The seed of its choices.
        epsilon: The probability of any arm instead.
        explore: Rounds in which the arms are played in turn, after which it never learns again; 0 to learn
            always.
    """

    def __init__(self, seed: int, epsilon: float = 0.0, explore: int = 0) -> None:
        self.generator, self.epsilon, self.explore = np.random.default_rng(seed), epsilon, explore
        self.pulls, self.costs = np.zeros(ARMS), np.zeros(ARMS)

    def choose(self, round: int, context: str) -> int:
        """See `Learner`."""
        if round < max(ARMS, self.explore):
            return round % ARMS
        if self.generator.random() < self.epsilon:
            return int(self.generator.integers(ARMS))
        return int(np.argmin(self.costs / np.maximum(self.pulls, 1)))

    def learn(self, round: int, arm: int, cost: float | None) -> None:
        """See `Learner`."""
        if cost is not None and not (self.explore and round >= self.explore):
            self.pulls[arm] += 1
            self.costs[arm] += cost


UCB1 = math.sqrt(2)
"""α of UCB1, and in EditLoop's unit the default of river (δ = 1) and of MABWiser (α = 1)."""

DEFAULT, NO_FEATURES, PAPER = "EditLoop", "EditLoop, no features", "Algorithm 1, α .45"

LEARNERS: dict[str, Callable[[int], Learner]] = {
    DEFAULT: lambda seed: EditLoop(seed=seed),
    NO_FEATURES: lambda seed: EditLoop(features="none", seed=seed),
    "EditLoop, square-cb": lambda seed: EditLoop(algorithm="square-cb", seed=seed),
    "EditLoop, lin-ts": lambda seed: EditLoop(algorithm="lin-ts", seed=seed),
    "EditLoop, kl-ucb": lambda seed: EditLoop(algorithm="kl-ucb", seed=seed),
    "EditLoop, thompson": lambda seed: EditLoop(algorithm="thompson", seed=seed),
    "EditLoop, discount .99": lambda seed: EditLoop(discount=0.99, seed=seed),
    PAPER: lambda seed: EditLoop(**ALGORITHM_1, seed=seed),
    "Algorithm 1, α .71": lambda seed: EditLoop(**ALGORITHM_1, alpha=0.71, seed=seed),
    "Algorithm 1, UCB1": lambda seed: EditLoop(**ALGORITHM_1, alpha=UCB1, seed=seed),
    "river, UCB1": lambda seed: River(UCB1, seed),
    "river, α .45": lambda seed: River(0.45, seed),
    "MABWiser, UCB1": lambda seed: MABWiser(UCB1, seed),
    "VW, squarecb": lambda seed: VowpalWabbit("--squarecb --gamma_scale 100", seed),
    "VW, regcb": lambda seed: VowpalWabbit("--regcb", seed),
    "VW, bag 5": lambda seed: VowpalWabbit("--bag 5", seed),
    "VW, cover 3": lambda seed: VowpalWabbit("--cover 3", seed),
    "VW, ε .05": lambda seed: VowpalWabbit("--epsilon 0.05", seed),
    "VW, softmax": lambda seed: VowpalWabbit("--softmax --lambda 20", seed),
    "ε-greedy, .1": lambda seed: Greedy(seed, epsilon=0.1),
    "explore 50, then commit": lambda seed: Greedy(seed, explore=50),
    "uniform": lambda seed: EditLoop(algorithm="uniform", seed=seed),
}
"""Each learner, made from the seed of its own random choices."""

CONTEXTUAL = frozenset(
    name for name in LEARNERS if name.startswith(("EditLoop", "VW")) and name != NO_FEATURES
)
"""Those that look at what is asked."""

ONLY_ASKED = frozenset({NO_FEATURES, "VW, regcb", "VW, bag 5", "VW, cover 3", "VW, ε .05", "VW, softmax"})
"""Those that are compared only where requests differ."""

SLOW = frozenset({"EditLoop, lin-ts"})

BY_USER = "one for all, which knows the user"
USER_LEARNERS: dict[str, dict[str, Any]] = {
    BY_USER: {},
    "one for all, which does not": {"features": "none"},
    "each, prior learned": {"pool": "learned", "features": "none"},
    "each, prior of 5 pulls": {"pool": 5.0, "features": "none"},
    "each alone": {"pool": 0.0, "features": "none"},
}
"""Options of EditLoop's bandit when it serves many users. The first one is the server's default."""
