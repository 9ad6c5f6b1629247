"""The environments of `bandits`: what each arm would cost in each round, and what the user shows of it.

There are five arms, and the cost of an arm with mean μ is distributed as Beta(5μ, 5(1−μ)), if nothing else is
said. A table of costs is sampled once for each seed, so that all algorithms incur the same cost for the same
choice in the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AFTER", "ALGORITHM_1", "ARMS", "MEANS", "PATIENCE", "Setting", "World", "means", "world"]

Floats = NDArray[np.float64]

ALGORITHM_1: dict[str, Any] = {"algorithm": "ucb", "features": "none", "bounded": False}
"""Algorithm 1 of the paper to the letter, as options of `BanditConfig`."""

ARMS = 5
"""The number of arms."""

MEANS = np.array([0.21, 0.36, 0.34, 0.93, 0.49])
AFTER = np.array([0.49, 0.21, 0.34, 0.93, 0.36])
"""The mean costs after a change."""
CLOSE = np.array([0.30, 0.33, 0.33, 0.36, 0.36])
GAP = np.array([0.3, 0.4, 0.4, 0.4, 0.4])
"""The probabilities that a draft is written anew, at cost 1; else it is kept, at cost 0."""

LEFT, LEFT_MEANS = 0.8, np.array([0.2, 0.3, 0.3, 0.3, 0.3])
"""How often the first arm's drafts are left without a trace, and the mean costs of those that are not."""

PATIENCE = 50
"""Rounds after which a draft that was left without a trace counts as expired."""

OUTLIER, OUTLIER_COST = 0.001, 20.0
"""How often an edit is far longer than its draft, and what it costs."""

KINDS, WORDS_OF_KIND, OTHER_WORDS = 4, 10, 100
"""Kinds of requests, the words that are typical of each, and those that all share."""

KIND_MEANS = np.full((KINDS, ARMS), 0.42)
KIND_MEANS[np.arange(KINDS), np.arange(KINDS)] = 0.2
KIND_MEANS[:, -1] = 0.36
"""For each kind, another arm is best; the last one is best on average."""


class Setting(NamedTuple):
    """An environment, with the number of rounds and seeds, and the delay and loss of feedback.

    Attributes:
        environment: A name in `ENVIRONMENTS`; or a population of users.
        rounds: The number of rounds.
        seeds: The number of seeds.
        delay: After how many further rounds a cost becomes known.
        missing: The share of costs that never become known.
    """

    environment: str
    rounds: int = 200
    seeds: int = 500
    delay: int = 0
    missing: float = 0.0

    @property
    def name(self) -> str:
        """The name of the setting in the tables."""
        parts = [self.environment, f"T {self.rounds:,}"]
        parts += [f"delay {self.delay}"] if self.delay else []
        parts += [f"{self.missing:.0%} missing"] if self.missing else []
        return ", ".join(parts)


@dataclass(frozen=True)
class World:
    """The rounds of one seed.

    Attributes:
        mean: What each arm is worth in each round, where a draft that is left costs 1 [rounds, arms].
        costs: What the user's edit of each arm's draft would cost [rounds, arms].
        left: Which drafts would be left without a trace [rounds, arms].
        contexts: What is asked in each round; empty texts where that does not matter.
    """

    mean: Floats
    costs: Floats
    left: NDArray[np.bool_]
    contexts: Sequence[str]


def means(environment: str, rounds: int) -> Floats:
    """Return μ of each round and arm [rounds, arms], of an environment without kinds of requests."""
    if environment == "abrupt":
        return np.vstack([np.tile(MEANS, (rounds // 2, 1)), np.tile(AFTER, (rounds - rounds // 2, 1))])
    if environment == "slow":
        turn = np.arange(1, rounds + 1)[:, None] / rounds + np.arange(ARMS) / ARMS
        return np.clip(MEANS + 0.25 * np.sin(2 * np.pi * turn), 0.02, 0.98)
    constant = {"close": CLOSE, "gap .1": GAP}.get(environment, MEANS)
    return np.tile(constant, (rounds, 1))


def world(setting: Setting, seed: int) -> World:
    """Return the rounds of a seed."""
    generator = np.random.default_rng([seed, setting.rounds])
    found = ENVIRONMENTS[setting.environment](setting, generator)
    if setting.missing:
        lost = generator.random(setting.rounds) < setting.missing
        found = World(found.mean, found.costs, found.left | lost[:, None], found.contexts)
    return found


def _beta(mean: Floats, generator: np.random.Generator) -> Floats:
    return generator.beta(5 * mean, 5 * (1 - mean))


def _plain(setting: Setting, generator: np.random.Generator) -> World:
    mean = means(setting.environment, setting.rounds)
    return _without_contexts(mean, _beta(mean, generator))


def _without_contexts(mean: Floats, costs: Floats, left: NDArray[np.bool_] | None = None) -> World:
    nothing = np.zeros(mean.shape, dtype=bool) if left is None else left
    return World(mean, costs, nothing, [""] * len(mean))


def _rewritten(setting: Setting, generator: np.random.Generator) -> World:
    mean = means(setting.environment, setting.rounds)
    return _without_contexts(mean, (generator.random(mean.shape) < mean).astype(np.float64))


def _left(share: float) -> Callable[[Setting, np.random.Generator], World]:
    def make(setting: Setting, generator: np.random.Generator) -> World:
        seen = np.tile(LEFT_MEANS, (setting.rounds, 1))
        left = np.zeros(seen.shape, dtype=bool)
        left[:, 0] = generator.random(setting.rounds) < share
        mean = seen.copy()
        mean[:, 0] = share + (1 - share) * seen[:, 0]
        return _without_contexts(mean, _beta(seen, generator), left)

    return make


def _outliers(setting: Setting, generator: np.random.Generator) -> World:
    plain = _plain(setting, generator)
    rare = generator.random(plain.costs.shape) < OUTLIER
    return _without_contexts(plain.mean, np.where(rare, OUTLIER_COST, plain.costs))


def _contexts(kinds: NDArray[np.int64], generator: np.random.Generator) -> list[str]:
    """Requests of eight words: three of the ten that are typical of the kind, five that all share."""
    own = generator.integers(WORDS_OF_KIND, size=(len(kinds), 3))
    shared = generator.integers(OTHER_WORDS, size=(len(kinds), 5))
    return [
        " ".join([*(f"kind{kind}word{i}" for i in typical), *(f"word{i}" for i in other)])
        for kind, typical, other in zip(kinds.tolist(), own.tolist(), shared.tolist(), strict=True)
    ]


def _context(setting: Setting, generator: np.random.Generator) -> World:
    kinds = generator.integers(KINDS, size=setting.rounds)
    mean = KIND_MEANS[kinds]
    costs = _beta(mean, generator)
    return World(mean, costs, np.zeros(mean.shape, dtype=bool), _contexts(kinds, generator))


def _noise(setting: Setting, generator: np.random.Generator) -> World:
    plain = _plain(setting, generator)
    kinds = generator.integers(KINDS, size=setting.rounds)
    return World(plain.mean, plain.costs, plain.left, _contexts(kinds, generator))


ENVIRONMENTS: dict[str, Callable[[Setting, np.random.Generator], World]] = {
    **dict.fromkeys(("stationary", "abrupt", "slow", "close"), _plain),
    "gap .1": _rewritten,
    "outliers": _outliers,
    "abandoned": _left(LEFT),
    "always abandoned": _left(1.0),
    "context": _context,
    "context is noise": _noise,
}
