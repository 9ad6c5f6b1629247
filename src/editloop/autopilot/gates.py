"""The offline gates: why a policy that was just fitted does not go on to users, each a rule of its own.

A further gate is a function and a line of the registry, or an entry point in the group `editloop.gates`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from editloop.registry import Registry

__all__ = ["GATES", "FittedPolicy", "OfflineGate", "gate_objections"]

STANDARD_ERRORS = 2.0
"""Standard errors by which held-out drafts may cost more than the champion's."""


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


def _sampled(figures: Mapping[str, Any] | None) -> Mapping[str, float] | None:
    sampled = (figures or {}).get("sampled")
    return None if not sampled else sampled["cost"]


GATES: Registry[OfflineGate] = Registry(
    "gate",
    "editloop.gates",
    {
        "validation_cost": "editloop.autopilot.gates:validation_cost",
        "training": "editloop.autopilot.gates:training",
        "held_out_cost": "editloop.autopilot.gates:held_out_cost",
    },
)
"""The gates, by name; all are asked."""


def gate_objections(policy: FittedPolicy) -> dict[str, str]:
    """The reasons of the gates that a policy does not pass, by the gates' names."""
    found = {name: GATES.get(name)(policy) for name in GATES}
    return {name: reason for name, reason in found.items() if reason is not None}
