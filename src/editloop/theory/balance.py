"""Users who satisfy Assumption 1 exactly: q = γ π*_β + (1 - γ) K, with K reversible for π*_β.

Both parts are in detailed balance with π*_β, and so is q. Such a user is a fixed point: the cost c depends on
q, q on the optimum π*_β, and the optimum on c. `around` avoids the circle by choosing the optimum first, and
`editloop.theory.fixed_points` solves it for a given reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from editloop.errors import WorldError
from editloop.theory.distributions import Floats, as_distribution, check_beta, check_distance
from editloop.theory.world import World

__all__ = ["Description", "around", "metropolis"]


@dataclass(frozen=True, eq=False)
class Description:
    """What describes a balanced user apart from the optimum, for one context.

    With probability γ the user writes a response of the optimum. Otherwise they leave the response unchanged
    with the probability `laziness`, or else consider a local edit, which they take or reject by the rule of
    Metropolis and Hastings.

    Args:
        reference: π_ref, positive [m].
        distance: Δ [m, m].
        beta: β > 0.
        gamma: γ, from 0 to 1.
        proposal: P(y, y'), the probability of each local edit to be considered [m, m].
        laziness: The laziness, from 0 to 1.

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
        """Return F, the log of the optimum that follows from a user with this optimum [..., m].

        A user is balanced at a fixed point of F. The cost is that of `kernel`, but computed for any number of
        points at once, and along the local edits only: with strings these are few of the m² pairs.
        """
        # c(y) = γ Σ_a π(a) Δ(y, a) + (1 - γ)(1 - laziness) Σ_y' P(y, y') min(1, e^odds) Δ(y, y'). An edit
        # that is rejected costs nothing.
        rows, columns = self.proposal.nonzero()
        steps = self.proposal[rows, columns]
        odds = (
            np.log(self.proposal[columns, rows] / steps) + log_optimum[..., columns] - log_optimum[..., rows]
        )
        lengths = steps * self.distance[rows, columns] * np.exp(np.minimum(odds, 0.0))
        # `nonzero` lists the edits row by row, and no row is without one, because it sums to 1. For an empty
        # row `reduceat` would not give 0.
        starts = np.searchsorted(rows, np.arange(len(self.reference)))
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
            # max over a, b of D for this y and each z is the range over a of Δ(z, a) - Δ(y, a).
            difference = self.distance - self.distance[y]
            spread = max(spread, float(np.ptp(difference, axis=1).max()))
        longest = np.sort((self.proposal * self.distance).sum(axis=1))[-2:].sum()
        local = (1 - self.gamma) * (1 - self.laziness) * float(longest)
        return (self.gamma * spread / 4 + local) / self.beta


def metropolis(proposal: Floats, log_target: Floats, laziness: float = 0.0) -> Floats:
    """Return a kernel of local edits that is reversible for a target (Metropolis-Hastings) [m, m].

    Args:
        proposal: P(y, y') [m, m].
        log_target: The logarithm of the target, up to a constant [m].
        laziness: The probability of no edit.
    """
    # A proposed edit is taken with probability min(1, π(y') P(y', y) / (π(y) P(y, y'))), which makes the flow
    # π(y) K(y, y') the smaller of π(y) P(y, y') and π(y') P(y', y), the same in both directions.
    there = proposal > 0
    odds = np.where(there, log_target[None, :] - log_target[:, None], 0.0)
    ratio = np.divide(proposal.T, proposal, out=np.zeros_like(proposal), where=there)
    # e^700 is near the largest double, and any factor so large is cut to 1 anyway.
    kernel: Floats = (1 - laziness) * proposal * np.minimum(1.0, ratio * np.exp(np.minimum(odds, 700.0)))
    # What is not edited, and what is rejected, stays.
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
