"""The offline gates: why a policy that was just fitted does not go on to users, each a rule of its own.

A further gate is a function and a line of the registry, or an entry point in the group `editloop.gates`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from editloop.autopilot.alarms import excess_share
from editloop.registry import Registry

__all__ = ["GATES", "FittedPolicy", "OfflineGate", "gate_objections"]

STANDARD_ERRORS = 2.0
"""Standard errors by which held-out drafts may cost more than the champion's, or be worse in another way."""

SHARE = 0.1
"""A share of the held-out drafts that is higher than the champion's by less is left to the canary."""


@dataclass(frozen=True)
class FittedPolicy:
    """A policy of a run that was just fitted, with what the offline figures say.

    Attributes:
        arm: Its permanent name.
        name: Its name in the run.
        run: The run folder.
        validation: As of `editloop.policy.catalog.validation`: its cost on the validation part, the base's,
            and the alarms of its training.
        held_out: What `evaluate` says of it on requests that no fit reads; None if there are none.
        champion: The same of the champion.
    """

    arm: str
    name: str
    run: str
    validation: Mapping[str, Any] = field(default_factory=dict)
    held_out: Mapping[str, Any] | None = None
    champion: Mapping[str, Any] | None = None


OfflineGate = Callable[[FittedPolicy], str | None]
"""A gate: the reason to stop a policy; None lets it pass."""


def validation_cost(policy: FittedPolicy) -> str | None:
    """Its drafts cost more than the base's, by more than the standard error of the difference."""
    from editloop.policy.catalog import objection

    return objection(policy.validation)


def training(policy: FittedPolicy) -> str | None:
    """Its training raised an alarm: displacement, degenerate or worse text, a loss that never improved."""
    alarms = policy.validation.get("alarms") or ()
    return str(alarms[0]) if alarms else None


def held_out_cost(policy: FittedPolicy) -> str | None:
    """On requests that no fit reads its drafts cost more than the champion's, beyond two standard errors."""
    own, other = _sampled(policy.held_out), _sampled(policy.champion)
    if own is None or other is None:
        return None
    error = math.hypot(own["se"], other["se"])
    if own["mean"] <= other["mean"] + STANDARD_ERRORS * error:
        return None
    return f"its held-out drafts cost {own['mean']:.3f}, the champion's {other['mean']:.3f} ± {error:.3f}"


def well_formed(policy: FittedPolicy) -> str | None:
    """Its held-out drafts end in loops, or do not end, in clearly more cases than the champion's.

    The alarms of training compare these shares with the base's, by which a champion that is better than the
    base would be no measure.
    """
    return _more_often("looping", "end in a loop", policy) or _more_often("unfinished", "do not end", policy)


def non_answers(policy: FittedPolicy) -> str | None:
    """Its held-out drafts are no answers in clearly more cases than the champion's, and than the edits.

    Users have nothing to edit in a refusal or a question back, so that no cost of edits shows it. But if what
    they make of drafts themselves reads like that, such as a letter that only asks for something, a policy
    that has learned it is right.
    """
    objection = _more_often("non_answers", "are no answers", policy)
    own, wanted = (_sampled(policy.held_out, name) for name in ("non_answers", "edits_non_answers"))
    if objection is None or not wanted:
        return objection
    n = int(_sampled(policy.held_out)["n"])
    is_more = excess_share(round(own * n), n, round(wanted * n), n, least=SHARE, errors=STANDARD_ERRORS)
    return objection if is_more else None


def off_policy(policy: FittedPolicy) -> str | None:
    """By weights of the drafts that users had, its own would cost more, by the whole of a 95% interval.

    Where the log has no log-probabilities, or too little of what the policy would write, there is no estimate
    and nothing to object to.
    """
    found = (policy.held_out or {}).get("off_policy") or {}
    cost, logged = found.get("cost"), found.get("logged")
    if cost is None or logged is None or cost["low"] <= logged:
        return None
    own = f"{cost['value']:.3f} [{cost['low']:.3f}, {cost['high']:.3f}]"
    return f"by the log its drafts would cost {own}, those that users had cost {logged:.3f}"


def _sampled(figures: Mapping[str, Any] | None, name: str = "cost") -> Any:
    """A figure of the drafts that were sampled; None if there are none, or an earlier version made them."""
    return ((figures or {}).get("sampled") or {}).get(name)


def _more_often(name: str, what: str, policy: FittedPolicy) -> str | None:
    """The objection to a share of the held-out drafts that is higher than the champion's beyond chance."""
    own, other = _sampled(policy.held_out, name), _sampled(policy.champion, name)
    if own is None or other is None:
        return None
    n, other_n = (int(_sampled(each)["n"]) for each in (policy.held_out, policy.champion))
    bad, other_bad = round(own * n), round(other * other_n)
    if not excess_share(bad, n, other_bad, other_n, least=SHARE, errors=STANDARD_ERRORS):
        return None
    return f"{bad} of its {n} held-out drafts {what}, {other_bad} of the champion's {other_n}"


GATES: Registry[OfflineGate] = Registry(
    "gate",
    "editloop.gates",
    {
        "validation_cost": "editloop.autopilot.gates:validation_cost",
        "training": "editloop.autopilot.gates:training",
        "held_out_cost": "editloop.autopilot.gates:held_out_cost",
        "well_formed": "editloop.autopilot.gates:well_formed",
        "non_answers": "editloop.autopilot.gates:non_answers",
        "off_policy": "editloop.autopilot.gates:off_policy",
    },
)
"""The gates, by name; all are asked."""


def gate_objections(policy: FittedPolicy) -> dict[str, str]:
    """The reasons of the gates that a policy does not pass, by the gates' names."""
    found = {name: GATES.get(name)(policy) for name in GATES}
    return {name: reason for name, reason in found.items() if reason is not None}
