"""Random worlds, for claims that must hold in all of them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax

from editloop.theory.balance import around
from editloop.theory.distributions import Floats
from editloop.theory.responses import abstract_distances, edit_distances, neighbours, strings
from editloop.theory.violations import VIOLATIONS, violated
from editloop.theory.world import World

__all__ = ["any_world", "balanced_world", "simplex", "tasteful_world", "violated_world"]


def simplex(rng: np.random.Generator, *shape: int) -> Floats:
    """Return random probabilities over the last axis, each at least 0.02/m."""
    m = shape[-1]
    return 0.98 * rng.dirichlet(np.ones(m), size=shape[:-1]) + 0.02 / m


def tasteful_world(
    rng: np.random.Generator, *, gamma: float, concentrability: float, sharpness: float = 1.0
) -> World:
    """Return a balanced user of the 14 strings over {a, b} of length 1 to 3, who has a favourite among them.

    The optimum falls with the distance from the favourite, about as e^{-sharpness Δ}. β is chosen such that
    the log has the given coverage: a user who incurs little cost, as a weak one does, is far from the
    reference only if β is small.

    Args:
        rng: Draws the favourite, and a little noise.
        gamma: γ of `Description`.
        concentrability: max π*/π_ref, above 1.
        sharpness: How fast the optimum falls.

    Raises:
        ValueError: No β between 0.005 and 500 has this coverage.
    """
    words = strings("ab", 3)
    distance = edit_distances(words)
    proposal = neighbours(distance)
    log_optimum = -sharpness * distance[rng.integers(len(words))] + rng.normal(0, 0.3, len(words))
    optimum = np.exp(log_softmax(log_optimum))[None]

    def world(log_beta: float) -> World:
        return around(optimum, distance, float(np.exp(log_beta)), gamma, proposal)

    # π_ref ∝ π* e^{c/β}, so the coverage goes from 1 for an infinite β to infinity for β near 0.
    def miss(log_beta: float) -> float:
        return float(np.log(world(log_beta).concentrability / concentrability))

    return world(float(brentq(miss, np.log(0.005), np.log(500.0))))


def any_world(rng: np.random.Generator, m: int = 5, contexts: int = 2) -> World:
    """Return a world with a random user, who violates Assumption 1."""
    distance, kernel = abstract_distances(m, rng), simplex(rng, contexts, m, m)
    weights = simplex(rng, contexts)
    return World(simplex(rng, contexts, m), distance, kernel, rng.uniform(0.1, 2), weights)


def balanced_world(rng: np.random.Generator, contexts: int = 1, laziness: float | None = None) -> World:
    """Return a world with a user of any strength who satisfies Assumption 1, for strings or for points."""
    if rng.random() < 0.5:
        distance = edit_distances(strings("ab", int(rng.integers(1, 4))))
        within = 1.0
    else:
        distance = abstract_distances(int(rng.integers(2, 9)), rng)
        within = float(distance.max())
    lazy = float(rng.choice([0.0, 0.5, 1.0])) if laziness is None else laziness
    optimum = simplex(rng, contexts, len(distance))
    beta, gamma = rng.uniform(0.1, 2), max(rng.uniform(-0.1, 1), 0.0)  # γ = 0 in one world of eleven
    return around(optimum, distance, beta, gamma, neighbours(distance, within), lazy)


def violated_world(rng: np.random.Generator) -> World:
    """Return a world with a user who violates Assumption 1 to some degree, in a known way or at random."""
    # Squared, so that small violations are more frequent.
    kind = rng.choice(["any", *VIOLATIONS])
    if kind == "any":
        return any_world(rng, int(rng.integers(2, 7)))
    return violated(balanced_world(rng), str(kind), rng.uniform(0, 0.7) ** 2)
