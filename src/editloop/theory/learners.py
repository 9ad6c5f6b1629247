"""The paper's offline learners in the tabular class: every policy over m responses can be expressed.

Each learns from the counts of a log, or from the probabilities that their shares tend to; from those it
returns its limit as the log grows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import log_expit, log_softmax

from editloop.errors import WorldError
from editloop.theory.distributions import Floats
from editloop.theory.world import Rows, World

__all__ = ["LEARNERS", "METHODS", "Seen", "dpo", "early", "limit", "rl", "seen", "sft"]

RIDGE = 0.1
"""Keeps DPO's log-ratios finite where the log does not determine them; its part in the loss falls as 1/n."""

CONVERGED = 1e-12
"""The largest step of a log-ratio with which Newton's method ends."""


class Seen(NamedTuple):
    """The statistics of a log that the learners use.

    Attributes:
        pairs: The number of rows with response y and edit y', or their probabilities [C, m, m].
        costs: The sum of the costs of each response [C, m].
    """

    pairs: Floats
    costs: Floats


def seen(world: World, rows: Rows | None = None) -> Seen:
    """Return the statistics of a log; without one, those of an infinite log of the reference's responses."""
    if rows is None:
        pairs = world.joint
        return Seen(pairs, (pairs * world.distance).sum(axis=2))
    contexts, m = world.reference.shape
    place = (rows.context * m + rows.response) * m + rows.edit
    pairs = np.bincount(place, minlength=contexts * m * m).reshape(contexts, m, m).astype(np.float64)
    return Seen(pairs, (pairs * world.distance).sum(axis=2))


def sft(world: World, data: Seen) -> Floats:
    """Return the optimum of Eq. 3: each response's share of the edits; the reference without edits [C, m]."""
    counts = data.pairs.sum(axis=1)
    total = counts.sum(axis=1, keepdims=True)
    policy: Floats = np.where(total > 0, counts / np.where(total > 0, total, 1.0), world.reference)
    return policy


def dpo(world: World, data: Seen, *, strength: float = 1.0, ridge: float = RIDGE) -> Floats:
    """Return the policy that minimises Eq. 4 [C, m].

    Under Assumption 1, edits y' are preferred to responses y of π_ref as in the model of Bradley and Terry
    with the reward log π*_β/π_ref at temperature 1 (docs/theory.md). So DPO's limit is the optimum for the
    default strength, the factor of the log-ratios in Eq. 4; for another strength it is π_ref
    (π*_β/π_ref)^(1/strength).

    Args:
        world: The world, for its reference.
        data: The statistics of a log.
        strength: DPO's β.
        ridge: The weight of ½ |strength · log π/π_ref|² beside the sum over rows.

    Raises:
        WorldError: The strength is not positive.
    """
    if not strength > 0:
        raise WorldError("DPO's β must be positive", seen=strength)
    # Eq. 4 depends on strength · log π/π_ref alone, so it is solved for these products.
    log_ratios = np.array([_bradley_terry(pairs, ridge) for pairs in data.pairs]) / strength
    policy: Floats = np.exp(log_softmax(np.log(world.reference) + log_ratios, axis=1))
    return policy


def rl(world: World, data: Seen, *, kappa: float = 1.0) -> Floats:
    """Return the policy of Eq. 5 and 6, ∝ π_ref e^{-f/β} with a pessimistic cost f [C, m].

    f is the mean observed cost of a response (in the tabular class, the minimiser of Eq. 5) plus κ times the
    largest standard error that it can have, R / (2 √N), where R is the largest cost. It is R for a response
    that was never observed.
    """
    # A variable in [0, R] has a standard deviation of at most R/2.
    counts = data.pairs.sum(axis=2)
    worst = world.distance.max()
    mean = np.where(counts > 0, data.costs / np.where(counts > 0, counts, 1.0), worst)
    doubt = np.where(counts > 0, kappa * worst / (2 * np.sqrt(np.where(counts > 0, counts, 1.0))), 0.0)
    f = np.minimum(mean + doubt, worst)
    policy: Floats = np.exp(log_softmax(np.log(world.reference) - f / world.beta, axis=1))
    return policy


def early(world: World, data: Seen, *, weight: float = 1.0, ridge: float = RIDGE) -> Floats:
    """Return the policy that minimises Eq. 7, SFT's loss plus `weight` (λ) times DPO's [C, m]."""
    log_ratios = np.array(
        [
            _bradley_terry(pairs, ridge, weight, pairs.sum(axis=0), np.log(reference))
            for pairs, reference in zip(data.pairs, world.reference, strict=True)
        ]
    )
    policy: Floats = np.exp(log_softmax(np.log(world.reference) + log_ratios, axis=1))
    return policy


LEARNERS: Mapping[str, Callable[..., Floats]] = {"sft": sft, "dpo": dpo, "rl": rl, "early": early}
"""The learners by name; each takes a world and the statistics of its log."""

METHODS = tuple(LEARNERS)


def limit(world: World, method: str, **options: float) -> Floats:
    """Return what a method learns from an infinite log [C, m].

    Raises:
        WorldError: There is no such method.
    """
    if method == "rl":
        return world.optimum  # it observes the costs themselves, for any user
    if method not in METHODS:
        raise WorldError("no such method", seen=method, do=f"choose one of {', '.join(METHODS)}")
    exact = {} if method == "sft" else {"ridge": 0.0}
    return LEARNERS[method](world, seen(world), **(exact | options))


def _bradley_terry(
    pairs: Floats,
    ridge: float,
    weight: float = 1.0,
    labels: Floats | None = None,
    log_reference: Floats | float = 0.0,
) -> Floats:
    """Return the log-ratios v [m] of mean 0 that minimise the loss of Eq. 4, plus that of Eq. 3 given labels.

    The loss is

        -weight Σ pairs[y, y'] log σ(v[y'] - v[y])
        - Σ labels[y] log softmax(log_reference + v)[y] + ridge |v|²/2.

    It is convex, and minimised by Newton's method; a step that goes too far is halved.

    Args:
        pairs: The number of rows with each response and edit [m, m].
        ridge: See above; 0 only if the pairs connect all responses.
        weight: See above.
        labels: The counts of edits; None leaves out Eq. 3 [m].
        log_reference: log π_ref [m].
    """
    m = len(pairs)
    # Shares instead of counts, so that the thresholds fit every size. Unedited rows have a constant loss.
    total = float(pairs.sum()) or 1.0
    apart, ridge = weight * pairs * (1 - np.eye(m)) / total, ridge / total
    label = None if labels is None else labels / total

    def loss(v: Floats) -> float:
        value = -float((apart * log_expit(v[None, :] - v[:, None])).sum()) + 0.5 * ridge * float(v @ v)
        if label is not None:
            value -= float(label @ log_softmax(log_reference + v))
        return value

    v = np.zeros(m)
    for _ in range(200):
        towards = np.exp(log_expit(v[:, None] - v[None, :]))  # σ(-(v[y'] - v[y]))
        pull = apart * towards
        gradient = pull.sum(axis=1) - pull.sum(axis=0) + ridge * v
        curve = pull * (1 - towards)
        curve = curve + curve.T
        hessian = np.diag(curve.sum(axis=1)) - curve + ridge * np.eye(m)
        if label is not None:
            p = np.exp(log_softmax(log_reference + v))
            gradient += label.sum() * p - label
            hessian += label.sum() * (np.diag(p) - np.outer(p, p))
        # Apart from the ridge, the loss does not change with a constant that is added to v. The matrix 1/m
        # fixes it without another effect: the gradient has mean 0, and so has the step. Least squares, since
        # the Hessian is singular where the pairs leave responses unconnected.
        step = np.linalg.lstsq(hessian + np.full((m, m), 1.0 / m), gradient, rcond=None)[0]
        before, share = loss(v), 1.0
        while loss(v - share * step) > before and share > 1e-10:
            share /= 2
        v = v - share * step
        # A gradient of about 4e-15 is rounding: where the loss is flat, steps would stay above the threshold.
        if float(np.abs(share * step).max()) < CONVERGED or float(np.abs(gradient).max()) < CONVERGED**1.2:
            break
    centred: Floats = v - v.mean()
    return centred
