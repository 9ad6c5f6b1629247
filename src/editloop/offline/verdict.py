"""The verdict of a report: one sentence that says which policy to serve, and the reasons for it.

It is computed from costs and their standard errors alone. Two policies are called equally good if their costs
differ by at most two standard errors of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from editloop.offline.scoring import Estimate

__all__ = ["Verdict", "is_within_error", "listed", "run_verdict", "short_cost"]

STANDARD_ERRORS = 2.0
"""Standard errors of a difference within which two policies are called equally good."""

FEWEST_ROWS = 10
"""With fewer rows there is no verdict, because their standard errors are themselves too uncertain."""


@dataclass(frozen=True)
class Verdict:
    """What to do, and why.

    Attributes:
        headline: One sentence.
        reasons: Further sentences: the figures, their errors, and which policies are equally good.
    """

    headline: str
    reasons: tuple[str, ...] = ()


def is_within_error(difference: float, standard_error: float) -> bool:
    """Whether the difference of two costs is at most two standard errors."""
    return abs(difference) <= STANDARD_ERRORS * standard_error


def short_cost(value: float) -> str:
    """A cost with two digits after the point and no zero before it: .05."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def listed(words: Sequence[str]) -> str:
    """Words joined for a sentence: a, b and c. There must be at least one."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def run_verdict(
    base: Estimate | None, policies: Mapping[str, Estimate | None], warned: Sequence[str] = ()
) -> Verdict:
    """The verdict on the policies of a run.

    Args:
        base: Mean cost between sampled responses of the base and the edits of the validation rows.
        policies: The same for each policy; None where nothing was sampled.
        warned: Policies whose training raised an alarm.
    """
    costs = {name: cost for name, cost in policies.items() if cost and math.isfinite(cost.mean)}
    if not costs:
        return Verdict(
            "No verdict: no responses were sampled.",
            ("Fit again with samples, or evaluate the run on a held-out log.",),
        )
    best = min(costs, key=lambda name: costs[name].mean)
    chosen = costs[best]
    if chosen.n < FEWEST_ROWS:
        return Verdict(
            f"No verdict: {chosen.n} validation rows are too few.",
            (f"At least {FEWEST_ROWS} are needed; give a longer log, or evaluate the run on another one.",),
        )
    figures = f"On {chosen.n} validation rows the responses of {best} cost {_shown(chosen)}"
    held_out = (
        "The weights were chosen on the same validation rows; for the cost on new rows, evaluate the run on "
        "a held-out log."
    )
    peers = _peers(best, costs)
    if base is None:
        return Verdict(
            f"Serve {best}: {short_cost(chosen.mean)}, the lowest cost.",
            (f"{figures}; those of the base were not sampled.", *peers, held_out),
        )
    # This is the error of a difference of independent samples. Both are of the same rows, so the true error
    # is mostly smaller, and the verdict errs on the side of keeping the base.
    gain, error = base.mean - chosen.mean, math.hypot(base.se, chosen.se)
    figures += f", those of the base {_shown(base)}: a difference of {gain:.3f} ± {error:.3f}."
    if gain <= 0 or is_within_error(gain, error):
        return Verdict(
            "Keep the base: no policy costs significantly less.", (figures, "A longer log may show more.")
        )
    change = f"{short_cost(base.mean)} to {short_cost(chosen.mean)}"
    alarm = ", but read its alarm first" if best in warned else ""
    return Verdict(f"Serve {best}: {change}{alarm}.", (figures, *peers, held_out))


def _peers(best: str, costs: Mapping[str, Estimate]) -> list[str]:
    """A sentence on the policies that are equally good; none if no other policy was sampled."""
    others = {name: cost for name, cost in costs.items() if name != best}
    chosen = costs[best]
    equal = [
        name
        for name, cost in others.items()
        if is_within_error(cost.mean - chosen.mean, math.hypot(cost.se, chosen.se))
    ]
    if equal:
        return [f"Equally good, within two standard errors of it: {listed(equal)}."]
    return ["No other policy is within two standard errors of it."] if others else []


def _shown(cost: Estimate) -> str:
    return f"{cost.mean:.3f} ± {cost.se:.3f}"
