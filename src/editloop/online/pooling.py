"""How much the experience of other scopes with an arm is worth to one scope.

**The model.** Scope s has a true mean cost μ_s of the arm, and the μ_s spread by τ² around a common mean.
Each cost is spread by σ² around its scope's mean. Scope s has seen n_s costs with the sum C_s.

**The worth.** The others' pooled mean m = Σ C_s / n, over all scopes but the one that asks and with n = Σ
n_s, predicts the mean μ_0 of the scope that asks with the variance

    v = Var(μ_0 − m) = τ² + σ²/n + τ² Σ n_s² / n² :

the spread of μ_0 itself, the noise of the costs in m, and the spread of the scopes in m, which is large where
few scopes have most of the pulls. A mean over k pulls of the scope's own would have variance σ²/k, so the
pooled mean is worth k = σ²/v pulls: many if the scopes are alike (τ² small), few if they differ.

**The estimates** are by the method of moments (DerSimonian and Laird 1986). σ² is the mean square within the
scopes. The sum of squares between the scopes, Σ C_s²/n_s − C²/n over all scopes, has the expectation
(S − 1) σ² + τ² (n − Σ n_s²/n) with S scopes; solved for τ², and not below 0.

**The shrinkage.** Both estimates are poor at the beginning. σ² starts from `VARIANCE`, which counts as one
observation, and τ² is divided by `EXTRA_FREEDOM` more than the formula says, so that scopes count as alike
until enough pulls have shown that they differ.
"""

from __future__ import annotations

from typing import Literal

from editloop.online.tallies import Pool, Tally

__all__ = ["pooled_strength"]

POOL_CAP = 20.0
"""Most pulls that the other scopes' experience of an arm can count for."""

VARIANCE = 0.05
"""The variance of costs of unit scale around their scope's mean that is assumed before any cost is seen."""

EXTRA_FREEDOM = 3
"""Added to n − Σ n_s²/n where τ² is estimated."""


def pooled_strength(
    pool: Pool, tally: Tally, strength: float | Literal["learned"], known: float, *, scale: float = 1.0
) -> float:
    """Return how many pulls the other scopes' mean cost of an arm is worth to one scope.

    Args:
        pool: The arm over all scopes; another scope than the one that asks must have finished a pull of it.
        tally: The arm in the scope that asks.
        strength: `learned` (at most `POOL_CAP` pulls), or a number of pulls.
        known: The pulls behind that mean: those that the other scopes have observed, and those that count as
            abandoned.
        scale: The scale of the cost.

    Returns:
        At most `known`.
    """
    others = pool.observed - tally.observed
    if strength != "learned":
        return min(strength, known)
    if others <= 1e-6:  # all of them were abandoned, and costs whose spread would tell more are not known
        return min(known, POOL_CAP)
    # σ²: the squares around the scopes' means, Σ c² − Σ C_s²/n_s, by their degrees of freedom n − S. Rounding
    # may leave the difference of two equal sums below 0, and with a discount n may be less than S.
    within = max(pool.square - pool.between, 0.0)
    variance = (within + VARIANCE * scale * scale) / (max(pool.observed - pool.scopes, 0.0) + 1)
    # τ²: what the scopes' means differ by beyond the noise that σ² alone would give them.
    spread = pool.between - pool.cost * pool.cost / pool.observed - (pool.scopes - 1) * variance
    freedom = max(pool.observed - pool.observed_square / pool.observed, 0.0)
    tau_squared = max(spread, 0.0) / (freedom + EXTRA_FREEDOM)
    # Σ n_s²/n² over the other scopes: 1 if a single one has all the pulls, 1/S if they are even.
    uneven = max(pool.observed_square - tally.observed * tally.observed, 0.0) / (others * others)
    worth = variance / (tau_squared + variance / others + tau_squared * uneven)
    return min(worth * known / others, known, POOL_CAP)
