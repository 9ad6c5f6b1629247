"""Worlds in which everything is known: finite responses, a reference, a user as a matrix of probabilities.

All quantities of the paper are computed here by enumeration, in float64. Arrays have a context axis C first;
responses are numbered 0 to m - 1; a user's kernel is q[x, y, y'], the probability that y becomes y'.
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

__all__ = ["LARGEST", "Rows", "World", "as_distribution", "kl", "total_variation"]

LARGEST = 2_000
"""Most responses: a kernel of more does not fit into memory comfortably (8 m² bytes for each context)."""

SUM = 1e-9
"""By how much probabilities may miss 1."""

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


class Rows(NamedTuple):
    """A log of a world: four arrays of length n.

    Attributes:
        context: Numbers of contexts.
        response: Numbers of responses.
        edit: Numbers of what they became.
        cost: Δ(y, y').
    """

    context: Numbers
    response: Numbers
    edit: Numbers
    cost: Floats

    def first(self, n: int) -> Rows:
        """The log as it was after n rows."""
        return Rows(self.context[:n], self.response[:n], self.edit[:n], self.cost[:n])


@dataclass(frozen=True, eq=False)
class World:
    """Contexts, responses, a reference policy and a user.

    Args:
        reference: π_ref(y|x), positive [C, m].
        distance: Δ(y, y') ≥ 0, zero where y = y' [m, m].
        kernel: q(y'|x, y) [C, m, m].
        beta: β > 0, in the unit of Δ.
        weights: ρ(x) [C]; None for all alike.
        responses: What the numbers stand for.

    Raises:
        WorldError: Not of these shapes or values, or too large to enumerate.
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
                "the reference never gives some response, so that no policy near it reaches the optimum",
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
            raise WorldError("a context that never comes is none of the world's", do="leave it out")
        check_beta(self.beta)
        for name, value in (("reference", reference), ("kernel", kernel), ("weights", weights)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "distance", check_distance(self.distance, m))

    @property
    def rho(self) -> Floats:
        """ρ(x) [C]: the weights, which are there by now."""
        assert self.weights is not None
        return self.weights

    # The optimum

    @cached_property
    def cost(self) -> Floats:
        """c(x, y) = Σ_y' q(y'|x, y) Δ(y, y') [C, m]."""
        found: Floats = np.einsum("xyz,yz->xy", self.kernel, self.distance)
        return found

    @cached_property
    def log_optimum(self) -> Floats:
        """log π*_β(y|x), from π*_β ∝ π_ref e^{-c/β} [C, m]."""
        found: Floats = log_softmax(np.log(self.reference) - self.cost / self.beta, axis=1)
        return found

    @cached_property
    def optimum(self) -> Floats:
        """π*_β(y|x) [C, m]."""
        found: Floats = np.exp(self.log_optimum)
        return found

    def objective(self, policy: ArrayLike) -> float:
        """J_β(π) = E[c + β log π/π_ref] of a policy [C, m]."""
        pi = self._policy(policy)
        log_ratio = np.log(np.where(pi > 0, pi, 1.0)) - np.log(self.reference)
        return self.mean((pi * (self.cost + self.beta * log_ratio)).sum(axis=1))

    def suboptimality(self, policy: ArrayLike) -> float:
        """SubOpt(π) = J_β(π) - J_β(π*_β) of a policy [C, m], which is β KL(π ‖ π*_β): never negative."""
        return self.beta * self.mean(_kl_to(self._policy(policy), self.log_optimum))

    def edited(self, policy: ArrayLike) -> Floats:
        """q∘π: what becomes of a policy's responses [C, m]."""
        found: Floats = np.einsum("xy,xyz->xz", self._policy(policy), self.kernel)
        return found

    @cached_property
    def joint(self) -> Floats:
        """ρ(x) π_ref(y|x) q(y'|x, y): the shares of an endless log [C, m, m]."""
        pairs: Floats = self.reference[:, :, None] * self.kernel
        return self.rho[:, None, None] * pairs

    # How strong the user is, how far Assumption 1 holds

    @cached_property
    def gamma_min(self) -> float:
        """The largest γ for which q(y'|x, y) ≥ γ π*_β(y'|x) everywhere; at most 1."""
        with np.errstate(divide="ignore"):
            ratio = np.log(self.kernel) - self.log_optimum[:, None, :]
        return min(float(np.exp(min(ratio.min(), 0.0))), 1.0)

    @cached_property
    def dobrushin(self) -> float:
        """max TV(q(·|x, y), q(·|x, z)): the best factor by which any two policies come closer."""
        worst = 0.0
        for kernel in self.kernel:
            for y in range(len(kernel) - 1):
                worst = max(worst, 0.5 * float(np.abs(kernel[y + 1 :] - kernel[y]).sum(axis=1).max()))
        return worst

    @cached_property
    def imbalance(self) -> float:
        """max_x ½ Σ |π*(y) q(y'|y) - π*(y') q(y|y')|: zero where Assumption 1 holds, at most 1."""
        flow = self.optimum[:, :, None] * self.kernel
        return 0.5 * float(np.abs(flow - flow.transpose(0, 2, 1)).sum(axis=(1, 2)).max())

    @cached_property
    def drift(self) -> float:
        """max_x TV(q∘π*, π*): how far one edit carries the optimum away from itself; at most `imbalance`."""
        return float(total_variation(self.edited(self.optimum), self.optimum).max())

    @cached_property
    def log_imbalance(self) -> float:
        """max |log (π*(y) q(y'|y) / π*(y') q(y|y'))| over pairs that are edited into each other.

        Infinite where only one of the two is possible.
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
        """max π*_β(y|x) / π_ref(y|x): how rare, at the worst, what one should do is in the log."""
        return float((self.optimum / self.reference).max())

    @cached_property
    def chi_square(self) -> float:
        """E_x Σ_y π*²/π_ref - 1."""
        return self.mean((self.optimum**2 / self.reference).sum(axis=1) - 1)

    @cached_property
    def preference_coverage(self) -> float:
        """C_PREF: by how much an error in rewards can be larger where the optimum is than in the log's pairs.

        The largest E (f(y) - f(z))² for y, z ~ π* over E (f(y) - f(y'))² for y ~ π_ref, y' ~ q(·|y); infinite
        where the pairs leave some responses unconnected.
        """
        worst = 0.0
        for reference, kernel, p in zip(self.reference, self.kernel, self.optimum, strict=True):
            pairs = reference[:, None] * kernel
            pairs = pairs + pairs.T
            differences = np.diag(pairs.sum(axis=1)) - pairs
            if len(p) == 1:
                continue
            basis = null_space(np.ones((1, len(p))))
            over = basis.T @ (2 * (np.diag(p) - np.outer(p, p))) @ basis
            under = basis.T @ differences @ basis
            if np.linalg.eigvalsh(under)[0] < 1e-14:
                return float("inf")
            worst = max(worst, float(eigh(over, under, eigvals_only=True)[-1]))
        return worst

    def divergence(self, policy: ArrayLike) -> dict[str, float]:
        """TV(π, π*), KL(π ‖ π*) and KL(π* ‖ π), means over contexts, of a policy [C, m]."""
        pi = self._policy(policy)
        return {
            "tv": self.mean(total_variation(pi, self.optimum)),
            "kl": self.mean(_kl_to(pi, self.log_optimum)),
            "reverse_kl": self.mean(kl(self.optimum, pi)),
        }

    # A log

    def sample(self, n: int, rng: np.random.Generator, policy: ArrayLike | None = None) -> Rows:
        """A log of n rows: responses of the reference, or of another policy, and their edits."""
        pi = self.reference if policy is None else self._policy(policy)
        context = rng.choice(len(self.reference), size=n, p=self.rho).astype(np.int64)
        response = _draw(np.cumsum(pi, axis=1)[context], rng)
        edit = np.empty(n, np.int64)
        steps = np.cumsum(self.kernel, axis=2)
        for start in range(0, n, 10_000):  # rows of kernels are long
            some = slice(start, start + 10_000)
            edit[some] = _draw(steps[context[some], response[some]], rng)
        return Rows(context, response, edit, self.distance[response, edit])

    def _policy(self, policy: ArrayLike) -> Floats:
        pi = as_distribution("a policy", policy)
        if pi.shape != self.reference.shape:
            raise WorldError(
                "a policy has the reference's shape", seen=pi.shape, do=f"{self.reference.shape}"
            )
        return pi

    def mean(self, by_context: Floats) -> float:
        """E_x of values [C]."""
        return float(np.dot(self.rho, by_context))


def total_variation(p: Floats, q: Floats) -> Floats:
    """½ Σ |p - q| over the last axis."""
    distance: Floats = 0.5 * np.abs(p - q).sum(axis=-1)
    return distance


def kl(p: Floats, q: Floats) -> Floats:
    """KL(p ‖ q) over the last axis, where 0 log 0 = 0; summed so that it is never negative.

    Each term is p log p/q - p + q, which is at least 0; the added parts sum to 0.
    """
    with np.errstate(divide="ignore"):
        return _kl_to(p, np.log(q))


def _kl_to(p: Floats, log_q: Floats) -> Floats:
    """The same, of a distribution that is given by its logarithms: they may be too small for itself."""
    log_p = np.log(np.where(p > 0, p, 1.0))
    terms = np.where(p > 0, p * (log_p - log_q), 0.0) - p + np.exp(log_q)
    divergence: Floats = np.maximum(terms, 0.0).sum(axis=-1)
    return divergence


def as_distribution(what: str, given: ArrayLike) -> Floats:
    """Probabilities that sum to 1 over the last axis.

    Raises:
        WorldError: They do not, or one is negative or not finite.
    """
    values = np.asarray(given, np.float64)
    if values.ndim == 0 or values.size == 0 or not np.isfinite(values).all():
        raise WorldError(f"{what} holds no numbers, or not finite ones")
    if (values < 0).any():
        raise WorldError(f"{what} has a negative probability", seen=float(values.min()))
    sums = values.sum(axis=-1)
    if (np.abs(sums - 1) > SUM).any():
        worst = float(sums.flat[np.abs(sums - 1).argmax()])
        raise WorldError(f"{what} does not sum to 1", seen=worst, do="normalise it")
    return values


def check_beta(beta: float) -> None:
    """Refuse a β that is no positive number.

    Raises:
        WorldError: It is not.
    """
    if not (np.isfinite(beta) and beta > 0):
        raise WorldError("β must be positive: without it the optimum is no distribution", seen=beta)


def check_distance(given: ArrayLike, m: int) -> Floats:
    """Δ [m, m].

    Raises:
        WorldError: Of another shape, negative, not finite, or not zero where nothing is edited.
    """
    distance = np.asarray(given, np.float64)
    if distance.shape != (m, m):
        raise WorldError("a distance has the shape [m, m]", seen=distance.shape, do=f"{(m, m)}")
    if not np.isfinite(distance).all() or (distance < 0).any() or np.diagonal(distance).any():
        raise WorldError("a distance is finite, not negative, and zero where nothing is edited")
    return distance


def check_size(m: int) -> None:
    """Refuse what cannot be enumerated.

    Raises:
        WorldError: More than `LARGEST` responses.
    """
    if m > LARGEST:
        raise WorldError(
            f"too large to enumerate: {m} responses, at most {LARGEST}", do="use shorter or fewer strings"
        )


def _draw(steps: Floats, rng: np.random.Generator) -> Numbers:
    """One number for each row of cumulated probabilities [n, m]."""
    draws = rng.random(len(steps))[:, None] * steps[:, -1:]
    found: Numbers = np.minimum((draws >= steps).sum(axis=1), steps.shape[1] - 1)
    return found
