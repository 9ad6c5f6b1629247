"""Users who violate Assumption 1, by a share s from 0 to 1 of their edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from editloop.theory.distributions import Floats
from editloop.theory.world import World

__all__ = ["VIOLATIONS", "violated"]


def noise(world: World, share: float) -> Floats:
    """Return a kernel in which a share of the edits are uniformly random responses [C, m, m]."""
    m = world.reference.shape[1]
    kernel: Floats = (1 - share) * world.kernel + share / m
    return kernel


def adversarial(world: World, share: float) -> Floats:
    """Return a kernel in which a share of the edits are the response that is farthest from the one edited."""
    m = world.reference.shape[1]
    kernel: Floats = (1 - share) * world.kernel + share * np.eye(m)[world.distance.argmax(axis=1)]
    return kernel


def over_editing(world: World, share: float) -> Floats:
    """Return a kernel in which a share of the edits go one response further in a fixed cycle.

    A cycle never turns back, so it violates detailed balance.
    """
    m = world.reference.shape[1]
    onward = (1 - share) * np.eye(m) + share * np.roll(np.eye(m), 1, axis=1)
    return world.kernel @ onward


def taste(world: World, share: float) -> Floats:
    """Return a kernel in which a share of the edits are by a user who prefers what this user likes least."""
    # The other optimum has the same probabilities in the reverse order: what was likeliest is least likely.
    order = world.optimum.argsort(axis=1)
    other = np.empty_like(world.optimum)
    np.put_along_axis(other, order, np.take_along_axis(world.optimum, order[:, ::-1], axis=1), axis=1)
    return (1 - share) * world.kernel + share * other[:, None, :]


VIOLATIONS: Mapping[str, Callable[[World, float], Floats]] = {
    "noise": noise,
    "adversarial": adversarial,
    "over-editing": over_editing,
    "drift": taste,
}
"""The violations by name; in `drift` a user with another taste takes over."""


def violated(world: World, kind: str, share: float) -> World:
    """Return the world with a user who violates Assumption 1; its optimum follows from that user's costs."""
    kernel = VIOLATIONS[kind](world, share)
    return World(world.reference, world.distance, kernel, world.beta, world.weights, world.responses)
