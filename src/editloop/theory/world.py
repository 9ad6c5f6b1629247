"""Worlds in which everything is known: finite responses, a reference, a user as a matrix of probabilities.

All quantities of the paper are computed by enumeration, in float64. The first axis of an array is that of
the contexts, C; responses are numbered 0 to m - 1; a user's kernel is q[x, y, y'], the probability that y is
edited into y'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh, null_space
from scipy.special import log_softmax

from editloop.errors import WorldError
from editloop.theory.distributions import (
    Floats,
    as_distribution,
    check_beta,
    check_distance,
    check_size,
    kl,
    kl_to,
    total_variation,
)

__all__ = ["Rows", "World"]

Numbers = NDArray[np.int64]

PART = 10_000
"""The rows of a log that are drawn at a time; each takes m numbers of memory."""


class Rows(NamedTuple):
    """A log of a world: four arrays of length n.

    Attributes:
        context: The numbers of the contexts.
        response: The numbers of the responses.
        edit: The numbers of the edits.
        cost: Δ(y, y').
    """

    context: Numbers
    response: Numbers
    edit: Numbers
    cost: Floats

    def first(self, n: int) -> Rows:
        """Return the first n rows of the log."""
        return Rows(self.context[:n], self.response[:n], self.edit[:n], self.cost[:n])


@dataclass(frozen=True, eq=False)
class World:
    """Contexts, responses, a reference policy and a user.

    Args:
        reference: π_ref(y|x), positive [C, m].
        distance: Δ(y, y') ≥ 0, zero for y = y' [m, m].
        kernel: q(y'|x, y) [C, m, m].
        beta: β > 0, in the unit of Δ.
        weights: ρ(x) [C]; None for equal weights.
        responses: What the responses are, by number.

    Raises:
        WorldError: An array has another shape or an impossible value, or the world is too large to enumerate.
    """

    reference: Floats
    distance: Floats
    kernel: Floats
    beta: float
    weights: Floats | None = None
    responses: Sequence[str] = ()

    def __post_init__(self) -> None:
        reference = as_distribution("the reference", self.reference)
        if reference.ndim != 2:
            raise WorldError("the reference has a row for each context", seen=reference.shape)
        contexts, m = reference.shape
        check_size(m)
        if not (reference > 0).all():
            raise WorldError(
                "the reference never writes some response, so that no policy near it reaches the optimum",
                seen=int(np.argwhere(reference <= 0)[0, 1]),
                do="leave that response out",
            )
        kernel = as_distribution("the user's kernel", self.kernel)
        if kernel.shape != (contexts, m, m):
            raise WorldError("a kernel has the shape [C, m, m]", seen=kernel.shape, do=f"{(contexts, m, m)}")
        weights = np.full(contexts, 1 / contexts) if self.weights is None else self.weights
        weights = as_distribution("the contexts' weights", weights)
        if weights.shape != (contexts,):
            raise WorldError("a weight for each context is needed", seen=weights.shape)
        if not (weights > 0).all():
            raise WorldError("a context cannot have weight 0", do="leave it out")
        check_beta(self.beta)
        for name, value in (("reference", reference), ("kernel", kernel), ("weights", weights)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "distance", check_distance(self.distance, m))

    @property
    def rho(self) -> Floats:
        """ρ(x) [C]."""
        assert self.weights is not None
        return self.weights

    def mean(self, by_context: Floats) -> float:
        """Return the mean of values by context, weighted by ρ [C]."""
        return float(np.dot(self.rho, by_context))

    # The optimum

    @cached_property
    def cost(self) -> Floats:
        """The cost c(x, y) = Σ_y' q(y'|x, y) Δ(y, y') [C, m]."""
        found: Floats = np.einsum("xyz,yz->xy", self.kernel, self.distance)
        return found

    @cached_property
    def log_optimum(self) -> Floats:
        """The log of the optimum, log π*_β(y|x), from π*_β ∝ π_ref e^{-c/β} [C, m]."""
        found: Floats = log_softmax(np.log(self.reference) - self.cost / self.beta, axis=1)
        return found

    @cached_property
    def optimum(self) -> Floats:
        """The optimum π*_β(y|x), the minimiser of J_β [C, m]."""
        found: Floats = np.exp(self.log_optimum)
        return found

    def objective(self, policy: ArrayLike) -> float:
        """Return J_β(π) = E[c + β log π/π_ref] of a policy [C, m]."""
        pi = self._policy(policy)
        # Where π is 0, its log is replaced by 0, so that π log π is 0 and not NaN.
        log_ratio = np.log(np.where(pi > 0, pi, 1.0)) - np.log(self.reference)
        return self.mean((pi * (self.cost + self.beta * log_ratio)).sum(axis=1))

    def suboptimality(self, policy: ArrayLike) -> float:
        """Return SubOpt(π) = J_β(π) - J_β(π*_β) of a policy [C, m]: β KL(π ‖ π*_β), so at least 0."""
        # With c = -β log π*/π_ref + const in J_β, this is all that is left of the difference. Computed as a
        # difference, it could come out below 0 by rounding.
        return self.beta * self.mean(kl_to(self._policy(policy), self.log_optimum))

    def edited(self, policy: ArrayLike) -> Floats:
        """Return q∘π, the distribution of the edits of a policy's responses [C, m]."""
        found: Floats = np.einsum("xy,xyz->xz", self._policy(policy), self.kernel)
        return found

    @cached_property
    def joint(self) -> Floats:
        """The probability ρ(x) π_ref(y|x) q(y'|x, y) of each row in an infinite log [C, m, m]."""
        pairs: Floats = self.reference[:, :, None] * self.kernel
        return self.rho[:, None, None] * pairs

    # How strong the user is, how far Assumption 1 holds

    @cached_property
    def gamma_min(self) -> float:
        """The largest γ for which q(y'|x, y) ≥ γ π*_β(y'|x) everywhere; at most 1."""
        # In logs, because π* may underflow where q does not. Both sum to 1 over y', so the ratio exceeds 1 by
        # rounding only. An edit that is impossible makes it 0: log 0 is minus infinity.
        with np.errstate(divide="ignore"):
            ratio = np.log(self.kernel) - self.log_optimum[:, None, :]
        return float(np.exp(min(ratio.min(), 0.0)))

    @cached_property
    def dobrushin(self) -> float:
        """The largest TV(q(·|x, y), q(·|x, z)), Dobrushin's coefficient of the kernel.

        It is the best factor by which an edit brings any two policies closer, at most 1 - γ_min (Lemma 1).
        """
        # Row by row: all pairs at once would take m³ numbers.
        worst = 0.0
        for kernel in self.kernel:
            for y in range(len(kernel) - 1):
                worst = max(worst, 0.5 * float(np.abs(kernel[y + 1 :] - kernel[y]).sum(axis=1).max()))
        return worst

    @cached_property
    def imbalance(self) -> float:
        """The largest ½ Σ |π*(y) q(y'|y) - π*(y') q(y|y')| over contexts; zero under Assumption 1."""
        flow = self.optimum[:, :, None] * self.kernel
        return 0.5 * float(np.abs(flow - flow.transpose(0, 2, 1)).sum(axis=(1, 2)).max())

    @cached_property
    def drift(self) -> float:
        """The largest TV(q∘π*, π*) over contexts: how far an edit moves the optimum (δ in the bounds).

        It is at most `imbalance`: what flows into a response less what flows out is the sum of the net flows
        whose absolute values `imbalance` adds up.
        """
        return float(total_variation(self.edited(self.optimum), self.optimum).max())

    @cached_property
    def log_imbalance(self) -> float:
        """The largest |log (π*(y) q(y'|y) / π*(y') q(y|y'))| over pairs that are edited into each other.

        It is infinite if a pair can be edited in one direction only.
        """
        flow = self.optimum[:, :, None] * self.kernel
        back = flow.transpose(0, 2, 1)
        if ((flow > 0) != (back > 0)).any():
            return float("inf")
        there = flow > 0
        return float(np.abs(np.log(flow[there]) - np.log(back[there])).max())

    # How well the log covers the optimum

    @cached_property
    def concentrability(self) -> float:
        """The largest π*_β(y|x) / π_ref(y|x): how rare the best responses are, at worst, in the log."""
        return float((self.optimum / self.reference).max())

    @cached_property
    def chi_square(self) -> float:
        """The χ² divergence of π* from π_ref, E_x Σ_y π*²/π_ref - 1."""
        return self.mean((self.optimum**2 / self.reference).sum(axis=1) - 1)

    @cached_property
    def preference_coverage(self) -> float:
        """C_PREF: how much larger an error in rewards can be under the optimum than in the log's pairs.

        It is the largest ratio, over functions f of the responses to a context, of E (f(y) - f(z))² for y and
        z from π* to E (f(y) - f(y'))² for y from π_ref and y' from q(·|y). It is infinite if the pairs leave
        some responses unconnected. The paper's own definition is not known to us (docs/theory.md).
        """
        # Both expectations are quadratic forms of f. The first is 2 Var f = 2 fᵀ(diag p - p pᵀ)f, the second
        # fᵀL f, with L the Laplacian of the graph whose edges are the pairs. Both are 0 for constants, so the
        # largest ratio is the largest generalised eigenvalue on their complement.
        worst = 0.0
        for reference, kernel, p in zip(self.reference, self.kernel, self.optimum, strict=True):
            pairs = reference[:, None] * kernel
            pairs = pairs + pairs.T
            differences = np.diag(pairs.sum(axis=1)) - pairs
            if len(p) == 1:  # all functions are constant
                continue
            basis = null_space(np.ones((1, len(p))))
            over = basis.T @ (2 * (np.diag(p) - np.outer(p, p))) @ basis
            under = basis.T @ differences @ basis
            # A function that is constant on each connected part, and not the same on all, has the form 0.
            if np.linalg.eigvalsh(under)[0] < 1e-14:
                return float("inf")
            worst = max(worst, float(eigh(over, under, eigvals_only=True)[-1]))
        return worst

    def divergence(self, policy: ArrayLike) -> dict[str, float]:
        """Return TV(π, π*), KL(π ‖ π*) and KL(π* ‖ π) of a policy [C, m], as means over contexts."""
        pi = self._policy(policy)
        return {
            "tv": self.mean(total_variation(pi, self.optimum)),
            "kl": self.mean(kl_to(pi, self.log_optimum)),
            "reverse_kl": self.mean(kl(self.optimum, pi)),
        }

    # A log

    def sample(self, n: int, rng: np.random.Generator, policy: ArrayLike | None = None) -> Rows:
        """Return a log of n rows: responses of the reference, or of another policy, and their edits."""
        pi = self.reference if policy is None else self._policy(policy)
        context = rng.choice(len(self.reference), size=n, p=self.rho).astype(np.int64)
        response = _draw(np.cumsum(pi, axis=1), (context,), rng)
        edit = _draw(np.cumsum(self.kernel, axis=2), (context, response), rng)
        return Rows(context, response, edit, self.distance[response, edit])

    def _policy(self, policy: ArrayLike) -> Floats:
        pi = as_distribution("a policy", policy)
        if pi.shape != self.reference.shape:
            raise WorldError(
                "a policy has the reference's shape", seen=pi.shape, do=f"{self.reference.shape}"
            )
        return pi


def _draw(steps: Floats, place: tuple[Numbers, ...], rng: np.random.Generator) -> Numbers:
    """Draw numbers from distributions in a table.

    Args:
        steps: The table: cumulative probabilities over the last axis [..., m].
        place: Which distribution each number is drawn from: an index [n] for each other axis.
        rng: Draws.

    Returns:
        int64 [n].
    """
    found = np.empty(len(place[0]), np.int64)
    for start in range(0, len(found), PART):
        some = slice(start, start + PART)
        rows = steps[tuple(each[some] for each in place)]
        # The last sum may miss 1 by rounding, so the draws are scaled by it. A draw that is rounded up to the
        # sum would run off the end.
        draws = rng.random(len(rows))[:, None] * rows[:, -1:]
        found[some] = np.minimum((draws >= rows).sum(axis=1), rows.shape[1] - 1)
    return found
