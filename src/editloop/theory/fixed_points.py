"""The users who fit one description: fixed points of user, cost and optimum.

For a large β there is one. For a small β, several users with different optima can fit the same description
(docs/theory.md). `balanced` returns those that it finds, and what is known about others.

Points are logarithms of policies, because probabilities underflow where β is small. They are compared by the
range of their difference (Hilbert's metric), which ignores a constant: logarithms of policies that are not
normalised differ by one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import root
from scipy.special import log_softmax

from editloop.errors import WorldError
from editloop.theory.balance import Description
from editloop.theory.distributions import Floats, total_variation
from editloop.theory.world import World

__all__ = ["Solution", "Solutions", "balanced"]

RESIDUAL = 1e-10
"""How far log π may be from F(log π) at a solution (F is `Description.answer`)."""

SAME = 1e-6
"""The total variation below which two solutions count as one."""

STEPS = 4_000
"""The number of iterations with one damping factor."""

DAMPING = (1.0, 0.5, 0.2, 0.05)
"""The weights of the new point in the next, tried one after the other for starts that do not converge."""

COOLING = 0.9
"""The factor from one β to the next, on the way down from where the solution is unique."""


class Solution(NamedTuple):
    """A user who is balanced for the optimum that follows from their edits.

    Attributes:
        log_optimum: log π*_β [m].
        residual: How far it is from its image under F.
        attracts: Whether the iteration converges to it from nearby.
        starts: The number of random starts that led to it.
    """

    log_optimum: Floats
    residual: float
    attracts: bool
    starts: int


class Solutions(NamedTuple):
    """The users that were found for a description.

    Attributes:
        description: The description.
        found: The solutions. The first one continues the unique solution of a large β.
        lipschitz: The constant L of the description.
        unique: Whether L < 1, so that there is no other solution.
        jump: The largest total variation between neighbours on the way down; near 0 if the first solution was
            followed without a jump to another one.
    """

    description: Description
    found: tuple[Solution, ...]
    lipschitz: float
    unique: bool
    jump: float

    def world(self, which: int = 0) -> World:
        """Return one of the solutions as a world of one context."""
        one, log_optimum = self.description, self.found[which].log_optimum
        kernel = one.kernel(log_optimum)
        return World(one.reference[None], one.distance, kernel[None], one.beta)


def balanced(
    description: Description, *, starts: int = 12, rng: np.random.Generator | None = None
) -> Solutions:
    """Return the users who fit a description.

    The first one is followed down from a β at which it is unique. The others come from random starts, by
    damped iteration and by Newton's method, which also finds those from which the iteration diverges.

    Args:
        description: The description.
        starts: The number of random starts; none are needed if the solution is known to be unique.
        rng: Draws the starts.

    Raises:
        WorldError: The iteration does not converge to the solution that is followed.
    """
    bound = description.lipschitz()
    log_optimum, jump = _continue(description, bound)
    known = [log_optimum]
    counts = [0]
    if bound >= 1 and starts:  # else F is a contraction, and there is no other solution to search for
        rng = rng or np.random.default_rng(0)
        m = len(description.reference)
        drawn = np.log(np.maximum(rng.dirichlet(np.full(m, 0.3), size=starts), 1e-12))
        for point in (*_settle(description, drawn), *_newton(description, drawn)):
            if _residual(description, point) > RESIDUAL:
                continue
            apart = [float(total_variation(np.exp(point), np.exp(one))) for one in known]
            if min(apart) < SAME:
                counts[int(np.argmin(apart))] += 1
            else:
                known.append(point)
                counts.append(1)
    found = tuple(
        Solution(one, _residual(description, one), _attracts(description, one), count)
        for one, count in zip(known, counts, strict=True)
    )
    return Solutions(description, found, bound, bound < 1, jump)


def _continue(description: Description, bound: float) -> tuple[Floats, float]:
    """Follow the solution down from a β where it is unique; return it and the largest step on the way."""
    # L is proportional to 1/β: at β L / COOLING it is COOLING, below 1, and the iteration converges to the
    # only solution from any start. Each further step starts from the solution of the step before.
    beta = max(description.beta, description.beta * bound / COOLING)
    current, jump = np.log(description.reference), 0.0
    first = True  # the way from the reference to the first solution is not a step along the branch
    while True:
        (following,) = _settle(description.at(beta), current[None])
        residual = _residual(description.at(beta), following)
        if residual > RESIDUAL:
            raise WorldError(
                "no balanced user was found: the iteration does not converge",
                seen=f"β {beta:.3g}, residual {residual:.1e}",
                do="use a larger β or γ nearer to 1",
            )
        if not first:
            jump = max(jump, float(total_variation(np.exp(following), np.exp(current))))
        current, first = following, False
        if beta == description.beta:  # `max` gives exactly this number at the end
            return current, jump
        beta = max(description.beta, COOLING * beta)


def _settle(description: Description, log_start: Floats) -> Floats:
    """The points to which damped iteration leads from each start; some may not be solutions [s, m]."""
    # All starts are iterated together. A damping factor is given up only when its steps are used up, and the
    # next, slower one continues from there with the starts that have not converged.
    current: Floats = log_softmax(log_start, axis=-1)
    for share in DAMPING:
        going = np.ptp(description.answer(current) - current, axis=-1) > RESIDUAL / 10
        moving = current[going]
        for _ in range(STEPS):
            if not len(moving):
                break
            after = description.answer(moving)
            done = np.ptp(after - moving, axis=-1) <= RESIDUAL / 10
            moving = log_softmax((1 - share) * moving + share * after, axis=-1)
            if done.all():
                break
        current[going] = moving
    return current


def _newton(description: Description, log_start: Floats) -> list[Floats]:
    """The points to which Newton's method leads, as roots of F(log π) - log π; some may not be solutions."""
    found = []
    for start in log_start:
        # Newton begins halfway between a start and its image, because a start with all its mass on one
        # response is far from every root.
        halfway = log_softmax(0.5 * (start + description.answer(start)))
        done = root(lambda u: description.answer(u) - u, halfway, method="hybr", tol=RESIDUAL / 100)
        # F has the right constant whatever that of the root, and takes one more step.
        found.append(log_softmax(description.answer(log_softmax(done.x))))
    return found


def _residual(description: Description, log_optimum: Floats) -> float:
    """The range of F(log π) - log π; 0 at a solution, whatever the constant."""
    return float(np.ptp(description.answer(log_optimum) - log_optimum))


def _attracts(description: Description, log_optimum: Floats) -> bool:
    """Whether the iteration returns to a solution from a point nearby, on either side of it."""
    bend = np.linspace(-1, 1, len(log_optimum))
    beside = log_softmax(np.stack([log_optimum + 1e-4 * bend, log_optimum - 1e-4 * bend]), axis=-1)
    back = np.exp(_settle(description, beside))
    return bool((total_variation(back, np.exp(log_optimum)[None]) < SAME).all())
