"""The verdict of the demo: which method to train, whichever of the two users wrote the log.

All policies answer the same contexts, so that two of them are compared by the differences of their costs,
context by context. The method that is recommended is the one whose cost is least far above the best of a log
on the log where it is farthest (the paper's largest suboptimality).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.offline.verdict import Verdict, is_within_error, listed, short_cost

__all__ = ["Difference", "demo_verdict"]

Costs = NDArray[np.float64]

BOUND = 1.0
"""The limit on what a cost counts where methods are chosen: the cost of rewriting a whole draft."""


class Difference(NamedTuple):
    """The mean difference of costs on the same contexts, and its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, costs: Costs, others: Costs) -> Difference:
        """Return how much `costs` are above `others` [n]."""
        # Paired by context: the differences between contexts, which are large, cancel.
        differences = costs - others
        return cls(float(differences.mean()), float(differences.std(ddof=1) / len(differences) ** 0.5))

    @property
    def is_within_error(self) -> bool:
        """Whether the difference is at most two standard errors."""
        return is_within_error(self.mean, self.standard_error)

    def __str__(self) -> str:
        direction = "more" if self.mean > 0 else "less"
        return f"{short_cost(abs(self.mean))} ± {short_cost(self.standard_error)} {direction}"


def demo_verdict(
    base: Costs, trained: Mapping[str, Mapping[str, Costs]], online: Mapping[str, float]
) -> Verdict:
    """Return the verdict on the methods.

    Args:
        base: The costs of the base to the user who evaluates [n].
        trained: The costs of each policy to the same user, by the user of the log and by method [n].
        online: The mean cost of a round in which LateEnsemble chose, by the user of the log.
    """
    logs = list(trained)
    methods = list(trained[logs[0]])
    # A near-empty draft can cost 20 times its length. With bounded costs, one such draft does not decide.
    bounded = {log: {m: float(np.minimum(c, BOUND).mean()) for m, c in trained[log].items()} for log in logs}
    excess = {m: max(bounded[log][m] - min(bounded[log].values()) for log in logs) for m in methods}
    chosen = min(excess, key=lambda method: excess[method])
    changes = {log: Difference.of(trained[log][chosen], base) for log in logs}
    helped = [log for log in logs if changes[log].mean < 0 and not changes[log].is_within_error]
    reasons = [
        f"Every policy drafted for the same {len(base)} fresh contexts. Differences are means ± standard "
        "error; within two standard errors policies are called equally good. The choice counts a cost above "
        f"{BOUND:g} as {BOUND:g}.",
        *(_of_log(log, chosen, trained[log], changes[log]) for log in logs),
        _over_logs(chosen, trained),
        "Choosing among the policies online, without knowing any of this beforehand (LateEnsemble), cost "
        + listed([f"{short_cost(online[log])} a round with those of the {log} user's log" for log in online])
        + ".",
    ]
    return Verdict(_headline(chosen, float(base.mean()), trained, helped), tuple(reasons))


def _headline(chosen: str, base: float, trained: Mapping[str, Mapping[str, Costs]], helped: list[str]) -> str:
    """The verdict in one line, of at most 80 characters with the demo's two users."""
    if not helped:
        return "Keep the base: no log made a policy that costs less beyond the error."
    first, *more = [(log, short_cost(float(trained[log][chosen].mean()))) for log in helped]
    change = f"{short_cost(base)} to {first[1]} on the {first[0]} user's log"
    change += "".join(f", {cost} on the {log}'s" for log, cost in more)
    served = "serve it" if len(helped) == len(trained) else f"serve it for the {listed(helped)} user"
    return f"Train {chosen}: {change}; {served}."


def _of_log(log: str, chosen: str, policies: Mapping[str, Costs], change: Difference) -> str:
    """What the chosen method achieves with a log, and how the others compare to it."""
    others = {m: Difference.of(costs, policies[chosen]) for m, costs in policies.items() if m != chosen}
    cost = short_cost(float(policies[chosen].mean()))
    parts = [f"With the {log} user's log {chosen} costs {cost}, {change} than the base"]
    equal = [method for method, each in others.items() if each.is_within_error]
    if equal:
        parts.append(f"{listed(equal)} {'is' if len(equal) == 1 else 'are'} equally good")
    for method, each in others.items():
        if method not in equal:
            parts.append(f"{method} costs {each}")
    return "; ".join(parts) + "."


def _over_logs(chosen: str, trained: Mapping[str, Mapping[str, Costs]]) -> str:
    """Whether another method is as good as the chosen one on every log."""
    methods = next(iter(trained.values()))
    equal = [
        method
        for method in methods
        if method != chosen
        and all(
            (each := Difference.of(policies[method], policies[chosen])).mean <= 0 or each.is_within_error
            for policies in trained.values()
        )
    ]
    if equal:
        return f"As good as {chosen} with every log, within the error: {listed(equal)}."
    return f"No other method is as good as {chosen} with every log."
