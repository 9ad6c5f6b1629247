"""Users who keep Assumption 1 exactly: q = γ π*_β + (1 - γ) K, with K reversible for π*_β.

Such a user is a fixed point: the cost c depends on q, q on the optimum π*_β, and the optimum on c. The fixed
point need not be unique: for a small β, several users with different optima fit the same description
(docs/theory.md). `balanced` finds those it can, and returns what is known about others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import root
from scipy.special import log_softmax

from editloop.errors import WorldError
from editloop.theory.distributions import Floats, as_distribution, check_beta, check_distance, total_variation
from editloop.theory.world import World

__all__ = ["Description", "Solution", "Solutions", "around", "balanced", "metropolis"]

RESIDUAL = 1e-10
"""How far log π may be from its image under the map, at a solution."""

SAME = 1e-6
"""The total variation below which two solutions count as one."""

STEPS = 4_000
"""The number of iterations with one damping factor."""

DAMPING = (1.0, 0.5, 0.2, 0.05)
"""The weights of the new point in the next, tried one after the other for starts that do not converge."""

COOLING = 0.9
"""The factor from one β to the next, on the way down from where the solution is unique."""


@dataclass(frozen=True, eq=False)
class Description:
    """The description that a balanced user fits, for one context.

    Args:
        reference: π_ref, positive [m].
        distance: Δ [m, m].
        beta: β > 0.
        gamma: The probability γ, from 0 to 1, that the user writes a response of the optimum at once.
        proposal: P(y, y'), the local edits that the user considers otherwise [m, m].
        laziness: The probability that the user then leaves the response unchanged.

    Raises:
        WorldError: A value is not possible.
    """

    reference: Floats
    distance: Floats
    beta: float
    gamma: float
    proposal: Floats
    laziness: float = 0.5

    def __post_init__(self) -> None:
        reference = as_distribution("the reference", self.reference)
        if reference.ndim != 1 or not (reference > 0).all():
            raise WorldError("the reference of a context is a row of positive probabilities")
        m = len(reference)
        proposal = as_distribution("the local edits", self.proposal)
        if proposal.shape != (m, m) or ((proposal > 0) != (proposal > 0).T).any():
            raise WorldError("local edits have the shape [m, m], and each can be undone")
        check_beta(self.beta)
        for name, share in (("γ", self.gamma), ("the laziness", self.laziness)):
            if not 0 <= share <= 1:
                raise WorldError(f"{name} is a probability", seen=share)
        object.__setattr__(self, "reference", reference)
        object.__setattr__(self, "proposal", proposal)
        object.__setattr__(self, "distance", check_distance(self.distance, m))

    def at(self, beta: float) -> Description:
        """Return the same description with another β."""
        parts = (self.gamma, self.proposal, self.laziness)
        return Description(self.reference, self.distance, beta, *parts)

    def kernel(self, log_optimum: Floats) -> Floats:
        """Return the kernel q of a user with this optimum [m, m]."""
        local = metropolis(self.proposal, log_optimum, self.laziness)
        return self.gamma * np.exp(log_optimum)[None, :] + (1 - self.gamma) * local

    def answer(self, log_optimum: Floats) -> Floats:
        """Return the log of the optimum that follows from a user with this optimum; maps [..., m] at once."""
        rows, columns = self.proposal.nonzero()
        steps = self.proposal[rows, columns]
        odds = (
            np.log(self.proposal[columns, rows] / steps) + log_optimum[..., columns] - log_optimum[..., rows]
        )
        lengths = steps * self.distance[rows, columns] * np.exp(np.minimum(odds, 0.0))
        starts = np.searchsorted(rows, np.arange(len(self.reference)))  # every row has a neighbour
        local = np.add.reduceat(lengths, starts, axis=-1)
        cost = self.gamma * np.exp(log_optimum) @ self.distance.T
        cost = cost + (1 - self.gamma) * (1 - self.laziness) * local
        found: Floats = log_softmax(np.log(self.reference) - cost / self.beta, axis=-1)
        return found

    def lipschitz(self) -> float:
        """Return the Lipschitz constant L of the map, in the range seminorm.

        If d is the range of the difference of two points log π, that of their images is at most L d, with
        L = (γ D/4 + (1 - γ)(1 - laziness)(b₁ + b₂)) / β, where D is the largest Δ(y, a) - Δ(z, a) - Δ(y, b) +
        Δ(z, b), and b₁, b₂ are the two largest mean lengths Σ_y' P(y, y') Δ(y, y') of a local edit. If L <
        1, the user is unique and the iteration converges from any start (proof in docs/theory.md).
        """
        spread = 0.0
        for y in range(len(self.distance)):
            difference = self.distance - self.distance[y]
            spread = max(spread, float(np.ptp(difference, axis=1).max()))
        longest = np.sort((self.proposal * self.distance).sum(axis=1))[-2:].sum()
        local = (1 - self.gamma) * (1 - self.laziness) * float(longest)
        return (self.gamma * spread / 4 + local) / self.beta


class Solution(NamedTuple):
    """A user who is balanced for the optimum that follows from their edits.

    Attributes:
        log_optimum: log π*_β [m].
        residual: How far it is from its image under the map.
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


def metropolis(proposal: Floats, log_target: Floats, laziness: float = 0.0) -> Floats:
    """Return a kernel of local edits that is reversible for a target (Metropolis-Hastings) [m, m].

    Args:
        proposal: P(y, y') [m, m].
        log_target: The logarithm of the target, up to a constant [m].
        laziness: The probability of no edit.
    """
    there = proposal > 0
    odds = np.where(there, log_target[None, :] - log_target[:, None], 0.0)
    ratio = np.divide(proposal.T, proposal, out=np.zeros_like(proposal), where=there)
    kernel: Floats = (1 - laziness) * proposal * np.minimum(1.0, ratio * np.exp(np.minimum(odds, 700.0)))
    np.fill_diagonal(kernel, 0.0)
    np.fill_diagonal(kernel, 1 - kernel.sum(axis=1))
    return kernel


def around(
    optimum: Floats,
    distance: Floats,
    beta: float,
    gamma: float,
    proposal: Floats,
    laziness: float = 0.5,
) -> World:
    """Return the balanced world that has a given optimum; its reference follows, π_ref ∝ π*_β e^{c/β}.

    No iteration is needed, and there is such a world for every positive optimum.

    Args:
        optimum: π*_β, positive [C, m].
        distance: Δ [m, m].
        beta: As of `Description`.
        gamma: Likewise.
        proposal: Likewise.
        laziness: Likewise.

    Raises:
        WorldError: A value is not possible.
    """
    wanted = as_distribution("the optimum", optimum)
    if not (wanted > 0).all():
        raise WorldError("the optimum must give every response a probability")
    log_optimum = np.log(wanted)
    # The optimum stands in for the reference here, because a kernel does not depend on the reference.
    users = [Description(np.exp(row), distance, beta, gamma, proposal, laziness) for row in log_optimum]
    kernel = np.stack([user.kernel(row) for user, row in zip(users, log_optimum, strict=True)])
    cost = np.einsum("xyz,yz->xy", kernel, users[0].distance)
    reference = np.exp(log_softmax(log_optimum + cost / beta, axis=1))
    return World(reference, distance, kernel, beta)


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
    if bound >= 1 and starts:
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
    beta = max(description.beta, description.beta * bound / COOLING)
    current, jump = np.log(description.reference), 0.0
    first = True
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
        if beta == description.beta:
            return current, jump
        beta = max(description.beta, COOLING * beta)


def _settle(description: Description, log_start: Floats) -> Floats:
    """The points to which damped iteration leads from each start [s, m]."""
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
    """The roots of log π - F(log π) that Newton's method finds from the starts."""
    found = []
    for start in log_start:
        # Newton begins halfway between a start and its image, because a start with all its mass on one
        # response is far from every root.
        halfway = log_softmax(0.5 * (start + description.answer(start)))
        done = root(lambda u: description.answer(u) - u, halfway, method="hybr", tol=RESIDUAL / 100)
        found.append(log_softmax(description.answer(log_softmax(done.x))))
    return found


def _residual(description: Description, log_optimum: Floats) -> float:
    return float(np.ptp(description.answer(log_optimum) - log_optimum))


def _attracts(description: Description, log_optimum: Floats) -> bool:
    """Whether the iteration returns to a solution from a point nearby."""
    bend = np.linspace(-1, 1, len(log_optimum))
    beside = log_softmax(np.stack([log_optimum + 1e-4 * bend, log_optimum - 1e-4 * bend]), axis=-1)
    back = np.exp(_settle(description, beside))
    return bool((total_variation(back, np.exp(log_optimum)[None]) < SAME).all())
