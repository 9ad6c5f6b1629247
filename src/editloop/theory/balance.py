"""Users who keep Assumption 1 exactly: q = γ π*_β + (1 - γ) K, with K reversible for π*_β.

Such a user is a fixed point: the cost c depends on q, q on the optimum π*_β, and the optimum on c. It need
not be unique: for a small β several users, each content with another optimum, fit the same description
(docs/theory.md). `balanced` finds those it can, and says how sure it is that there are no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import root
from scipy.special import log_softmax

from editloop.errors import WorldError
from editloop.theory.world import Floats, World, as_distribution, check_beta, check_distance, total_variation

__all__ = ["Description", "Solution", "Solutions", "around", "balanced", "metropolis"]

RESIDUAL = 1e-10
"""By how much log π may differ from what it is mapped to, at a solution."""

SAME = 1e-6
"""Total variation below which two solutions are one."""

STEPS = 4_000
"""Iterations with one damping."""

DAMPING = (1.0, 0.5, 0.2, 0.05)
"""Shares of the new point in the next, one after the other, for starts that do not settle."""

COOLING = 0.9
"""From one β to the next, on the way down from where the solution is unique."""


@dataclass(frozen=True, eq=False)
class Description:
    """What a balanced user is made of, for one context.

    Args:
        reference: π_ref, positive [m].
        distance: Δ [m, m].
        beta: β > 0.
        gamma: The probability γ, from 0 to 1, with which the user writes the optimum at once.
        proposal: P(y, y'), the local edits that the user else thinks of [m, m].
        laziness: The probability with which they then leave the response as it is.

    Raises:
        WorldError: A value that cannot be.
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
            raise WorldError("local edits have the shape [m, m], and each can be taken back")
        check_beta(self.beta)
        for name, share in (("γ", self.gamma), ("the laziness", self.laziness)):
            if not 0 <= share <= 1:
                raise WorldError(f"{name} is a probability", seen=share)
        object.__setattr__(self, "reference", reference)
        object.__setattr__(self, "proposal", proposal)
        object.__setattr__(self, "distance", check_distance(self.distance, m))

    def at(self, beta: float) -> Description:
        """The same with another β."""
        parts = (self.gamma, self.proposal, self.laziness)
        return Description(self.reference, self.distance, beta, *parts)

    def kernel(self, log_optimum: Floats) -> Floats:
        """q of a user whose optimum this is [m, m]."""
        local = metropolis(self.proposal, log_optimum, self.laziness)
        return self.gamma * np.exp(log_optimum)[None, :] + (1 - self.gamma) * local

    def answer(self, log_optimum: Floats) -> Floats:
        """log of the optimum of the user whose optimum that should be, for [..., m] at once."""
        rows, columns = self.proposal.nonzero()
        steps = self.proposal[rows, columns]
        odds = (
            np.log(self.proposal[columns, rows] / steps) + log_optimum[..., columns] - log_optimum[..., rows]
        )
        paid = steps * self.distance[rows, columns] * np.exp(np.minimum(odds, 0.0))
        starts = np.searchsorted(rows, np.arange(len(self.reference)))  # each row has a neighbour
        local = np.add.reduceat(paid, starts, axis=-1)
        cost = self.gamma * np.exp(log_optimum) @ self.distance.T
        cost = cost + (1 - self.gamma) * (1 - self.laziness) * local
        found: Floats = log_softmax(np.log(self.reference) - cost / self.beta, axis=-1)
        return found

    def lipschitz(self) -> float:
        """L: two candidates for log π, d the range of their difference, are mapped to L d at most.

        L = (γ D/4 + (1 - γ)(1 - laziness)(b₁ + b₂)) / β, with D the largest Δ(y, a) - Δ(z, a) - Δ(y, b) +
        Δ(z, b), and b₁, b₂ the two largest mean lengths Σ_y' P(y, y') Δ(y, y') of a local edit. If L < 1 the
        user is unique, and the iteration finds them from anywhere (proof in docs/theory.md).
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
        residual: By how much it differs from what it is mapped to.
        attracts: Whether the iteration stays there: nearby users are led to this one.
        starts: Number of random starts that led there.
    """

    log_optimum: Floats
    residual: float
    attracts: bool
    starts: int


class Solutions(NamedTuple):
    """What was found for a description.

    Attributes:
        description: Of what.
        found: The solutions; first the one that continues the unique one of a large β.
        lipschitz: L of the description.
        unique: Whether L < 1, so that there is no other.
        jump: The largest total variation between neighbours on the way down: near 0 if the first solution was
            followed without a jump to another.
    """

    description: Description
    found: tuple[Solution, ...]
    lipschitz: float
    unique: bool
    jump: float

    def world(self, which: int = 0) -> World:
        """One of them as a world of one context."""
        one, log_optimum = self.description, self.found[which].log_optimum
        kernel = one.kernel(log_optimum)
        return World(one.reference[None], one.distance, kernel[None], one.beta)


def metropolis(proposal: Floats, log_target: Floats, laziness: float = 0.0) -> Floats:
    """A kernel of local edits that is reversible for a target (Metropolis-Hastings) [m, m].

    Args:
        proposal: P(y, y') [m, m].
        log_target: Its logarithms, up to a constant [m].
        laziness: Probability of doing nothing.
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
    """The balanced world that has a given optimum: its reference follows, π_ref ∝ π*_β e^{c/β}.

    No iteration is needed, and for every positive optimum there is one.

    Args:
        optimum: π*_β, positive [C, m].
        distance: Δ [m, m].
        beta: As of `Description`.
        gamma: Likewise.
        proposal: Likewise.
        laziness: Likewise.

    Raises:
        WorldError: A value that cannot be.
    """
    wanted = as_distribution("the optimum", optimum)
    if not (wanted > 0).all():
        raise WorldError("the optimum must give every response a probability")
    log_optimum = np.log(wanted)
    # Each described as if the optimum were the reference, of which a kernel knows nothing.
    users = [Description(np.exp(row), distance, beta, gamma, proposal, laziness) for row in log_optimum]
    kernel = np.stack([user.kernel(row) for user, row in zip(users, log_optimum, strict=True)])
    cost = np.einsum("xyz,yz->xy", kernel, users[0].distance)
    reference = np.exp(log_softmax(log_optimum + cost / beta, axis=1))
    return World(reference, distance, kernel, beta)


def balanced(
    description: Description, *, starts: int = 12, rng: np.random.Generator | None = None
) -> Solutions:
    """The users who fit a description.

    The first is followed down from a β at which it is unique. The others come from random starts: by damped
    iteration, and by Newton's method, which also finds those that the iteration runs away from.

    Args:
        description: Of a user.
        starts: Random starts; none are needed where the solution is known to be unique.
        rng: For them.

    Raises:
        WorldError: The solution that was followed does not settle.
    """
    bound = description.lipschitz()
    log_optimum, jump = _continue(description, bound)
    known = [log_optimum]
    counts = [0]
    if bound >= 1 and starts:
        rng = rng or np.random.default_rng(0)
        m = len(description.reference)
        drawn = np.log(np.maximum(rng.dirichlet(np.full(m, 0.3), size=starts), 1e-12))
        for candidate in (*_settle(description, drawn), *_newton(description, drawn)):
            if _residual(description, candidate) > RESIDUAL:
                continue
            apart = [float(total_variation(np.exp(candidate), np.exp(one))) for one in known]
            if min(apart) < SAME:
                counts[int(np.argmin(apart))] += 1
            else:
                known.append(candidate)
                counts.append(1)
    found = tuple(
        Solution(one, _residual(description, one), _attracts(description, one), count)
        for one, count in zip(known, counts, strict=True)
    )
    return Solutions(description, found, bound, bound < 1, jump)


def _continue(description: Description, bound: float) -> tuple[Floats, float]:
    """The solution that is reached from a β where it is unique, and the largest step on the way."""
    beta = max(description.beta, description.beta * bound / COOLING)
    current, jump = np.log(description.reference), 0.0
    first = True
    while True:
        (following,) = _settle(description.at(beta), current[None])
        residual = _residual(description.at(beta), following)
        if residual > RESIDUAL:
            raise WorldError(
                "no balanced user was found: the iteration does not settle",
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
    """Where damped iteration leads from each start [s, m]."""
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
    """Roots of log π - F(log π) from each start, as far as there are."""
    found = []
    for start in log_start:
        # From halfway to where it is mapped: a start of one response alone is far from every root.
        halfway = log_softmax(0.5 * (start + description.answer(start)))
        done = root(lambda u: description.answer(u) - u, halfway, method="hybr", tol=RESIDUAL / 100)
        found.append(log_softmax(description.answer(log_softmax(done.x))))
    return found


def _residual(description: Description, log_optimum: Floats) -> float:
    return float(np.ptp(description.answer(log_optimum) - log_optimum))


def _attracts(description: Description, log_optimum: Floats) -> bool:
    """Whether iteration that begins a little beside a solution comes back to it."""
    bend = np.linspace(-1, 1, len(log_optimum))
    beside = log_softmax(np.stack([log_optimum + 1e-4 * bend, log_optimum - 1e-4 * bend]), axis=-1)
    back = np.exp(_settle(description, beside))
    return bool((total_variation(back, np.exp(log_optimum)[None]) < SAME).all())
