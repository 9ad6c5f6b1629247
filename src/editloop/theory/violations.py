"""Users who violate Assumption 1, by a share s from 0 to 1 of their edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from editloop.theory.world import Floats, World

__all__ = ["VIOLATIONS", "violated"]


def noise(world: World, share: float) -> Floats:
    """So many edits are any response at all."""
    m = world.reference.shape[1]
    kernel: Floats = (1 - share) * world.kernel + share / m
    return kernel


def adversarial(world: World, share: float) -> Floats:
    """So many edits are the response that is farthest from what was there."""
    m = world.reference.shape[1]
    kernel: Floats = (1 - share) * world.kernel + share * np.eye(m)[world.distance.argmax(axis=1)]
    return kernel


def over_editing(world: World, share: float) -> Floats:
    """After so many edits comes one more: the nearest response behind it in a round that never turns back."""
    m = world.reference.shape[1]
    onward = (1 - share) * np.eye(m) + share * np.roll(np.eye(m), 1, axis=1)
    return world.kernel @ onward


def taste(world: World, share: float) -> Floats:
    """So many edits are those of another user, who likes best what this one likes least."""
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
"""By name; `drift` is a user of another taste who takes over."""


def violated(world: World, kind: str, share: float) -> World:
    """The world with a user who violates Assumption 1; its optimum follows from what that user pays."""
    kernel = VIOLATIONS[kind](world, share)
    return World(world.reference, world.distance, kernel, world.beta, world.weights, world.responses)
