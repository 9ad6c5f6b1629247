"""What is known of a new arm before it is played: the evidence on the arm that it was made from.

A policy that is fitted again from a little more data differs little from the one before, on which hundreds of
edits were seen. Let m be the mean cost of the parent over N pulls, and let the new arm be expected to cost δ̂
more, with the standard error ε. Then its own mean cost is m + δ̂, with the variance σ²/N + ε², where σ² is the
variance of a cost. A mean over k pulls of its own would have σ²/k, so that the parent's evidence is worth

    k = σ² / (σ²/N + ε²) = N κ / (N + κ),        κ = σ²/ε².

κ is the most that it can be worth, however much is known of the parent: the change is not known better. How
far two policies differ is measured by their drafts for the same requests
(`editloop.autopilot.inheritance`).

Both numbers are asked for at each choice, for the scope that asks. So what is learned later of the parent
counts, too, and a user's own past with it. What features say (`editloop.online.slopes`) is taken over once,
when the arm begins.
"""

from __future__ import annotations

from editloop.online.events import Heir

__all__ = ["inherited"]


def inherited(heir: Heir, known: float, cost: float, bound: float) -> tuple[float, float]:
    """Return what the parent's evidence counts for: the pulls, and their mean cost.

    Args:
        heir: What the arm begins with.
        known: The pulls N that are known of the parent in the scope that asks.
        cost: Their summed cost.
        bound: The most that a cost counts for.
    """
    if known <= 0 or heir.pulls <= 0:
        return 0.0, 0.0
    return known * heir.pulls / (known + heir.pulls), min(max(0.0, cost / known + heir.change), bound)
