"""Theory for a learner's SubOpt: its limit for an infinite log, and how fast it approaches it.

The derivations are in docs/theory.md. Asymptotic terms are means over logs of n rows, to first order in 1/n,
in the tabular class. Bounds hold for every log.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit

from editloop.theory.distributions import Floats, total_variation
from editloop.theory.learners import seen
from editloop.theory.world import World

__all__ = ["dpo_bias", "dpo_term", "lemma_1", "rl_term", "sft_bias", "sft_term"]


def lemma_1(world: World, policy: Floats) -> tuple[Floats, Floats]:
    """Return both sides of Lemma 1 for a policy, by context: TV(q∘π, π*), and (1 - γ_min) TV(π, π*) + δ.

    δ = TV(q∘π*, π*) is what a violation of Assumption 1 adds to the lemma; under the assumption it is zero.
    """
    left = total_variation(world.edited(policy), world.optimum)
    delta = total_variation(world.edited(world.optimum), world.optimum)
    return left, (1 - world.gamma_min) * total_variation(policy, world.optimum) + delta


def sft_bias(world: World) -> float:
    """Return a bound on SFT's SubOpt in the limit, for any user.

    It is β E_x log(1 + 2 d²/π*_min(x)), with d = (1 - γ_min) TV(π_ref, π*) + δ(x) from Lemma 1: SFT tends to
    q∘π_ref, KL ≤ log(1 + χ²), and χ² ≤ 2 d²/π*_min. This is Theorem 1's dependence with a constant.
    """
    _, distance = lemma_1(world, world.reference)
    by_context = np.log1p(2 * distance**2 / world.optimum.min(axis=1))
    return world.beta * world.mean(by_context)


def dpo_bias(world: World) -> float:
    """Return a bound on DPO's SubOpt in the limit, for any user: β ((m - 1) ε)²/8, ε the log-imbalance.

    Sorted, the errors of DPO's log-ratios rise by at most ε from one response to the next. So their range is
    at most (m - 1) ε, and KL to a tilt of range r is at most r²/8. The bound is infinite if the pairs leave
    some responses unconnected, which DPO then cannot compare.
    """
    if math.isinf(world.preference_coverage):
        return math.inf
    m: int = world.reference.shape[1]
    return world.beta * ((m - 1) * world.log_imbalance) ** 2 / 8


def sft_term(world: World, n: int) -> float:
    """Return what sampling adds to SFT's SubOpt with n rows: β Σ_x (m_x - 1)/(2n), m_x the possible edits."""
    # The weights ρ(x) cancel, here and below: a context has n ρ(x) rows, and its term the weight ρ(x).
    possible = (world.edited(world.reference) > 0).sum(axis=1)
    return world.beta * float((possible - 1).sum()) / (2 * n)


def dpo_term(world: World, n: int) -> float:
    """Return DPO's SubOpt with n rows under Assumption 1: β Σ_x tr(V_x I_x⁺)/(2n).

    It is infinite if the pairs leave responses unconnected. V_x is the covariance of π*'s indicators, I_x
    the Fisher information of one row of the context.
    """
    if math.isinf(world.preference_coverage):
        return math.inf
    total = 0.0
    for x, pairs in enumerate(seen(world).pairs):
        v = world.log_optimum[x] - np.log(world.reference[x])  # the reward of Bradley-Terry at the optimum
        # Unedited rows compare nothing. Each other row has the information σ(d) σ(-d) on the difference d of
        # its rewards, so I_x is a weighted Laplacian, with the constants as its null space.
        apart = pairs / pairs.sum() * (1 - np.eye(len(v)))
        difference = v[None, :] - v[:, None]
        curve = apart * expit(difference) * expit(-difference)
        curve = curve + curve.T
        information = np.diag(curve.sum(axis=1)) - curve
        p = world.optimum[x]
        total += float(np.trace((np.diag(p) - np.outer(p, p)) @ np.linalg.pinv(information, rcond=1e-14)))
    return world.beta * total / (2 * n)


def rl_term(world: World, n: int) -> float:
    """Return RL's SubOpt with n rows and κ = 0: Σ_x Σ_y π*(1 - π*) Var(Δ|x, y)/π_ref / (2 β n).

    f̂(x, y) is a mean of n ρ π_ref costs, and β KL between the optima of two costs is, to second order, the
    variance under π* of their difference / (2 β).
    """
    # Rounding may leave the difference E Δ² - c² of an edit with one possible cost below 0.
    second = np.einsum("xyz,yz->xy", world.kernel, world.distance**2)
    variance = np.maximum(second - world.cost**2, 0.0)
    p = world.optimum
    return float((p * (1 - p) * variance / world.reference).sum()) / (2 * world.beta * n)
