"""The autopilot: when to fit again, and how a new policy earns its traffic, or loses it.

    stages       where each policy stands, as a fold over transitions
    comparison   tests that may be looked at any time
    decisions    transitions that follow from the rounds
    triggers     when it pays to fit again
    gates        why a policy that was fitted does not go on
    alarms       why a policy is rolled back
    ledger       transitions in the store
    look         what a step reads of the store
    generation   what came of a fit
    lease        one autopilot acts at a time
    pilot        all of it together, step by step

Needs the extra `serve`, and `train` where it fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.lazy import lazy_getattr

if TYPE_CHECKING:
    from editloop.autopilot.config import AutopilotConfig
    from editloop.autopilot.pilot import Autopilot
    from editloop.autopilot.stages import Stage, Stages, Transition

_MODULES = {
    "config": ("AutopilotConfig",),
    "pilot": ("Autopilot",),
    "stages": ("Stage", "Stages", "Transition"),
}
__getattr__, __dir__ = lazy_getattr(__name__, _MODULES)

__all__ = ["Autopilot", "AutopilotConfig", "Stage", "Stages", "Transition"]
